"""Doubts: what the numbers of a file suggest went wrong before it was uploaded.

Every doubt is a `Note` that says what, with which figures, and what to do. Each asks
for more evidence than chance gives: a warning that is often wrong is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray
from scipy import special

from core.messages import Note
from core.predictions import Predictions
from core.row_statistics import RowStatistics
from core.splitting import Split
from core.uncertainty import Estimate, wilson_interval
from core.verdict import Verdict

__all__ = ["doubts"]

IndexArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

FEW = 20  # rows below which scores are not called degenerate or squeezed
SOME = 50  # rows below which accuracy is not called suspicious
_SURE = 0.999  # level of intervals that raise a doubt
_GOOD, _LIKELY = 0.98, 0.95  # accuracy of a good model, level at which it is passed
_SELDOM = 1e-3  # chance of so few errors, were the scores calibrated
_RARE = 1e-4  # chance at which identical labels are no coincidence
_SATURATED = 0.999  # confidence above which scores may coincide
_OTHERS = 1 / 3  # share of other labels that makes a single prediction suspicious
_ROUNDING = 1e-5  # error of a float32 logarithm, as a score
_MOST_NAMED = 4
_MOST_COMPARED, _MOST_EXAMPLES = 5000, 20  # rows read to see how fine scores are
_SCARCE = 0.01  # chance twins per row below which scores are fine
_STATISTICS = ("confidence", "margin", "max_logit", "logsumexp", "entropy")


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What doubts rest on; the fields are the parameters of `doubts`."""

    own: Predictions
    rows: RowStatistics
    used: IndexArray
    split: Split | None
    n_effective: float
    verdict: Verdict | None
    estimates: Mapping[str, Estimate]

    @property
    def accuracy(self) -> float:
        """Share of the rows used whose prediction is right; every row counts alike."""
        assert self.rows.correct is not None  # noqa: S101 - there are labelled rows
        return float(self.rows.correct[self.used].mean())

    @property
    def confidence(self) -> float:
        """Mean confidence of the rows used."""
        return float(self.rows.confidence[self.used].mean())

    def file_rows(self, rows: IndexArray) -> str:
        """Return rows in words, as numbered in the file."""
        return " and ".join(f"{row:,}" for row in self.own.file_rows[rows])


def doubts(
    own: Predictions,
    rows: RowStatistics,
    used: IndexArray,
    split: Split | None,
    *,
    size: float | None = None,
    verdict: Verdict | None = None,
    estimates: Mapping[str, Estimate] | None = None,
) -> tuple[Note, ...]:
    """Return what should be asked or said before the numbers are believed.

    Parameters
    ----------
    own : Predictions
    rows : RowStatistics
        Of all rows of the file.
    used : ndarray of int64
        Labelled rows that the numbers come from; at least one.
    split : Split or None
    size : float, optional
        Independent rows that say as much as those used; by default their number.
    verdict : Verdict, optional
    estimates : mapping of str to Estimate, optional
        Metric id -> number of the top label, for what is said of a calibrated model.

    Returns
    -------
    tuple of Note
        Empty for most files. Of several doubts with one cause the plainest is kept.
    """
    n_effective = used.size if size is None else min(size, used.size)
    evidence = _Evidence(own, rows, used, split, n_effective, verdict, estimates or {})
    degenerate = _one_confidence(evidence) or _one_prediction(evidence)
    found = [
        _one_class(evidence),
        degenerate,
        None if degenerate else _labels_against_columns(evidence),
        _softmax_twice(evidence),
        _training_rows(evidence),
        _id_in_two_roles(evidence),
        None if degenerate else _duplicated_rows(evidence),
        None if degenerate else _nothing_to_repair(evidence),
    ]
    return tuple(note for note in found if note is not None)


