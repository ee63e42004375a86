"""Is what was exported what was shown? Run it where nothing of ours can help it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.analysis import Analysis
from core.calibrators import Calibrator
from core.export.portable import (
    Kind,
    as_given,
    export_metadata,
    exported_calibrator,
    from_json,
    json_reader,
    predict_given,
    to_json,
    to_python,
)
from core.messages import DataError

__all__ = ["MAX_CELLS", "TOLERANCE", "Artefact", "Verification", "export", "verify"]

FloatArray = NDArray[np.floating[Any]]

TOLERANCE = 1e-12
MAX_CELLS = 4_000_000
"""Rows x classes that a verification runs on; of more, evenly spaced rows."""

_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
_FILES: dict[Kind, str] = {"json": "calibrator.json", "python": "calibrator.py"}


@dataclass(frozen=True, slots=True)
class Verification:
    """How an exported file, run in a clean interpreter, agrees with what was shown.

    Parameters
    ----------
    max_difference : float
        Largest difference of a probability; NaN if nothing came back.
    n_rows, n_total : int
        Rows it was run on, and rows there are.
    ok : bool
        Whether the difference is within the tolerance and nothing else failed. A file
        that is not ok must not be offered for download.
    n_label_changes : int
        Rows whose most probable class differs.
    seconds : float
    interpreter : str
        What ran the file.
    problem : str
        Why it failed; empty if it did not. May quote the user's data.
    tolerance : float
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

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        rows = f"{self.n_rows:,} rows"
        if self.n_rows < self.n_total:
            rows = f"{self.n_rows:,} evenly spaced rows of {self.n_total:,}"
        if not self.ok:
            return f"The exported file failed on {rows}: {self.problem}"
        return (
            f"Run on {rows} in a clean interpreter ({self.interpreter}): the largest "
            f"difference is {self.max_difference:.1e}, {self.n_label_changes:,} "
            "predictions differ."
        )


@dataclass(frozen=True, slots=True)
class Artefact:
    """An exported file with the proof that it works; offer it only if that is ok.

    Parameters
    ----------
    kind : {"json", "python"}
    file_name : str
        Suggested name, made of the method's id only.
    text : str
        Contents, to be written as UTF-8.
    verification : Verification
    """

    kind: Kind
    file_name: str
    text: str
    verification: Verification


def export(
    analysis: Analysis, method: str, kind: Kind, *, timeout: float = 60.0
) -> Artefact:
    """Write a calibrator, and run what was written on the rows of the file.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator, or "uncalibrated".
    kind : {"json", "python"}
    timeout : float, default=60.0
        Seconds that the clean interpreter may take.
    """
    metadata = export_metadata(analysis, method)
    calibrator = exported_calibrator(analysis, method)
    text = (to_json if kind == "json" else to_python)(calibrator, metadata)
    logits = analysis.study.evaluation.logits
    assert logits is not None  # noqa: S101 - export_metadata has looked
    found = verify(
        kind, text, calibrator, logits, input_kind=metadata["input"], timeout=timeout
    )
    suffix = Path(_FILES[kind]).suffix
    return Artefact(kind, f"{calibrator.method_id}_calibrator{suffix}", text, found)


def verify(
    artefact_kind: Kind,
    text: str,
    calibrator: Calibrator,
    logits: FloatArray,
    *,
    input_kind: str = "logits",
    timeout: float = 60.0,
) -> Verification:
    """Run an exported file in a clean interpreter and compare with the calibrator.

    A Python module runs as the program it is. A JSON file is read twice: by a NumPy
    program that shares no code with `from_json`, and by `from_json` itself.

    Parameters
    ----------
    artefact_kind : {"json", "python"}
    text : str
        From `to_json` or `to_python`. A Python module is executed: never pass one that
        somebody uploaded.
    calibrator : Calibrator
        What the file must agree with, in float64.
    logits : ndarray of shape (n, k)
        The user's rows; of more than `MAX_CELLS` scores, evenly spaced rows.
    input_kind : {"logits", "probabilities"}, default="logits"
        What the file says it expects.
    timeout : float, default=60.0
        Seconds that the interpreter may take.

    Returns
    -------
    Verification
        With ``ok=False`` and the problem if anything differs or fails.
    """
    start = time.perf_counter()
    n_total, k = logits.shape
    n = min(n_total, max(1, MAX_CELLS // k))
    rows = np.linspace(0, n_total - 1, n).round().astype(np.int64)
    scores = as_given(logits if n == n_total else logits[rows], input_kind)
    expected = predict_given(calibrator, scores, input_kind)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        name = _FILES[artefact_kind]
        (Path(folder) / name).write_text(text, encoding="utf-8", newline="\n")
        program = name
        if artefact_kind == "json":
            program = "reader.py"
            reader = json_reader(calibrator, input_kind, name)
            (Path(folder) / program).write_text(reader, encoding="utf-8")
        found, problem = _run(Path(folder), program, scores, timeout)
        written = (Path(folder) / name).read_text(encoding="utf-8")
    difference, n_changes = _compare(found, expected)
    if artefact_kind == "json":
        again, more = _read_back(written, scores, input_kind)
        problem = problem or more
        difference = float(np.maximum(difference, _compare(again, expected)[0]))
    if not problem and not difference <= TOLERANCE:
        problem = f"probabilities differ by up to {difference:.1e}"
    return Verification(
        max_difference=difference,
        n_rows=n,
        n_total=n_total,
        ok=not problem,
        n_label_changes=n_changes,
        seconds=time.perf_counter() - start,
        interpreter=f"Python {platform.python_version()}, NumPy {np.__version__}",
        problem=problem,
    )


def _run(
    folder: Path, program: str, scores: FloatArray, timeout: float
) -> tuple[FloatArray | None, str]:
    """Run a program on an array: isolated, in its own folder, without our settings."""
    np.save(folder / "in.npy", scores, allow_pickle=False)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    command = [sys.executable, "-I", "-B", program, "in.npy", "out.npy"]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own text
            command,
            cwd=folder,
            env={**kept, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"it took longer than {timeout:g} seconds"
    except OSError as error:
        return None, f"no interpreter could be started ({error.strerror})"
    problem = ""
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        problem = f"it ended with: {said.splitlines()[-1] if said else 'no message'}"
    try:
        return np.load(folder / "out.npy", allow_pickle=False), problem
    except (OSError, ValueError, EOFError):
        return None, problem or "it wrote no array"


def _read_back(
    text: str, scores: FloatArray, input_kind: str
) -> tuple[FloatArray | None, str]:
    try:
        calibrator, _ = from_json(text)
    except DataError as error:
        return None, error.what
    return predict_given(calibrator, scores, input_kind), ""


def _compare(found: FloatArray | None, expected: FloatArray) -> tuple[float, int]:
    """Return the largest difference and the number of rows with another top class."""
    if found is None or found.shape != expected.shape or found.dtype.kind != "f":
        return float("nan"), 0
    n_changes = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    return float(np.abs(found - expected).max(initial=0.0)), n_changes
