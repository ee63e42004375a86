"""Is an exported detector what was shown? Run it where nothing of ours can help it."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.export.detectors.fitted import FittedDetector, from_json
from core.export.detectors.module import json_reader, to_python
from core.export.runners import RUN_DETECTOR, run_on_archive
from core.export.verification import MAX_CELLS, TOLERANCES, Verification
from core.messages import DataError
from core.predictions import Predictions

__all__ = [
    "DETECTOR_FILES",
    "DetectorArtefact",
    "DetectorKind",
    "DetectorVerification",
    "Shown",
    "export_detector",
    "judge_scores",
    "shown_rows",
    "verify_detector",
]

FloatArray = NDArray[np.floating[Any]]
DetectorKind = Literal["json", "python", "onnx", "onnx32"]

DETECTOR_FILES: dict[DetectorKind, str] = {
    "json": "detector.json",
    "python": "detector.py",
    "onnx": "detector.onnx",
    "onnx32": "detector_float32.onnx",
}
"""Name of the file of each format, as the command line writes them."""

_MOST_WORK = 20_000_000_000  # rows times numbers that a detector holds
_FEW = 0.01  # share of the rows beyond the tolerance at which a file is still given
_MIDDLE = (5.0, 95.0)  # percentiles of the scores that say how large their scale is


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Rows of the user, and what the detector made of them.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        As an exported file reads them, in float64.
    accepted : ndarray of bool of shape (n,)
        What was decided on the rows as they are.
    places : ndarray of int64 of shape (n,)
        Which rows these are: of many, evenly spaced ones are taken.
    n_total : int
        Rows there are.
    """

    arrays: Mapping[str, FloatArray]
    accepted: NDArray[np.bool_]
    places: NDArray[np.int64]
    n_total: int


@dataclass(frozen=True, slots=True)
class DetectorVerification:
    """How an exported detector, run in a clean interpreter, agrees with what was shown.

    Parameters
    ----------
    max_difference : float
        Largest difference of a score from the detector's on the same rows (rounded to
        float32 where the file takes float32), relative to the score itself or to the
        range of the middle 90 % of all, whichever is larger; NaN if nothing came back.
    n_rows, n_total : int
        Rows it was run on, and rows there are.
    ok : bool
        Whether it ran, the difference is within the tolerance, and nothing failed.
    n_decision_changes : int
        Rows that are accepted where rejected was shown, or the reverse.
    seconds : float
    interpreter : str
        What ran the file.
    problem : str
        Why it is not ok; empty if it is. May quote the user's data.
    tolerance : float
    n_beyond : int
        Rows with a difference beyond the tolerance.
    is_run : bool
        Whether there was anything to run the file with.
    is_offered : bool
        Whether the file may be downloaded: it is ok, could not be run here, or is an
        ONNX model beyond the tolerance in at most 1 % of the rows.
    is_made_up : bool
        Whether the rows were random inputs instead of the user's.
    calibration : Verification or None
        The same of the probabilities of a model with a calibrator behind it.
    """

    max_difference: float
    n_rows: int
    n_total: int
    ok: bool
    n_decision_changes: int
    seconds: float
    interpreter: str
    problem: str = ""
    tolerance: float = 0.0
    n_beyond: int = 0
    is_run: bool = True
    is_offered: bool = False
    is_made_up: bool = False
    calibration: Verification | None = None

    def __post_init__(self) -> None:
        if self.ok:
            object.__setattr__(self, "is_offered", True)

    @property
    def sentence(self) -> str:
        """What was run on what, with which result."""
        rows = f"{self.n_rows:,} rows" + (
            " of made-up inputs" if self.is_made_up else ""
        )
        if self.n_rows < self.n_total:
            rows = f"{self.n_rows:,} of {self.n_total:,} rows"
        if not self.is_run:
            return self.problem
        if not self.is_offered:
            return f"The exported file failed on {rows}: {self.problem}"
        run = f"Run on {rows} in a clean interpreter ({self.interpreter}):"
        if not self.ok:
            return f"{run} not within the tolerance; {self.problem}."
        parts = [
            f"scores differ by at most {self.max_difference:.1e} of their scale",
            f"{self.n_decision_changes:,} rows change between accepted and rejected",
        ]
        if self.calibration is not None:
            beside = self.calibration
            parts += [
                f"probabilities differ by at most {beside.max_difference:.1e}",
                f"{beside.n_label_changes:,} rows change their label",
            ]
        return f"{run} {'; '.join(parts)}."