def _training_rows(evidence: _Evidence) -> Note | None:
    """Ask whether the model was trained on these rows.

    A good model is right on 50 rows by chance: few rows must have fewer errors than
    their scores claim.
    """
    n, accuracy, confidence = (
        evidence.used.size,
        evidence.accuracy,
        evidence.confidence,
    )
    if n < SOME or (accuracy < 0.998 and confidence < 0.9995):
        return None
    if confidence < 0.9995 and wilson_interval(accuracy, n, _LIKELY)[0] < _GOOD:
        claimed = float((1 - evidence.rows.confidence[evidence.used]).sum())
        if special.pdtr(round(n * (1 - accuracy)), claimed) > _SELDOM:
            return None
    text = (
        f"Accuracy is {100 * accuracy:.1f} % and mean confidence "
        f"{100 * confidence:.2f} % on {n:,} rows. Were these rows used to train the "
        "model? Then they say nothing about new ones: give rows it never saw."
    )
    return Note("looks-like-training-rows", "question", text)


def _one_class(evidence: _Evidence) -> Note | None:
    """Say that only one class has labels, unless the reader has said so."""
    own = evidence.own
    if own.labels is None or any(note.code == "one-class" for note in own.notes):
        return None
    seen = np.unique(own.labels[evidence.used])
    if seen.size > 1:
        return None
    text = (
        f"Every label is {own.classes[seen[0]]!r}: nothing can be said about the other "
        "classes."
    )
    return Note("one-class", "warning", text)


def _one_confidence(evidence: _Evidence) -> Note | None:
    """Say that all rows have the same confidence; saturated ones may coincide."""
    confidence = evidence.rows.confidence
    if confidence.size < FEW or confidence[0] >= _SATURATED:
        return None
    if np.ptp(confidence) > 1e-9:
        return None
    text = (
        f"All {confidence.size:,} rows have the same confidence, "
        f"{100 * confidence[0]:.1f} %: it says nothing about single rows. Check the "
        "export of the scores."
    )
    return Note("one-confidence", "warning", text)


def _one_prediction(evidence: _Evidence) -> Note | None:
    """Say that one class is always predicted although others are common.

    A rare class that is never the most probable one is what a good model may say.
    """
    labels, predicted = evidence.own.labels, evidence.rows.prediction
    used, n = evidence.used, evidence.used.size
    if labels is None or predicted is None or n < FEW or evidence.own.n_classes < 2:
        return None
    first = predicted[used[0]]
    n_others = int((labels[used] != first).sum())
    if n_others < _OTHERS * n or (predicted[used] != first).any():
        return None
    text = (
        f"All {n:,} predictions are {evidence.own.classes[first]!r}, but {n_others:,} "
        f"labels ({100 * n_others / n:.0f} %) are not. Check the order of the score "
        "columns and what the scores are."
    )
    return Note("one-prediction", "warning", text)


