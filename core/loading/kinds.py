"""What scores are: logits or probabilities, by their names and by their rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.loading.names import parse_score_name, plain
from core.loading.values import SLACK, Scores, blocks
from core.messages import Note

__all__ = ["Kind", "judge_kind", "tidy"]

_ROUNDING = 1e-3
_ENOUGH = 20  # rows needed to believe the values against the header
_NEARLY_ALL = 0.99
_SOME = 0.1  # share of rows no logits reach by chance: the other rows are faults
_MOST_CELLS = 0.75  # the same for one score, where no sum is evidence


@dataclass(frozen=True, slots=True)
class Kind:
    """What scores are taken for.

    Parameters
    ----------
    name : {"logits", "probabilities"}
    evidence : str
        Why, as a phrase.
    """

    name: str
    evidence: str


@dataclass(slots=True)
class _Range:
    """What the values look like, from one trip over them.

    A row is proper if its cells lie in 0..1 (within `SLACK`) and sum to 1.
    """

    low: float = np.inf
    high: float = -np.inf
    n_inside: int = 0
    n_given: int = 0
    n_whole_rows: int = 0
    n_sum_to_one: int = 0
    n_proper: int = 0
    worst_gap: float = 0.0
    is_fraction: bool = False


def _measure(scores: Scores) -> _Range:
    found = _Range()
    for _, block in blocks(scores.matrix):
        given = block[~np.isnan(block)]
        if not given.size:
            continue
        found.low = min(found.low, float(given.min()))
        found.high = max(found.high, float(given.max()))
        found.n_given += given.size
        found.n_inside += int(((given >= -SLACK) & (given <= 1 + SLACK)).sum())
        found.is_fraction |= bool(((given > 0) & (given < 1)).any())
        with np.errstate(invalid="ignore"):
            sums = block.sum(axis=1, dtype=np.float64)
            gaps = np.abs(sums - 1)
            close = gaps <= _ROUNDING
            low, high = block[close].min(axis=1), block[close].max(axis=1)
        found.n_whole_rows += int((~np.isnan(sums)).sum())
        found.n_sum_to_one += int(close.sum())
        found.n_proper += int(((low >= -SLACK) & (high <= 1 + SLACK)).sum())
        found.worst_gap = max(found.worst_gap, float(gaps[close].max(initial=0.0)))
    return found


def judge_kind(scores: Scores, expected: str = "") -> Kind:
    """Return what the scores are, and the evidence for it.

    What is expected decides only where names and values leave it open.

    Rows decide, not single cells: one cell outside 0..1 among rows that sum to 1 is
    a fault in that row, to be named, and no evidence of logits.
    """
    said, header = _said_by_names(scores)
    found = _measure(scores)
    if scores.matrix.shape[1] == 1:
        return _of_one_score(found, said, header)
    is_inside = found.n_inside == found.n_given > 0
    sums = found.n_sum_to_one / max(1, found.n_whole_rows)
    if is_inside and sums >= _NEARLY_ALL:
        believed = found.n_whole_rows >= _ENOUGH and found.is_fraction and sums == 1
        if said != "logits" or believed:
            gap = max(found.worst_gap, 1e-16)
            text = f"rows sum to 1 within {gap:.0e} and all values lie in 0..1"
            if sums < 1:
                text = f"{sums:.1%} of the rows sum to 1 and all values lie in 0..1"
            if said == "logits":
                text += f", although {header}"
            return Kind("probabilities", text.replace("e-0", "e-"))
    if said:
        return Kind(said, header)
    proper = found.n_proper / max(1, found.n_whole_rows)
    if found.is_fraction and proper >= _SOME:
        text = f"{proper:.1%} of the rows lie in 0..1 and sum to 1"
        return Kind("probabilities", text)
    if is_inside and found.is_fraction:
        text = "all values lie in 0..1, but rows do not sum to 1"
        if expected:
            text += f", and {expected} are expected"
        return Kind(expected or "probabilities", text)
    return Kind("logits", _outside(found))


def _of_one_score(found: _Range, said: str, header: str) -> Kind:
    inside = found.n_inside / max(1, found.n_given)
    if not found.n_given:
        return Kind(said or "logits", header or "there are no values to judge by")
    if said:
        return Kind(said, header)
    if inside == 1:
        return Kind("probabilities", "all values lie in 0..1")
    if inside >= _MOST_CELLS and found.is_fraction:
        return Kind("probabilities", f"{inside:.1%} of the values lie in 0..1")
    return Kind("logits", _outside(found))


def _outside(found: _Range) -> str:
    if not found.n_given:
        return "there are no values to judge by"
    text = f"values run from {found.low:.3g} to {found.high:.3g}"
    is_outside = found.n_inside < found.n_given
    return text + (", outside 0..1" if is_outside else ", and rows do not sum to 1")


def _said_by_names(scores: Scores) -> tuple[str, str]:
    """Return what the header says the scores are, and the sentence for it."""
    if scores.array:
        stem = plain(scores.array)
        parsed = parse_score_name(stem)
        kind = parsed.kind if parsed else ""
        return kind, f"the array is called {scores.array}" if kind else ""
    parsed_names = [parse_score_name(name) for name in scores.names]
    kinds = {item.kind if item else "" for item in parsed_names}
    kind = kinds.pop() if len(kinds) == 1 else ""
    if not kind or parsed_names[0] is None:
        return "", ""
    if len(scores.names) == 1:
        return kind, f"the column is called {scores.names[0]}"
    return kind, f"the columns are called {parsed_names[0].stem}_*"


def tidy(scores: Scores, kind: str) -> list[Note]:
    """Put what rounding left just outside 0..1 back, and say so.

    Parameters
    ----------
    scores : Scores
        Its matrix is changed, or replaced where it is read-only.
    kind : {"logits", "probabilities", "confidence"}

    Returns
    -------
    list of Note
    """
    if kind == "logits":
        return []
    n_cells, worst, place = 0, 0.0, (0, 0)
    for start, block in blocks(scores.matrix):
        beyond = np.maximum(-block, block - 1)
        is_near = (beyond > 0) & (beyond <= SLACK)
        if not is_near.any():
            continue
        if not n_cells:
            row, column = np.argwhere(is_near)[0].tolist()
            place = (start + row, column)
        n_cells += int(is_near.sum())
        worst = max(worst, float(beyond[is_near].max()))
        if not scores.matrix.flags.writeable:
            scores.matrix = scores.matrix.copy()
        own = scores.matrix[start : start + len(block)]
        own[is_near] = np.clip(own[is_near], 0, 1)
    if not n_cells:
        return []
    count = "1 cell lies" if n_cells == 1 else f"{n_cells:,} cells lie"
    text = (
        f"{count} outside 0..1 by at most {worst:.1g}, as rounding does, and counts as "
        f"0 or 1; the first: column {scores.column(place[1])}, row {place[0] + 1}."
    )
    if n_cells > 1:
        text = text.replace("and counts", "and count")
    return [Note("rounded-outside", "info", text)]