@dataclass(frozen=True, slots=True)
class DetectorArtefact:
    """An exported detector with the proof that it works.

    Parameters
    ----------
    kind : {"json", "python", "onnx", "onnx32"}
    file_name : str
        Suggested name, made of the method's id only.
    data : bytes
        Contents.
    verification : DetectorVerification
    """

    kind: DetectorKind
    file_name: str
    data: bytes
    verification: DetectorVerification


def export_detector(
    item: FittedDetector,
    rows: Sequence[Predictions] | Shown,
    kind: DetectorKind,
    *,
    timeout: float = 120.0,
) -> DetectorArtefact:
    """Write a detector, and run what was written on rows of the user.

    Parameters
    ----------
    item : FittedDetector
        From `fitted_detector`, or `from_json`.
    rows : sequence of Predictions, or Shown
        In-distribution and other rows; `shown_rows` prepares them once for all kinds.
    kind : {"json", "python", "onnx", "onnx32"}
    timeout : float, default=120.0
        Seconds that the clean interpreter may take.

    Raises
    ------
    FitError
        If the detector is too large to be written.
    DataError
        If the rows lack what the detector reads.
    """
    item.check_size()
    shown = rows if isinstance(rows, Shown) else shown_rows(item, rows)
    if kind == "json":
        data = item.to_json().encode()
    elif kind == "python":
        data = to_python(item, dict(shown.arrays)).encode()
    else:
        from core.export.detectors.onnx import to_onnx

        data = to_onnx(item, "float64" if kind == "onnx" else "float32")
    proof = verify_detector(kind, data, item, shown, timeout=timeout)
    path = Path(DETECTOR_FILES[kind])
    return DetectorArtefact(kind, f"{item.method}_{path.name}", data, proof)