def _labels_against_columns(evidence: _Evidence) -> Note | None:
    """Say that labels and predictions do not fit, and which permutation would.

    "Claimed skill" is mean confidence minus the accuracy of chance, which is that of
    the same predictions on shuffled labels. A doubt needs an accuracy that is surely
    below chance plus half of it. A permutation of the classes is found on one half of
    the rows and must surely pass that mark on the other half.
    """
    own, used = evidence.own, evidence.used
    labels, predicted = own.labels, evidence.rows.prediction
    if labels is None or predicted is None or own.n_classes < 2 or used.size < SOME:
        return None
    labels, predicted = labels[used], predicted[used]
    k, n, accuracy = own.n_classes, used.size, evidence.accuracy
    shares = [np.bincount(codes, minlength=k) / n for codes in (labels, predicted)]
    if shares[0].max() == 1:
        return None
    chance = float(shares[0] @ shares[1])
    mark = chance + (evidence.confidence - chance) / 2
    low, high = wilson_interval(accuracy, evidence.n_effective, _SURE)
    if high >= mark:
        return None
    facts = (
        f"Accuracy is {100 * accuracy:.1f} % on {n:,} rows, where guessing gives "
        f"{100 * chance:.1f} % and the scores claim {100 * evidence.confidence:.1f} %."
    )
    order = np.random.default_rng(0).permutation(n)
    found, other = order[: n // 2], order[n // 2 :]
    columns = _best_columns(labels[found], predicted[found], k)
    lifted = float((columns[labels[other]] == predicted[other]).mean())
    if wilson_interval(lifted, evidence.n_effective / 2, _SURE)[0] > mark:
        text = (
            f"{facts} With {_moves(own, labels[found], columns)} it would be "
            f"{100 * lifted:.1f} % (found on {found.size:,} of the rows, measured on "
            f"the other {other.size:,}). Are labels and columns in the same order? "
            "Correct the labels or the names of the columns."
        )
        return Note("labels-permuted", "question", text)
    if low > chance:
        return None
    said = "That is chance, and no renaming of the classes brings it near that claim."
    if high < chance:
        said = "That is surely below chance."
        if k == 2:
            swapped = 100 * (1 - accuracy)
            said += (
                f" With the two classes exchanged it would be {swapped:.1f} %: are the "
                "columns in the order of the labels?"
            )
    text = (
        f"{facts} {said} Do labels and scores belong to the same rows, in the same "
        "order?"
    )
    return Note("accuracy-at-chance", "question", text)


def _best_columns(labels: IndexArray, predicted: IndexArray, k: int) -> IndexArray:
    """Return the column for each label that makes most predictions right."""
    table = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    return np.asarray(
        scipy.optimize.linear_sum_assignment(table, maximize=True)[1], dtype=np.int64
    )


def _moves(own: Predictions, labels: IndexArray, columns: IndexArray) -> str:
    """Return a permutation in words, the classes that occur first."""
    counts = np.bincount(labels, minlength=columns.size)
    moved = np.flatnonzero((columns != np.arange(columns.size)) & (counts > 0))
    named = [
        f"{own.classes[i]!r} read as {own.classes[columns[i]]!r}"
        for i in moved[:_MOST_NAMED]
    ]
    rest = moved.size - len(named)
    return ", ".join(named) + (f" and {rest:,} more classes moved" if rest > 0 else "")


def _softmax_twice(evidence: _Evidence) -> Note | None:
    """Ask whether a softmax went over probabilities.

    Such rows can be undone: p = log q - mean(log q) + 1/k lies in [0, 1] and sums to
    1. Modest scores may do so too: the undone ones must reach nearly 1 somewhere and
    have a clearly better Brier score.
    """
    own, used = evidence.own, evidence.used
    if own.input_kind != "probabilities" or own.n_classes < 2 or used.size < FEW:
        return None
    k = own.n_classes
    bound = float(np.e / (np.e + k - 1))
    largest = float(evidence.rows.confidence.max())
    if largest > bound * (1 + _ROUNDING):
        return None
    assert own.logits is not None and own.labels is not None  # noqa: S101, PT018
    logits = own.logits[used].astype(np.float64)
    undone = logits - logits.mean(axis=1, keepdims=True) + 1 / k
    if undone.min() < -_ROUNDING or not 0.9 <= undone.max() <= 1 + _ROUNDING:
        return None
    place = (np.arange(used.size), own.labels[used])
    q = np.exp(logits)
    before = (q**2).sum(axis=1) - 2 * q[place]
    gain = before - (undone**2).sum(axis=1) + 2 * undone[place]
    if gain.mean() <= 4 * gain.std() / np.sqrt(evidence.n_effective):
        return None
    text = (
        f"No probability of {len(own):,} rows is above {100 * largest:.1f} %, and a "
        f"softmax of values from 0 to 1 over {k:,} classes cannot pass "
        f"{100 * bound:.1f} %. Was softmax applied twice? Undoing one lowers the Brier "
        f"score by {gain.mean():.3f}: export the scores before the last softmax."
    )
    return Note("softmax-twice", "question", text)


def _id_in_two_roles(evidence: _Evidence) -> Note | None:
    """Say that an id is tested by a calibrator that has seen it.

    The rows that a file shares with a calibration file are not tested.
    """
    own, split = evidence.own, evidence.split
    ids = own.column("id")
    if split is None or split.kind == "fit-file" or ids is None:
        return None
    if ids.is_unique or own.roles.group == own.roles.id:
        return None
    codes = np.asarray(pd.factorize(ids)[0], dtype=np.int64)
    tested = []
    for item in split.rounds:
        earlier = np.concatenate([item.fit, item.threshold])
        is_known = np.isin(codes[item.test], codes[earlier]) & (codes[item.test] >= 0)
        tested.append(item.test[is_known])
    shared = np.sort(np.concatenate(tested))
    if not shared.size:
        return None
    in_use = np.union1d(evidence.used, shared)
    pair = in_use[codes[in_use] == codes[shared[0]]][:2]
    text = (
        f"{shared.size:,} of {split.test.size:,} test rows share their {ids.name} with "
        f"a row that calibrators learn from; the first is "
        f"{str(ids.iloc[shared[0]])[:60]!r} (rows {evidence.file_rows(pair)}). Their "
        f"numbers may look too good: keep each {ids.name} in one role, or make it the "
        "group."
    )
    return Note("id-in-two-roles", "warning", text)


def _duplicated_rows(evidence: _Evidence) -> Note | None:
    """Ask about rows whose scores and label are those of another row.

    Identical scores alone are no evidence: trees, rounding and saturation make them.
    Saturated rows are not looked at, and copies are told from coincidence by one of

    - every row occurs equally often;
    - labels of rows with identical scores never, or hardly, differ, where the scores'
      own error rate says that many should;
    - there are few of them, in scores too fine to coincide.

    Copies that share a group are known to the split and to the intervals.
    """
    own, used = evidence.own, evidence.used
    unit, outcome = _identical(evidence), _outcome(evidence)
    codes = np.unique(unit * (outcome.max() + 1) + outcome, return_inverse=True)[1]
    counts = np.bincount(codes)
    is_open = evidence.rows.confidence[used] < _SATURATED
    is_copy = (counts[codes] > 1) & is_open
    if not is_copy.any():
        return None
    is_repeated = counts.size >= FEW and counts.min() > 1 and np.ptp(counts) == 0
    if not is_repeated and not _is_no_coincidence(evidence, unit, outcome, is_open):
        return None
    groups = own.group_codes()
    copies = np.flatnonzero(counts[codes] > 1 if is_repeated else is_copy)
    copies = copies[np.argsort(codes[copies], kind="stable")]
    is_same = np.diff(codes[copies]) == 0
    left, right = copies[:-1][is_same], copies[1:][is_same]
    if groups is not None and (groups[used[left]] == groups[used[right]]).all():
        return None
    pair = used[[left[left.argmin()], right[left.argmin()]]]
    text = (
        f"{copies.size:,} of {used.size:,} rows have the same scores and label as "
        f"another row (the first: rows {evidence.file_rows(pair)}). Are they copies? "
        "They make intervals too narrow and may be fitted and tested at once: keep one "
        "of each, or give copies one group."
    )
    return Note("duplicated-rows", "question", text)


def _outcome(evidence: _Evidence) -> IndexArray:
    own = evidence.own
    known = evidence.rows.correct if own.labels is None else own.labels
    assert known is not None  # noqa: S101 - there are labelled rows
    return np.asarray(known[evidence.used], dtype=np.int64)


def _identical(evidence: _Evidence) -> IndexArray:
    """Return a number per row used that only rows with identical scores share.

    Rows that differ in what one trip over the logits left behind are not read again.
    """
    used, logits = evidence.used, evidence.own.logits
    known = {
        name: values[used]
        for name in _STATISTICS
        if (values := getattr(evidence.rows, name)) is not None
    }
    is_alike = pd.DataFrame(known).duplicated(keep=False).to_numpy(bool)
    unit = np.arange(used.size)
    alike = np.flatnonzero(is_alike)
    if logits is None:
        keys = known["confidence"][alike]
    else:
        # Adding 0 makes -0 and 0 the same bytes.
        keys = np.array([hash((logits[row] + 0).tobytes()) for row in used[alike]])
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    unit[alike] = alike[first[place]]
    return unit


def _is_no_coincidence(
    evidence: _Evidence, unit: IndexArray, outcome: IndexArray, is_open: BoolArray
) -> bool:
    """Return whether identical scores must come from copies."""
    n, order = unit.size, np.flatnonzero(is_open)
    order = order[np.argsort(unit[order], kind="stable")]
    is_pair = np.diff(unit[order]) == 0
    left, right = order[:-1][is_pair], order[1:][is_pair]
    n_different = int((outcome[left] != outcome[right]).sum())
    if (
        special.pdtr(n_different, _expected_different(evidence, left, outcome[left]))
        < _RARE
    ):
        return True
    firsts, counts = np.unique(unit[left], return_counts=True)
    return (
        n_different == 0
        and left.size >= max(2, n / 1000)
        and float(counts.mean()) <= 2
        and _is_fine(evidence, firsts, left.size)
    )


def _expected_different(
    evidence: _Evidence, rows: IndexArray, outcome: IndexArray
) -> float:
    """Return how many twins of these rows must have another label by chance.

    What the scores say of it is scaled down where they claim more errors than there
    are, is at most what the shares of the labels allow, and is halved, since scores
    are seldom right to the point.
    """
    assert evidence.rows.correct is not None  # noqa: S101 - there are labelled rows
    rows = evidence.used[rows]
    confidence, squares = evidence.rows.confidence[rows], evidence.rows.squared_sum
    if squares is None:
        chances = 2 * confidence * (1 - confidence)
    else:
        chances = 1 - squares[rows]
    errors, claimed = (~evidence.rows.correct[rows]).sum(), (1 - confidence).sum()
    shares = np.bincount(outcome) / rows.size
    most = rows.size * (1 - shares @ shares)
    return float(min(chances.sum() * min(1.0, errors / claimed), most)) / 2


def _is_fine(evidence: _Evidence, rows: IndexArray, n_pairs: int) -> bool:
    """Return whether scores are too fine for rows to coincide.

    With one score: more digits than six decimals or a half-precision float hold, and
    more pairs than a float32 gives by chance. Else: hardly any other row shares a value
    in two columns, besides the one that follows from the sum of the row.
    """
    own, used, n = evidence.own, evidence.used, evidence.used.size
    if own.logits is None or own.n_classes < 3:
        values = evidence.rows.confidence[used[rows]]
        if own.logits is not None and own.input_kind == "logits":
            chosen = own.logits[used[rows]].astype(np.float64)
            values = chosen[:, -1] - chosen[:, 0]
        with np.errstate(over="ignore"):
            half = values.astype(np.float16).astype(np.float64)
        is_coarse = np.isclose(values, half, rtol=1e-6, atol=0)
        is_coarse |= np.abs(values - values.round(6)) < 1e-7
        return bool(np.median(is_coarse) == 0) and n_pairs > n**2 / 2**20
    others = own.logits[used[:: max(1, n // _MOST_COMPARED)]]
    chances = []
    for row in rows[:_MOST_EXAMPLES]:
        is_same = others == own.logits[used[row]]
        shared = is_same[~is_same.all(axis=1)].sum(axis=0)
        second, third = np.sort(np.maximum(shared, 1))[1:3]
        chances.append(second * third / len(others))
    return bool(np.median(chances) <= _SCARCE)


def _nothing_to_repair(evidence: _Evidence) -> Note | None:
    """Say that no miscalibration was found, and that this is a result."""
    gap, ece = evidence.estimates.get("gap"), evidence.estimates.get("ece")
    said = evidence.verdict
    if said is None or said.kind != "calibrated" or gap is None or ece is None:
        return None
    if None in (gap.low, gap.high, ece.null_low, ece.null_high):
        return None
    points = [f"{100 * x:+.1f}" for x in (gap.value, gap.low, gap.high)]  # type: ignore[operator]
    shares = [f"{100 * x:.1f}" for x in (ece.value, ece.null_low, ece.null_high)]  # type: ignore[operator]
    text = (
        f"Nothing to repair was found on {gap.n:,} rows: the gap is {points[0]} points "
        f"({points[1]} to {points[2]}) and the ECE {shares[0]} %, where a calibrated "
        f"model shows {shares[1]} to {shares[2]} %. Keep the scores as they are unless "
        "a calibrator lowers the log loss of rows it never saw."
    )
    return Note("nothing-to-repair", "info", text)
