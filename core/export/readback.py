"""Does a written CSV say what was shown? Read it back and compare."""

from __future__ import annotations

import io
import platform
import time

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from core.analysis import Analysis
from core.export.tables import annotate
from core.export.verification import MAX_CELLS, TOLERANCE, Verification
from core.export.writing import write_csv

__all__ = ["verify_rows"]


def verify_rows(analysis: Analysis, method: str) -> Verification:
    """Write the annotated rows as CSV, read them back, compare every probability.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator, or "uncalibrated".

    Returns
    -------
    Verification
        Of more than `MAX_CELLS` probabilities, evenly spaced rows are compared.
    """
    start = time.perf_counter()
    frame = annotate(analysis, method)
    first = analysis.study.evaluation.classes[0]
    place = list(frame.columns).index(f"prob_{first}")
    k = len(analysis.study.evaluation.classes)
    n = min(len(frame), max(1, MAX_CELLS // k))
    if n < len(frame):
        frame = frame.iloc[np.linspace(0, len(frame) - 1, n).round().astype(np.int64)]
    shown = frame.iloc[:, place : place + k].to_numpy()
    known = ~np.isnan(shown).all(axis=1)
    problem, difference, n_changes = "", float("nan"), 0
    try:
        found = _read(write_csv(frame), place, k).astype(shown.dtype)
        difference = float(np.abs(found - shown)[known].max(initial=0.0))
        n_changes = int(
            (found[known].argmax(axis=1) != shown[known].argmax(axis=1)).sum()
        )
        if found.shape != shown.shape or (np.isnan(found).all(axis=1) == known).any():
            problem = "rows are missing"
    except (pa.ArrowException, ValueError) as error:
        problem = f"it could not be read back: {error}"
    if not problem and not difference <= TOLERANCE:
        problem = f"probabilities differ by up to {difference:.1e}"
    return Verification(
        max_difference=difference,
        n_rows=int(known.sum()),
        n_total=len(analysis.study.evaluation),
        ok=not problem,
        n_label_changes=n_changes,
        seconds=time.perf_counter() - start,
        interpreter=f"Python {platform.python_version()}, Arrow {pa.__version__}",
        problem=problem,
    )


def _read(text: bytes, place: int, k: int) -> np.ndarray:
    """Return the probability columns of a CSV, by their place."""
    options = arrow_csv.ParseOptions(newlines_in_values=True)
    table = arrow_csv.read_csv(io.BytesIO(text), parse_options=options)
    columns = [
        table.column(place + number).cast(pa.float64()).to_numpy()
        for number in range(k)
    ]
    return np.column_stack(columns)
