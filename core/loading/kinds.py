"""What scores are: logits or probabilities, by their names and by their rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from core.loading.names import (
    LOG_PROBABILITIES,
    NEGATIVE_LOGS,
    parse_score_name,
    plain,
)
from core.loading.values import SLACK, FloatArray, Scores, blocks
from core.messages import Answer, DataError, Note

__all__ = ["Kind", "judge_kind", "tidy"]

_ROUNDING = 1e-3
_ENOUGH = 20  # rows needed to believe the values against the header
_NEARLY_ALL = 0.99
_SOME = 0.1  # share of rows no logits reach by chance: the other rows are faults
_MOST_CELLS = 0.75  # the same for one score, where no sum is evidence
_WHOLES = (100, 255)  # percent, and bytes
_SURELY_PERCENT = 20  # a highest value beyond which no scale of marks (1 to 10) goes
_MOST_ROUNDED = 0.05  # how far rounding to whole percents may bring a sum


@dataclass(frozen=True, slots=True)
class Kind:
    """What scores are taken for.

    Parameters
    ----------
    name : {"logits", "probabilities", "confidence"}
    evidence : str
        Why, as a phrase.
    whole : int, default=1
        What stands for a probability of 1.
    is_log : bool, default=False
        Whether they are the logarithms of probabilities of one class.
    is_negative : bool, default=False
        Whether they fall where the class is likelier.
    rounding : float, default=0
        How far from 1 rounding to whole shares may bring a row's sum.
    """

    name: str
    evidence: str
    whole: int = 1
    is_log: bool = False
    is_negative: bool = False
    rounding: float = 0.0


@dataclass(slots=True)
class _Range:
    """What the values look like, from one trip over them.

    A row is proper if its cells lie in 0..1 (within `SLACK`) and sum to 1; it is one
    of shares of 100 (255) if no cell is negative and they sum to about that.
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
    is_whole: bool = True
    n_shares: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_WHOLES, 0))

    low_sum: float = np.inf
    high_sum: float = -np.inf
    low_peak: float = np.inf
    high_peak: float = -np.inf

    @property
    def whole(self) -> int:
        """What most rows sum to, 100 or 255, or all rows do; else 1."""
        same = round(self.high_sum) if np.isfinite(self.high_sum) else 1
        is_same = self.low >= 0 and self.high_sum - self.low_sum <= 1e-4 * same
        # Ranks sum to the same number too, but their highest never changes.
        is_varied = self.high_peak > self.low_peak and self.n_whole_rows >= _ENOUGH
        if is_same and is_varied and same > 1 and abs(self.high_sum - same) < 1e-3:
            return same
        most = max(_WHOLES, key=lambda whole: self.n_shares[whole])
        enough = self.n_shares[most] > self.n_whole_rows / 2
        return most if enough and (most == 100 or self.is_whole) else 1


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
        found.is_whole &= bool((np.floor(given) == given).all())
        _count_shares(found, block, sums)
        known = ~np.isnan(sums)
        peaks = block[known].max(axis=1)
        found.low_sum = min(found.low_sum, float(sums[known].min(initial=np.inf)))
        found.high_sum = max(found.high_sum, float(sums[known].max(initial=-np.inf)))
        found.low_peak = min(found.low_peak, float(peaks.min(initial=np.inf)))
        found.high_peak = max(found.high_peak, float(peaks.max(initial=-np.inf)))
    return found


def _count_shares(found: _Range, block: FloatArray, sums: FloatArray) -> None:
    """Count rows that sum to 100 or 255, as far as rounding to whole numbers goes."""
    for whole in _WHOLES:
        tolerance = _rounding(block.shape[1], whole) if found.is_whole else 0.01
        close = np.abs(sums / whole - 1) <= tolerance
        found.n_shares[whole] += int((block[close].min(axis=1) >= -SLACK).sum())


def _rounding(n_classes: int, whole: int) -> float:
    """Return how far from 1 rounding to whole shares may bring a sum."""
    return min(_MOST_ROUNDED, max(0.01, n_classes / 2 / whole)) + 1e-9


