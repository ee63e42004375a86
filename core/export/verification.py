"""Is what was exported what was shown? Run it where nothing of ours can help it."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.analysis import Analysis
from core.binning import assign_bins, bin_edges
from core.calibrators import Calibrator
from core.companions import companions_of
from core.export.portable import (
    Kind,
    as_given,
    copies_as_given,
    export_metadata,
    export_of,
    exported_calibrator,
    from_json,
    json_reader,
    predict_given,
    to_json,
    to_python,
)
from core.export.runners import RUN_ONNX, RUN_TORCH, run_clean
from core.messages import DataError

__all__ = [
    "FILES",
    "MAX_CELLS",
    "TOLERANCE",
    "TOLERANCES",
    "Artefact",
    "Verification",
    "export",
    "judge",
    "row_differences",
    "verify",
]

FloatArray = NDArray[np.floating[Any]]

TOLERANCE = 1e-12
TOLERANCES: dict[Kind, float] = {
    "json": TOLERANCE,
    "python": TOLERANCE,
    "onnx": TOLERANCE,
    "onnx32": 1e-5,
    "torch": TOLERANCE,
}
"""Largest difference of a probability at which a file is what was shown."""

MAX_CELLS = 4_000_000
"""Rows x classes that a verification runs on; of more, evenly spaced rows."""

FILES: dict[Kind, tuple[str, ...]] = {
    "json": ("calibrator.json",),
    "python": ("calibrator.py",),
    "onnx": ("calibrator.onnx",),
    "onnx32": ("calibrator_float32.onnx",),
    "torch": ("calibrator_torch.py", "calibrator_torch.safetensors"),
}
"""Names of the files of each format, as the command line writes them."""

_MOST_DISTANT = 500_000  # features of rows whose distances to others are measured
_FEW = 0.01  # share of the rows beyond the tolerance at which a file is still given
_PACKAGES: dict[Kind, tuple[str, str]] = {
    "json": ("NumPy", "numpy"),
    "python": ("NumPy", "numpy"),
    "onnx": ("onnxruntime", "onnxruntime"),
    "onnx32": ("onnxruntime", "onnxruntime"),
    "torch": ("torch", "torch"),
}


@dataclass(frozen=True, slots=True)
class Verification:
    """How an exported file, run in a clean interpreter, agrees with what was shown.

    Parameters
    ----------
    max_difference : float
        Largest difference of a probability, from the calibrator on the same scores
        (rounded to float32 where the file takes float32); NaN if nothing came back.
    n_rows, n_total : int
        Rows it was run on, and rows there are.
    ok : bool
        Whether it ran, the difference is within the tolerance, and nothing failed.
    n_label_changes : int
        Rows whose most probable class is not the one that was shown.
    seconds : float
    interpreter : str
        What ran the file.
    problem : str
        Why it is not ok; empty if it is. May quote the user's data.
    tolerance : float
    n_bin_changes : int
        Rows whose confidence lies in another bin than what was shown.
    n_beyond : int
        Rows with a difference beyond the tolerance.
    is_run : bool
        Whether there was anything to run the file with.
    is_offered : bool
        Whether the file may be downloaded: it is ok, could not be run here, or
        differs beyond the tolerance in at most 1 % of the rows (where a curve is so
        steep that the rounding of another runtime decides). Without `ok` it is
        offered with a warning.
    is_made_up : bool
        Whether the rows were random inputs instead of the user's.
    """

    max_difference: float
    n_rows: int
    n_total: int
    ok: bool
    n_label_changes: int
    seconds: float
    interpreter: str
    problem: str = ""
    tolerance: float = TOLERANCE
    n_bin_changes: int = 0
    n_beyond: int = 0
    is_run: bool = True
    is_offered: bool = False
    is_made_up: bool = False

    def __post_init__(self) -> None:
        if self.ok:
            object.__setattr__(self, "is_offered", True)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        rows = f"{self.n_rows:,} rows"
        if self.n_rows < self.n_total:
            rows = f"{self.n_rows:,} evenly spaced rows of {self.n_total:,}"
        if self.is_made_up:
            rows = f"{self.n_rows:,} rows of made-up inputs"
        if not self.is_run:
            return f"{self.problem[:1].upper()}{self.problem[1:]}."
        if not self.ok and not self.is_offered:
            return f"The exported file failed on {rows}: {self.problem}"
        run = f"Run on {rows} in a clean interpreter ({self.interpreter}):"
        if not self.ok:
            return f"{run} not within the tolerance; {self.problem}."
        return (
            f"{run} the largest "
            f"difference is {self.max_difference:.1e}; {self.n_label_changes:,} rows "
            f"change their label, {self.n_bin_changes:,} their bin."
        )


@dataclass(frozen=True, slots=True)
class Artefact:
    """An exported file with the proof that it works; see `Verification.is_offered`.

    Parameters
    ----------
    kind : {"json", "python", "onnx", "onnx32", "torch"}
    file_name : str
        Suggested name, made of the method's id only.
    text : str
        Contents, to be written as UTF-8; empty for ONNX.
    verification : Verification
    binary : bytes or None
        The ONNX model, or the parameters of the torch module (safetensors).
    """

    kind: Kind
    file_name: str
    text: str
    verification: Verification
    binary: bytes | None = None

    @property
    def files(self) -> dict[str, bytes]:
        """Contents by file name, as the command line writes them; {} if refused."""
        parts = (self.text.encode("utf-8") if self.text else None, self.binary)
        found = [part for part in parts if part is not None]
        return dict(zip(FILES[self.kind], found, strict=True)) if found else {}


def export(
    analysis: Analysis, method: str, kind: Kind, *, timeout: float = 60.0
) -> Artefact:
    """Write a calibrator, and run what was written on the rows of the file.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator, or "uncalibrated".
    kind : {"json", "python", "onnx", "onnx32", "torch"}
    timeout : float, default=60.0
        Seconds that the clean interpreter may take.
    """
    metadata = export_metadata(analysis, method)
    calibrator = exported_calibrator(analysis, method)
    stem, suffix = Path(FILES[kind][0]).stem, Path(FILES[kind][0]).suffix
    name = f"{calibrator.method_id}_{stem}{suffix}"
    why = export_of(calibrator).refusal
    if why and kind not in ("json", "python"):
        return Artefact(
            kind, name, "", _not_run(why.rstrip("."), kind, metadata["n_rows"])
        )
    text, binary = _written(kind, calibrator, metadata)
    logits = analysis.study.evaluation.logits
    assert logits is not None  # noqa: S101 - export_metadata has looked
    chosen, own = analysis.settings, analysis.study.evaluation
    beside = companions_of(analysis.study, own, calibrator).take(slice(None))
    found = verify(
        kind,
        text,
        calibrator,
        logits,
        binary=binary,
        input_kind=metadata["input"],
        bins=(chosen.n_bins, chosen.strategy),
        timeout=timeout,
        copies=beside.get("copies"),
        features=beside.get("features"),
    )
    return Artefact(kind, name, text, found, binary)


def verify(
    artefact_kind: Kind,
    text: str,
    calibrator: Calibrator,
    logits: FloatArray,
    *,
    binary: bytes | None = None,
    input_kind: str = "logits",
    bins: tuple[int, str] = (15, "uniform"),
    timeout: float = 60.0,
    copies: FloatArray | None = None,
    features: FloatArray | None = None,
) -> Verification:
    """Run an exported file in a clean interpreter and compare with the calibrator.

    A Python module runs as the program it is. A JSON file is read twice: by a NumPy
    program that shares no code with `from_json`, and by `from_json` itself. An ONNX
    model runs in onnxruntime on the CPU, a torch module where torch is installed.

    Parameters
    ----------
    artefact_kind : {"json", "python", "onnx", "onnx32", "torch"}
    text : str
        From `to_json`, `to_python` or `to_torch`. Modules are executed: never pass
        one that somebody uploaded.
    calibrator : Calibrator
        What the file must agree with, in float64.
    logits : ndarray of shape (n, k)
        The user's rows; of more than `MAX_CELLS` scores, evenly spaced rows.
    binary : bytes, optional
        From `to_onnx`, or the parameters from `to_torch`.
    input_kind : {"logits", "probabilities"}, default="logits"
        What the file says it expects.
    bins : tuple of int and str, default=(15, "uniform")
        Number and strategy of the bins in which rows are counted.
    timeout : float, default=60.0
        Seconds that the interpreter may take.
    copies : ndarray of shape (m, n, k), optional
        Logits of transformed copies, for calibrators that read them.
    features : ndarray of shape (n, d), optional
        Activations, likewise.

    Returns
    -------
    Verification
        With ``ok=False`` and the problem if anything differs or fails.
    """
    start = time.perf_counter()
    n_total, k = logits.shape
    n_copies = 0 if copies is None else len(copies)
    n = min(n_total, max(1, MAX_CELLS // (k * (1 + n_copies))))
    if features is not None:
        n = min(n, max(1, _MOST_DISTANT // max(1, features.shape[1])))
    rows = np.linspace(0, n_total - 1, n).round().astype(np.int64)
    scores = as_given(logits if n == n_total else logits[rows], input_kind)
    more = None if copies is None else copies_as_given(copies[:, rows], input_kind)
    own = None if features is None else np.asarray(features[rows], np.float64)
    runtime = _runtime(artefact_kind)
    if runtime is None:
        problem = f"not run here: {_PACKAGES[artefact_kind][0]} is not installed"
        found = _not_run(problem, artefact_kind, n_total)
        return replace(found, is_offered=True, seconds=time.perf_counter() - start)
    shown = expected = predict_given(calibrator, scores, input_kind, more, own)
    too_large = ""
    if artefact_kind == "onnx32":
        with np.errstate(over="ignore"):
            rounded = scores.astype(np.float32).astype(np.float64)
        if np.isposinf(rounded).any() or np.isneginf(rounded).all(axis=1).any():
            too_large = "its scores are larger than float32 can hold"
        else:
            scores = rounded
            if more is not None:
                more = more.astype(np.float32).astype(np.float64)
            expected = predict_given(calibrator, scores, input_kind, more)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        place = Path(folder)
        program = _laid_out(place, artefact_kind, text, binary, calibrator, input_kind)
        arrays, problem = run_clean(
            place, program, scores, timeout, copies=more, features=own
        )
        written = (
            "" if not text else (place / FILES[artefact_kind][0]).read_text("utf-8")
        )
    problem = too_large or problem
    out = arrays.get("out")
    if not problem and out is None:
        problem = "it wrote no array"
    beyond = row_differences(out, expected)
    if artefact_kind == "json":
        again, why = _read_back(written, scores, input_kind, more, own)
        problem = problem or why
        beyond = np.maximum(beyond, row_differences(again, expected))
    return judge(
        arrays,
        problem,
        beyond,
        shown,
        tolerance=TOLERANCES[artefact_kind],
        bins=bins,
        may_differ=artefact_kind in ("onnx", "onnx32", "torch"),
        n_rows=n,
        n_total=n_total,
        seconds=time.perf_counter() - start,
        interpreter=f"Python {platform.python_version()}, {runtime}",
    )


def _not_run(why: str, kind: Kind, n_total: int) -> Verification:
    """Return what is known of a file that was not run, or not written."""
    return Verification(
        max_difference=float("nan"),
        n_rows=0,
        n_total=n_total,
        ok=False,
        n_label_changes=0,
        seconds=0.0,
        interpreter="",
        problem=why,
        tolerance=TOLERANCES[kind],
        is_run=False,
    )


def judge(
    arrays: Mapping[str, FloatArray],
    problem: str,
    differences: FloatArray,
    shown: FloatArray,
    *,
    tolerance: float,
    bins: tuple[int, str],
    may_differ: bool,
    **facts: Any,
) -> Verification:
    """Return what the differences of the rows say of a file.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What came back: `out`, and `label` where the file gives labels.
    problem : str
        Why it did not run; empty if it did.
    differences : ndarray of shape (n,)
        Largest difference of each row; NaN where nothing came back.
    shown : ndarray of shape (n, k)
        What the user has seen, for labels and bins.
    tolerance : float
    bins : tuple of int and str
    may_differ : bool
        Whether another runtime computes, so that a few rows may be beyond.
    **facts : object
        Other fields of `Verification`.
    """
    difference = float(differences.max(initial=0.0))
    n_beyond = int((~(differences <= tolerance)).sum())
    n_tolerated = _FEW * len(differences) if may_differ else 0
    is_offered = not problem and n_beyond <= n_tolerated
    if not problem and n_beyond:
        problem = (
            f"probabilities differ by up to {difference:.1e}, in {n_beyond:,} rows by "
            f"more than {tolerance:.0e}"
        )
    n_labels, n_bins = _changes(arrays, shown, bins)
    if problem and is_offered:
        problem += f"; {n_labels:,} rows change their label, {n_bins:,} their bin"
    return Verification(
        max_difference=difference,
        ok=not problem,
        n_label_changes=n_labels,
        problem=problem,
        tolerance=tolerance,
        n_bin_changes=n_bins,
        n_beyond=n_beyond,
        is_offered=is_offered,
        **facts,
    )


def _written(
    kind: Kind, calibrator: Calibrator, metadata: Mapping[str, Any]
) -> tuple[str, bytes | None]:
    """Return the text and the binary part of an artefact."""
    if kind == "json":
        return to_json(calibrator, metadata), None
    if kind == "python":
        return to_python(calibrator, metadata), None
    if kind == "torch":
        from core.export.torch_module import to_torch

        source, parameters = to_torch(calibrator, metadata)
        return source, parameters
    from core.export.onnx import to_onnx

    precision: Any = "float64" if kind == "onnx" else "float32"
    return "", to_onnx(calibrator, metadata, precision)


def _laid_out(
    folder: Path,
    kind: Kind,
    text: str,
    binary: bytes | None,
    calibrator: Calibrator,
    input_kind: str,
) -> str:
    """Write the files into a folder and return the name of the program to run."""
    names = FILES[kind]
    if text:
        (folder / names[0]).write_text(text, encoding="utf-8", newline="\n")
    if binary is not None:
        (folder / names[-1]).write_bytes(binary)
    if kind == "python":
        return names[0]
    programs = {"onnx": RUN_ONNX, "onnx32": RUN_ONNX, "torch": RUN_TORCH}
    if kind == "json":
        source = json_reader(calibrator, input_kind, names[0])
    else:
        source = programs[kind].replace("@FILE@", names[0])
    (folder / "reader.py").write_text(source, encoding="utf-8")
    return "reader.py"


def _runtime(kind: Kind) -> str | None:
    """Return what runs a format here, without importing it."""
    name, package = _PACKAGES[kind]
    try:
        return f"{name} {version(package)}"
    except PackageNotFoundError:
        return None


def _read_back(
    text: str, scores: FloatArray, input_kind: str, *beside: FloatArray | None
) -> tuple[FloatArray | None, str]:
    try:
        calibrator, _ = from_json(text)
    except DataError as error:
        return None, error.what
    return predict_given(calibrator, scores, input_kind, *beside), ""


def row_differences(found: FloatArray | None, expected: FloatArray) -> FloatArray:
    """Return the largest difference of each row; NaN where there is none."""
    if found is None or found.shape != expected.shape or found.dtype.kind != "f":
        return np.full(len(expected), np.nan)
    return np.asarray(np.abs(found - expected).max(axis=1))


def _changes(
    arrays: Mapping[str, FloatArray], shown: FloatArray, bins: tuple[int, str]
) -> tuple[int, int]:
    """Return how many rows have another label, and how many another bin.

    A label is another one if what was shown gives it less than the largest
    probability; of classes that tie, either is right.
    """
    found = arrays.get("out")
    if found is None or found.shape != shown.shape or found.dtype.kind != "f":
        return 0, 0
    top = shown.max(axis=1)
    label = arrays.get("label", found.argmax(axis=1))
    if label.shape != top.shape or label.dtype.kind != "i":
        return len(top), len(top)
    chosen = np.clip(label, 0, shown.shape[1] - 1)[:, None]
    n_labels = int((np.take_along_axis(shown, chosen, axis=1)[:, 0] < top).sum())
    edges = bin_edges(top, *bins)
    is_moved = assign_bins(found.max(axis=1), edges) != assign_bins(top, edges)
    return n_labels, int(is_moved.sum())