def shown_rows(
    item: FittedDetector, rows: Sequence[Predictions], *, most: int = MAX_CELLS
) -> Shown:
    """Return rows as an exported file reads them, with what is decided on them.

    Parameters
    ----------
    item : FittedDetector
    rows : sequence of Predictions
        Of more than `MAX_CELLS` numbers, or where the detector is large, evenly spaced
        rows are taken.
    most : int, optional
        Of more rows than this, too.
    """
    n_total = sum(map(len, rows))
    width = sum(entry.width for entry in item.inputs)
    most = min(most, MAX_CELLS // max(width, 1), _MOST_WORK // (item.n_numbers + 1))
    n = min(n_total, max(most, 1))
    places = np.linspace(0, n_total - 1, n).round().astype(np.int64)
    ends = np.cumsum([0, *map(len, rows)])
    arrays, accepted = [], []
    for own, start, stop in zip(rows, ends[:-1], ends[1:], strict=True):
        mine = places[(places >= start) & (places < stop)] - start
        if mine.size:
            part = own if mine.size == len(own) else own.take(mine)
            arrays.append(item.arrays(part))
            accepted.append(item.accepts(item.detector.score(part)))
    joined = {
        entry.name: np.concatenate([part[entry.name] for part in arrays])
        for entry in item.inputs
    }
    return Shown(joined, np.concatenate(accepted), places, n_total)


def verify_detector(
    kind: DetectorKind,
    data: bytes,
    item: FittedDetector,
    shown: Shown,
    *,
    timeout: float = 120.0,
) -> DetectorVerification:
    """Run an exported file in a clean interpreter and compare with the detector.

    A Python module runs as the program it is. A JSON file is read twice: by a NumPy
    program that shares no code with `from_json`, and by `from_json` itself. An ONNX
    model runs in onnxruntime on the CPU.

    Parameters
    ----------
    kind : {"json", "python", "onnx", "onnx32"}
    data : bytes
        Never a module that somebody uploaded: it is executed.
    item : FittedDetector
        What the file must agree with, in float64.
    shown : Shown
    timeout : float, default=120.0
        Seconds that the interpreter may take.
    """
    start = time.perf_counter()
    arrays: dict[str, FloatArray] = dict(shown.arrays)
    too_large = ""
    if kind == "onnx32":
        with np.errstate(over="ignore"):
            single = {key: x.astype(np.float32) for key, x in arrays.items()}
        rounded: dict[str, FloatArray] = {
            key: x.astype(np.float64) for key, x in single.items()
        }
        if any(
            (np.isinf(rounded[key]) & ~np.isinf(arrays[key])).any() for key in arrays
        ):
            too_large = "its values are larger than float32 can hold"
        else:
            arrays = rounded
    expected = item.score(arrays)
    name = DETECTOR_FILES[kind]
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        place = Path(folder)
        (place / name).write_bytes(data)
        program = name
        if kind != "python":
            program = "reader.py"
            source = (
                json_reader(item, name)
                if kind == "json"
                else RUN_DETECTOR.replace("@FILE@", name)
            )
            (place / program).write_text(source, encoding="utf-8")
        found, problem = run_on_archive(place, program, arrays, timeout)
    again = None
    if kind == "json":
        try:
            again = from_json(data.decode()).score(arrays)
        except DataError as error:
            problem = problem or error.what
    runs = f"NumPy {version('numpy')}"
    if kind.startswith("onnx"):
        runs = f"onnxruntime {version('onnxruntime')}"
    return judge_scores(
        found,
        too_large or problem,
        expected,
        shown.accepted,
        again=again,
        tolerance=TOLERANCES[kind],
        may_differ=kind.startswith("onnx"),
        n_total=shown.n_total,
        seconds=time.perf_counter() - start,
        interpreter=f"Python {platform.python_version()}, {runs}",
    )


def judge_scores(
    found: Mapping[str, NDArray[Any]],
    problem: str,
    expected: FloatArray,
    accepted: NDArray[np.bool_],
    *,
    again: FloatArray | None = None,
    tolerance: float,
    may_differ: bool,
    **facts: Any,
) -> DetectorVerification:
    """Return what the differences of the scores say of a file.

    Parameters
    ----------
    found : mapping of str to ndarray
        What came back: `ood_score` and `accepted`.
    problem : str
        Why it did not run; empty if it did.
    expected : ndarray of shape (n,)
        Scores of the detector on the same rows.
    accepted : ndarray of bool of shape (n,)
        What was shown.
    again : ndarray of shape (n,), optional
        Scores of the file by another way.
    tolerance : float
    may_differ : bool
        Whether another runtime computes, so that a few rows may be beyond.
    **facts : object
        Other fields of `DetectorVerification`.
    """
    differences = relative_differences(found.get("ood_score"), expected)
    if again is not None:
        other = relative_differences(again, expected)
        differences = np.maximum(differences, other)
    difference = float(differences.max(initial=0.0))
    n_beyond = int((~(differences <= tolerance)).sum())
    decided = found.get("accepted")
    if not problem and (decided is None or decided.shape != accepted.shape):
        problem = "it does not say which rows it accepts"
    is_offered = not problem and n_beyond <= (_FEW * len(expected) if may_differ else 0)
    if not problem and n_beyond:
        problem = (
            f"scores differ by up to {difference:.1e} of their scale, in {n_beyond:,} "
            f"rows by more than {tolerance:.0e}"
        )
    n_changes = 0
    if decided is not None and decided.shape == accepted.shape:
        n_changes = int((decided != accepted).sum())
    if problem and is_offered:
        problem += f"; {n_changes:,} rows change between accepted and rejected"
    return DetectorVerification(
        max_difference=difference,
        n_rows=len(expected),
        ok=not problem,
        n_decision_changes=n_changes,
        problem=problem,
        tolerance=tolerance,
        n_beyond=n_beyond,
        is_offered=is_offered,
        **facts,
    )


def relative_differences(found: Any, expected: FloatArray) -> FloatArray:
    """Return the difference of each score relative to its scale; NaN without one."""
    if found is None or found.shape != expected.shape or found.dtype.kind != "f":
        return np.full(len(expected), np.nan)
    low, high = np.percentile(expected, _MIDDLE)
    scale = np.maximum(np.abs(expected), high - low)
    scale = np.where(scale > 0, scale, 1.0)
    with np.errstate(invalid="ignore"):
        gap = np.where(found == expected, 0.0, np.abs(found - expected) / scale)
    return np.asarray(gap)
