"""Local temperatures to take home: JSON and a NumPy-only module, run on the maps."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.export.literals import assignment, plain
from core.export.runners import run_clean
from core.export.verification import MAX_CELLS, TOLERANCE
from core.map_evaluation import MapAnalysis
from core.messages import DataError
from core.segmentation import LocalTemperature, SegmentationMaps

__all__ = [
    "FORMAT",
    "MAP_FILES",
    "MapArtefact",
    "MapVerification",
    "export_maps",
    "maps_from_json",
    "maps_to_json",
    "maps_to_python",
    "verify_maps",
]

FloatArray = NDArray[np.floating[Any]]
MapKind = Literal["json", "python"]

FORMAT, VERSION = "plumbline-local-temperature", 1
MAP_FILES: dict[MapKind, str] = {
    "json": "local_temperature.json",
    "python": "local_temperature.py",
}
"""Names of the files of each format."""

CONVENTION = (
    "probabilities of a pixel = softmax(logits / T); ln T = ln temperature - weights . "
    "(features - centre) / scale; features: 1, mean entropy and mean margin of the 3 x "
    "3 window (edge pixels repeated), ln(1 + distance to the nearest pixel whose "
    "prediction differs from a neighbour's, at most 32)"
)

_MODULE = '''"""Local temperature scaling of segmentation maps, with NumPy only.

    probabilities = calibrate(logits)  # both (n, k, h, w), classes as in CLASSES