def judge_kind(
    scores: Scores, where: str = "", chosen: str = "auto", expected: str = ""
) -> Kind:
    """Return what the scores are, and the evidence for it.

    Rows decide, not single cells: one cell outside 0..1 among rows that sum to 1 is
    a fault in that row, to be named, and no evidence of logits.

    Parameters
    ----------
    scores : Scores
    where : str, default=""
        File, for an error.
    chosen : {"auto", "logits", "probabilities"}, default="auto"
        The user's word; probabilities may still be percentages or logarithms.
    expected : {"", "logits", "probabilities"}, default=""
        What decides where names and values leave it open.

    Raises
    ------
    DataError
        With answers, where one score may be a percentage or a logit.
    """
    said, header = _said_by_names(scores)
    if scores.percent:
        said, header = "probabilities", "cells are written as percentages"
    is_negative = _is_negative(scores)
    if is_negative and scores.matrix.shape[1] > 1:
        return Kind("logits", f"{header}, and are negated", is_negative=True)
    if chosen == "logits":
        return Kind("logits", "chosen")
    if chosen == "probabilities":
        said, header = chosen, "chosen"
    found = _measure(scores)
    if scores.matrix.shape[1] == 1:
        return _of_one_score(scores, found, (said, header), where, expected)
    is_all = found.n_shares.get(found.whole, found.n_whole_rows) == found.n_whole_rows
    is_said = said == "logits" and not (is_all and found.n_whole_rows >= _ENOUGH)
    if found.whole > 1 and not is_said:
        text = f"rows sum to {found.whole} and are divided by it"
        rounding = _rounding(scores.matrix.shape[1], found.whole)
        if not found.is_whole or found.whole not in _WHOLES:
            rounding = 0.0
        return Kind("probabilities", text, found.whole, rounding=rounding)
    if chosen == "probabilities":
        return Kind(said, header)
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


def _of_one_score(
    scores: Scores,
    found: _Range,
    named: tuple[str, str],
    where: str,
    expected: str,
) -> Kind:
    said, header = named
    inside = found.n_inside / max(1, found.n_given)
    if not found.n_given:
        return Kind(said or "logits", header or "there are no values to judge by")
    if _is_log(scores):
        return _of_one_logarithm(scores, found, where)
    whole = _whole_of_one(found, inside)
    if whole and said != "logits":
        if whole > 1 and header == "chosen":
            return Kind(said, f"chosen, and divided by {whole}", whole)
        if whole > 1 and said and found.high > _SURELY_PERCENT:
            return Kind(said, f"{header} and values go to {found.high:.3g}", whole)
        if header != "chosen" and (said or not expected):
            raise _percentages_or_logits(scores, found, whole, where)
    if said:
        return Kind(said, header)
    if inside == 1:
        return Kind("probabilities", "all values lie in 0..1")
    if found.high <= 0 and found.n_given >= _ENOUGH and not expected:
        raise DataError(
            f"Scores run from {found.low:.3g} to {found.high:.3g}, none above 0: they "
            "may be logarithms of probabilities.",
            f"{where}, column {scores.column(0)}",
            "Call the column log_prob if they are natural logarithms, or say that they "
            "are logits.",
            answers=(Answer("These are logits", "input_kind", "logits"),),
        )
    if inside >= _MOST_CELLS and found.is_fraction:
        return Kind("probabilities", f"{inside:.1%} of the values lie in 0..1")
    return Kind("logits", _outside(found))


def _whole_of_one(found: _Range, inside: float) -> int:
    """Return what may stand for 1 where no value is negative; 0 if it is just 1.

    1 means that the values are too high for percentages and bytes.
    """
    is_fault = inside >= _MOST_CELLS and found.is_fraction
    if found.low < 0 or inside == 1 or is_fault:
        return 0
    if found.high <= 100:
        return 100
    return 255 if found.high <= 255 and found.is_whole else 1


def _percentages_or_logits(
    scores: Scores, found: _Range, whole: int, where: str
) -> DataError:
    shares = {100: "percentages", 255: "shares of 255"}.get(whole, "")
    row = int(np.nanargmax(scores.matrix[:, 0])) + 1
    divided = (Answer(f"Divide by {whole}", "input_kind", "probabilities"),)
    what = f"are they {shares} or logits?" if shares else "no logit is that high."
    fix = f", or divide {shares} by {whole} in the file." if shares else " in the file."
    return DataError(
        f"Scores run from {found.low:.3g} to {found.high:.3g}, none below 0: {what}",
        f"{where}, column {scores.column(0)}, row {row}",
        "Say which they are" + fix
        if shares
        else "Write probabilities (0 to 1), or say that they are logits.",
        answers=(
            *(divided if shares else ()),
            Answer("These are logits", "input_kind", "logits"),
        ),
    )