A pixel's logits are divided by a temperature that follows the entropy and margin
around it and its distance to where the prediction changes. No prediction changes. As a
program, ``python THIS_FILE in.npy out.npy`` calibrates an array. Written by Plumbline:
FIT says from which images and with what result.
"""

import sys

import numpy as np

@CONSTANTS@
FARTHEST = 32  # pixels; beyond it a boundary is far away
LOWEST, HIGHEST = @BOUNDS@  # of a temperature


def calibrate(logits):
    """Return probabilities (n, k, h, w) of logits (n, k, h, w)."""
    z = checked(logits)
    result = np.empty(z.shape)
    for image in range(len(z)):
        shifted = z[image] - z[image].max(axis=0)
        e = np.exp(shifted / temperature(z[image]))
        result[image] = e / e.sum(axis=0)
    return result


def temperatures(logits):
    """Return the temperature (n, h, w) of every pixel of logits (n, k, h, w)."""
    return np.stack([temperature(z) for z in checked(logits)])


def temperature(z):
    """Return the temperature (h, w) of every pixel of one image (k, h, w)."""
    logs = np.log(TEMPERATURE)
    for weight, feature, centre, scale in zip(WEIGHTS, features(z), CENTRE, SCALE):
        logs = logs - weight * (feature - centre) / scale
    return np.exp(np.clip(logs, np.log(LOWEST), np.log(HIGHEST)))


def features(z):
    """Return what a temperature follows: 1, entropy, margin, distance to a boundary."""
    logs = z - z.max(axis=0)
    logs = logs - np.log(np.exp(logs).sum(axis=0))
    p = np.exp(logs)
    second, first = np.partition(p, -2, axis=0)[-2:]
    entropy = -(p * logs).sum(axis=0)
    one = np.ones(z.shape[1:])
    return one, around(entropy), around(first - second), np.log1p(distance(z))


def around(values):
    """Return the mean of the 3 x 3 window of each pixel, edge pixels repeated."""
    h, w = values.shape
    wide = np.pad(values, 1, mode="edge")
    parts = [wide[i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return np.mean(parts, axis=0)


def distance(z):
    """Return the distance of each pixel to where the prediction changes."""
    top = z.argmax(axis=0)
    edge = np.zeros(top.shape, dtype=bool)
    down, across = top[1:] != top[:-1], top[:, 1:] != top[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    # The squared distance down a column, then the least sum over columns.
    square = np.where(edge, 0.0, np.inf)
    for axis in (0, 1):
        found = square.copy()
        for step in range(1, min(FARTHEST + 1, square.shape[axis])):
            near, far = [slice(None)] * 2, [slice(None)] * 2
            near[axis], far[axis] = slice(step, None), slice(None, -step)
            near, far = tuple(near), tuple(far)
            found[near] = np.minimum(found[near], square[far] + step**2)
            found[far] = np.minimum(found[far], square[near] + step**2)
        square = found
    return np.minimum(np.sqrt(square), FARTHEST)


def checked(logits):
    """Return logits as finite float64 maps with one channel per class."""
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 4 or z.shape[1] != len(CLASSES):
        raise ValueError(f"expected (n, {len(CLASSES)}, h, w), got {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError("logits are finite")
    return z


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python THIS_FILE in.npy out.npy")
    np.save(sys.argv[2], calibrate(np.load(sys.argv[1], allow_pickle=False)))
'''


@dataclass(frozen=True, slots=True)
class MapVerification:
    """How an exported file, run in a clean interpreter, agrees with what was fitted.

    Parameters
    ----------
    max_difference : float
        Largest difference of a probability; NaN if nothing came back.
    n_images, n_total : int
        Images it was run on, and images there are.
    n_pixels : int
    ok : bool
    seconds : float
    problem : str
        Why it is not ok; empty if it is.
    """

    max_difference: float
    n_images: int
    n_total: int
    n_pixels: int
    ok: bool
    seconds: float
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        images = f"{self.n_images:,} images"
        if self.n_images < self.n_total:
            images = f"{self.n_images:,} evenly spaced images of {self.n_total:,}"
        if not self.ok:
            return f"The exported file failed on {images}: {self.problem}."
        return (
            f"Run on {images} in a clean interpreter (Python "
            f"{platform.python_version()}, NumPy {np.__version__}): the largest "
            f"difference is {self.max_difference:.1e}."
        )


@dataclass(frozen=True, slots=True)
class MapArtefact:
    """An exported file with the proof that it works; given only where that is ok."""

    kind: MapKind
    file_name: str
    text: str
    verification: MapVerification


def export_maps(
    analysis: MapAnalysis, kind: MapKind, *, timeout: float = 120.0
) -> MapArtefact:
    """Write the local temperatures, and run what was written on the user's maps."""
    facts = _facts(analysis)
    write = maps_to_json if kind == "json" else maps_to_python
    text = write(analysis.calibrator, facts)
    found = verify_maps(kind, text, analysis.calibrator, analysis.maps, timeout=timeout)
    return MapArtefact(kind, MAP_FILES[kind], text, found)


def maps_to_json(calibrator: LocalTemperature, facts: Mapping[str, Any]) -> str:
    """Return local temperatures as JSON; floats round-trip exactly.

    Parameters
    ----------
    calibrator : LocalTemperature
    facts : mapping
        ``classes``, and what is to be known of the fit.
    """
    fit = dict(facts)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "method": "local-temperature",
        "convention": CONVENTION,
        "classes": list(fit.pop("classes")),
        "parameters": calibrator.to_dict(),
        "fit": fit,
    }
    return json.dumps(plain(document), indent=1, allow_nan=False) + "\n"


def maps_from_json(text: str | bytes) -> tuple[LocalTemperature, tuple[str, ...]]:
    """Read what `maps_to_json` wrote: the temperatures, and the names of classes."""
    try:
        document = json.loads(text)
        kind = document["format"], document["version"]
        classes = tuple(str(name) for name in document["classes"])
        parameters = dict(document["parameters"])
    except (ValueError, TypeError, KeyError):
        kind, classes, parameters = ("", 0), (), {}
    if kind != (FORMAT, VERSION):
        raise DataError(
            "This is not a file of local temperatures.",
            "calibrator file",
            f"Give the {MAP_FILES['json']} that Plumbline wrote.",
        )
    return LocalTemperature.from_dict(parameters), classes