def _of_one_logarithm(scores: Scores, found: _Range, where: str) -> Kind:
    """Return that one score is the logarithm of the probability of one class."""
    is_negative = _is_negative(scores)
    beyond = -found.low if is_negative else found.high
    name = scores.column(0)
    if beyond <= SLACK:
        text = f"{name} holds logarithms of probabilities by its name"
        return Kind("probabilities", text, is_log=True, is_negative=is_negative)
    side = "below" if is_negative else "above"
    raise DataError(
        f"By its name {name} holds logarithms of probabilities, but some values are "
        f"{side} 0.",
        f"{where}, column {name}",
        "Correct the file, or say that they are logits.",
        answers=(Answer("These are logits", "input_kind", "logits"),),
    )


def _stem(scores: Scores) -> str:
    parsed = parse_score_name(plain(scores.array) if scores.array else scores.names[0])
    return parsed.stem if parsed else ""


def _is_log(scores: Scores) -> bool:
    return _stem(scores) in LOG_PROBABILITIES or _is_negative(scores)


def _is_negative(scores: Scores) -> bool:
    """Whether every score is named as a negative logarithm."""
    names = (plain(scores.array),) if scores.array else scores.names
    parsed = [parse_score_name(name) for name in names]
    return all(item is not None and item.stem in NEGATIVE_LOGS for item in parsed)


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


def tidy(scores: Scores, kind: Kind) -> list[Note]:
    """Write scores as logits or probabilities, and say what was done to them.

    Percentages are divided by 100, logarithms of one class are taken back, negative
    ones are negated, and what rounding left just outside 0..1 is put on its edge.

    Parameters
    ----------
    scores : Scores
        Its matrix is changed, or replaced where it is read-only.
    kind : Kind

    Returns
    -------
    list of Note
    """
    is_changed = kind.whole > 1 or kind.is_log or kind.is_negative
    if is_changed and not scores.matrix.flags.writeable:
        scores.matrix = scores.matrix.copy()
    name = scores.column(0)
    notes = []
    if kind.whole > 1:
        scores.matrix /= kind.whole
        scores.whole = kind.whole
        shares = "percentages" if kind.whole == 100 else f"shares of {kind.whole}"
        text = (
            f"The scores were read as {shares} and divided by {kind.whole}. If they "
            "are logits, choose --input-kind logits."
        )
        n_scaled = _rescale(scores.matrix, kind.rounding)
        if n_scaled:
            text += (
                f" {n_scaled:,} rows of whole shares did not sum to {kind.whole} and "
                "were rescaled."
            )
        notes.append(Note("divided-scores", "info", text))
    if kind.is_negative:
        np.negative(scores.matrix, out=scores.matrix)
        text = (
            f"{name} is named as a negative logarithm, so that a small value is a "
            "likely class: the sign was changed. If not so, rename the column."
        )
        notes.append(Note("negated-scores", "info", text))
    if kind.is_log:
        np.exp(scores.matrix, out=scores.matrix)
        text = (
            f"{name} holds logarithms of the probability of one class by its name; "
            "the exponential was taken. If they are logits, choose --input-kind logits."
        )
        notes.append(Note("log-probability", "info", text))
    if scores.percent:
        text = f"Cells such as {scores.percent} were read as percentages."
        notes.append(Note("percent-signs", "info", text))
    return notes if kind.name == "logits" else notes + _clipped(scores)


def _rescale(matrix: FloatArray, rounding: float) -> int:
    """Divide rows that sum to 1 but for rounding by their sum; return how many."""
    n_scaled = 0
    for start, block in blocks(matrix):
        sums = block.sum(axis=1, dtype=np.float64)
        gaps = np.abs(sums - 1)
        is_near = (gaps > 1e-6) & (gaps <= rounding) & (block.min(axis=1) >= 0)
        n_scaled += int(is_near.sum())
        own = matrix[start : start + len(block)]
        own[is_near] /= sums[is_near, None]
    return n_scaled


def _clipped(scores: Scores) -> list[Note]:
    """Put what lies within `SLACK` outside 0..1 on its edge, and say so."""
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