def maps_to_python(calibrator: LocalTemperature, facts: Mapping[str, Any]) -> str:
    """Return a module that needs NumPy only (see `maps_to_json`)."""
    fit, values = dict(plain(dict(facts))), calibrator.to_dict()
    constants = {
        "CLASSES": fit.pop("classes"),
        **{name.upper(): values[name] for name in values},
        "FIT": {"method": "local-temperature", **fit},
    }
    return _module("\n".join(assignment(k, plain(v)) for k, v in constants.items()))


def verify_maps(
    kind: MapKind,
    text: str,
    calibrator: LocalTemperature,
    maps: SegmentationMaps,
    *,
    timeout: float = 120.0,
) -> MapVerification:
    """Run an exported file in a clean interpreter and compare with the calibrator.

    A JSON file is read twice: by a NumPy program that shares no code with
    `maps_from_json`, and by that. Of more than `MAX_CELLS` scores evenly spaced images
    are taken.
    """
    start = time.perf_counter()
    b, k, h, w = maps.logits.shape
    n = min(b, max(1, MAX_CELLS // (k * h * w)))
    some = np.linspace(0, b - 1, n).round().astype(np.int64)
    logits = maps.logits[some].astype(np.float64)
    expected = np.stack([np.exp(calibrator.calibrated(z)[0]) for z in logits])
    program = text
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        folder = Path(name)
        (folder / MAP_FILES[kind]).write_text(text, encoding="utf-8", newline="\n")
        if kind == "json":
            program = _json_reader()
        (folder / "program.py").write_text(program, encoding="utf-8", newline="\n")
        arrays, problem = run_clean(folder, "program.py", logits, timeout)
    differences = [_difference(arrays.get("out"), expected)]
    if kind == "json" and not problem:
        again, _ = maps_from_json(text)
        own = np.stack([np.exp(again.calibrated(z)[0]) for z in logits])
        differences.append(_difference(own, expected))
    largest = float(np.max(differences))
    if not problem and not largest <= TOLERANCE:
        problem = f"probabilities differ by up to {largest:.1e}"
    return MapVerification(
        max_difference=largest,
        n_images=n,
        n_total=b,
        n_pixels=n * h * w,
        ok=not problem,
        seconds=time.perf_counter() - start,
        problem=problem,
    )


def _difference(found: FloatArray | None, expected: FloatArray) -> float:
    if found is None or found.shape != expected.shape or found.dtype.kind != "f":
        return float("nan")
    return float(np.abs(found - expected).max())


def _json_reader() -> str:
    keys = ("temperature", "weights", "centre", "scale")
    lines = [
        "import json",
        "",
        f'with open("{MAP_FILES["json"]}", encoding="utf-8") as file:',
        "    document = json.load(file)",
        'CLASSES = document["classes"]',
        *(f'{key.upper()} = document["parameters"]["{key}"]' for key in keys),
    ]
    return _module("\n".join(lines))


def _module(constants: str) -> str:
    from core.calibrators.scaling import HIGHEST, LOWEST

    bounds = f"{LOWEST!r}, {HIGHEST!r}"
    return _MODULE.replace("@BOUNDS@", bounds).replace("@CONSTANTS@", constants)


def _facts(analysis: MapAnalysis) -> dict[str, Any]:
    """Return what an export says of itself, as plain JSON values."""
    results = analysis.results
    return {
        "classes": list(analysis.maps.classes),
        "file": analysis.maps.name,
        "fingerprint": analysis.maps.fingerprint,
        "split": analysis.split_sentence,
        "n_test_pixels": analysis.n_test_pixels,
        "metrics": {
            name: {key: found.estimates[key].value for key in ("nll", "brier", "ece")}
            for name, found in results.items()
        },
        "notes": [note.to_dict() for note in analysis.notes],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
