"""Split: which rows fit, which set thresholds and which are reported on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.folds import fold_numbers
from core.messages import FitError, Note
from core.predictions import Predictions, Study, as_keys
from core.settings import Settings

__all__ = [
    "ROLE_NAMES",
    "Round",
    "Split",
    "make_split",
    "refit_rounds",
    "usable_rows",
]

IndexArray = NDArray[np.int64]

ROLE_NAMES = {
    "fit": ("fit", "calibration", "calib", "cal", "validation", "valid", "val", "dev"),
    "threshold": ("threshold", "thresholds", "tune", "tuning"),
    "test": ("test", "testing", "eval", "evaluation", "holdout"),
    "train": ("train", "training"),
}
_PIECES = 20  # a holdout is dealt in pieces of 5 %, whole groups at a time
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One fit and what it is used on: row indices, disjoint by row and by group.

    Parameters
    ----------
    fit, threshold, test : ndarray of int64
        Rows of the evaluation file; `fit` counts in the fit file where the split
        has one.
    """

    fit: IndexArray
    threshold: IndexArray
    test: IndexArray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The rounds of fitting and testing that a study is analysed with.

    Parameters
    ----------
    kind : {"file", "fit-file", "cross-fit", "holdout", "time"}
        How rows got their roles.
    rounds : tuple of Round
        One for a fixed split, one per fold for cross-fitting.
    fold : ndarray of int64 of shape (n,)
        For each evaluation row the round that tests it, -1 where none does.
    notes : tuple of Note
    """

    kind: str
    rounds: tuple[Round, ...]
    fold: IndexArray
    notes: tuple[Note, ...] = ()

    @property
    def test(self) -> IndexArray:
        """Rows that some round tests, in file order."""
        return np.flatnonzero(self.fold >= 0)

    @property
    def fit(self) -> IndexArray:
        """Rows that some round fits on: the exported calibrator is fitted on all."""
        size = max((item.fit.max(initial=-1) for item in self.rounds), default=-1) + 1
        is_fit = np.zeros(size, dtype=bool)
        for item in self.rounds:
            is_fit[item.fit] = True
        return np.flatnonzero(is_fit)

    @property
    def rows(self) -> str:
        """What a number measured with this split says of its rows."""
        return "cross-fitted" if self.kind == "cross-fit" else "test"

    @property
    def sentence(self) -> str:
        """How rows got their roles, in a few words."""
        if self.kind == "cross-fit":
            n_folds, round_ = len(self.rounds), self.rounds[0]
            if not round_.threshold.size:
                return f"{n_folds}-fold cross-fit"
            size = round_.threshold.size
            return f"{n_folds}-fold cross-fit, {size:,} threshold rows in each round"
        names = {
            "file": "split column",
            "fit-file": "calibration file",
            "holdout": "random holdout",
            "time": "split by time",
        }
        round_ = self.rounds[0]
        sizes = f"{round_.fit.size:,} fit rows, {round_.test.size:,} test rows"
        if round_.threshold.size:
            sizes += f", {round_.threshold.size:,} threshold rows"
        return f"{names[self.kind]}: {sizes}"


def make_split(
    study: Study,
    settings: Settings,
    *,
    repeat: int = 0,
    usable: IndexArray | None = None,
) -> Split:
    """Return the split that the settings ask for; "auto" prefers what the file says.

    Parameters
    ----------
    study : Study
    settings : Settings
        `split`, `n_folds`, `fit_fraction`, `threshold_fraction` and `seed`.
    repeat : int, default=0
        Which repetition of a random split.
    usable : ndarray of int64, optional
        Rows to divide; by default those that can fit and be tested (`usable_rows`).
        Unlabelled rows among them are one more stratum.

    Raises
    ------
    FitError
        If there are too few labelled rows, or too few groups, to divide.
    """
    own = study.evaluation
    labelled = usable_rows(own) if usable is None else usable
    if study.fit is not None and settings.split in ("auto", "file"):
        return _with_share_noted(_from_fit_file(study, labelled), settings)
    notes: tuple[Note, ...] = ()
    if settings.split in ("auto", "file") and own.roles.split is not None:
        found, notes = _from_column(own, labelled)
        if found is not None:
            return _with_share_noted(found, settings)
        if settings.split == "file":
            how = "Correct the column, or choose another kind of split."
            raise FitError(notes[0].text, own.name, how)
        text = f"{notes[0].text} The rows are cross-fitted instead."
        notes = (replace(notes[0], text=text),)
    if own.roles.split is not None:
        labelled = _without_training_rows(own, labelled)
    if settings.split == "file":
        raise FitError(
            "The file has no split column.",
            own.name,
            "Choose the split column, or another kind of split.",
        )
    if settings.split == "time":
        return _by_time(own, labelled, settings)
    seed = (settings.seed + 1000 * repeat) % 2**32
    if settings.split == "holdout":
        return _holdout(own, labelled, settings, seed)
    return _cross_fit(own, labelled, settings, seed, notes)


def _with_share_noted(split: Split, settings: Settings) -> Split:
    """Say so where a share of threshold rows was asked for and the file decides."""
    if not settings.threshold_fraction or split.rounds[0].threshold.size:
        return split
    text = (
        "The share of threshold rows was not used: the file says which rows fit and "
        "which are tested. Call some of its rows threshold."
    )
    note = Note("threshold-share-not-used", "warning", text)
    return replace(split, notes=(*split.notes, note))


def usable_rows(own: Predictions) -> IndexArray:
    """Return the rows that can fit or be tested: labelled, and not of weight 0."""
    weight = own.sample_weight()
    is_usable = own.is_labelled if weight is None else own.is_labelled & (weight > 0)
    return np.flatnonzero(is_usable)


def refit_rounds(study: Study, settings: Settings, n_repeats: int) -> list[Split]:
    """Return repeated splits, to show how much a result varies over refits.

    Cross-fits and holdouts are drawn again. A fixed split keeps its test rows and
    draws its fit rows (or groups) with replacement.
    """
    base = make_split(study, settings)
    if base.kind in ("cross-fit", "holdout"):
        return [make_split(study, settings, repeat=i + 1) for i in range(n_repeats)]
    source = study.fit if base.kind == "fit-file" and study.fit else study.evaluation
    round_ = base.rounds[0]
    codes = source.group_codes()
    units = round_.fit if codes is None else codes[round_.fit]
    names, unit = np.unique(units, return_inverse=True)
    rng = np.random.default_rng(settings.seed + 1)
    splits = []
    for _ in range(n_repeats):
        counts = np.bincount(rng.integers(0, names.size, names.size), None, names.size)
        drawn = Round(np.repeat(round_.fit, counts[unit]), _NONE, round_.test)
        splits.append(Split(base.kind, (drawn,), base.fold))
    return splits


def _outcomes(own: Predictions, rows: IndexArray) -> NDArray[np.int64]:
    if own.correct is not None:
        return own.correct[rows].astype(np.int64)
    if own.labels is None:
        return np.zeros(rows.size, dtype=np.int64)
    labels = own.labels[rows]
    return labels if (labels >= 0).all() else labels + 1


def _folds(
    own: Predictions, rows: IndexArray, wanted: int, seed: int
) -> tuple[IndexArray, int, list[Note]]:
    """Deal rows into at most `wanted` folds; fewer where rows or groups are few."""
    codes = own.group_codes()
    groups = None if codes is None else codes[rows]
    n_units = rows.size if groups is None else int(np.unique(groups).size)
    if n_units < 2:
        plural = "" if n_units == 1 else "s"
        unit = f"labelled row{plural}"
        if groups is not None:
            unit = f"group{plural} in {own.roles.group}"
        raise FitError(
            f"Nothing can be held out: only {n_units} {unit}.",
            own.name,
            "Calibrators need labelled rows to fit on and others to be tested on.",
        )
    n_folds = min(wanted, n_units)
    notes = []
    if n_folds < wanted and wanted != _PIECES:
        text = f"Only {n_units} units can be divided: {n_folds} folds, not {wanted}."
        notes.append(Note("fewer-folds", "warning", text))
    numbers = fold_numbers(_outcomes(own, rows), groups, n_folds, seed)
    return numbers, n_folds, notes


def _cross_fit(
    own: Predictions,
    rows: IndexArray,
    settings: Settings,
    seed: int,
    notes: tuple[Note, ...],
) -> Split:
    wants_threshold = settings.threshold_fraction > 0
    wanted = max(settings.n_folds, 3) if wants_threshold else settings.n_folds
    numbers, n_folds, more = _folds(own, rows, wanted, seed)
    if wants_threshold and n_folds < 3:
        raise FitError(
            "Three roles need at least three rows or groups.",
            own.name,
            "Set the share of threshold rows to 0, or give more rows.",
        )
    n_threshold = 0
    if wants_threshold:
        n_threshold = max(1, round(settings.threshold_fraction * n_folds))
        n_threshold = min(n_threshold, n_folds - 2)
    rounds = []
    for number in range(n_folds):
        # The next folds set thresholds, so that all rows are threshold rows alike.
        ahead = (numbers - number) % n_folds
        is_threshold = (ahead > 0) & (ahead <= n_threshold)
        is_test = numbers == number
        rounds.append(
            Round(rows[~is_test & ~is_threshold], rows[is_threshold], rows[is_test])
        )
    fold = np.full(len(own), -1, dtype=np.int64)
    fold[rows] = numbers
    return Split("cross-fit", tuple(rounds), fold, notes + tuple(more))


def _holdout(
    own: Predictions, rows: IndexArray, settings: Settings, seed: int
) -> Split:
    numbers, n_pieces, notes = _folds(own, rows, _PIECES, seed)
    n_fit = min(max(round(settings.fit_fraction * n_pieces), 1), n_pieces - 1)
    n_threshold = round(settings.threshold_fraction * n_pieces)
    n_threshold = min(n_threshold, n_pieces - 1 - n_fit)
    is_fit = numbers < n_fit
    is_threshold = ~is_fit & (numbers < n_fit + n_threshold)
    is_test = ~is_fit & ~is_threshold
    round_ = Round(rows[is_fit], rows[is_threshold], rows[is_test])
    return _single("holdout", own, round_, tuple(notes))


def _by_time(own: Predictions, rows: IndexArray, settings: Settings) -> Split:
    order = own.time_order()
    if order is None:
        raise FitError(
            "The file has no time column.",
            own.name,
            "Choose the time column.",
        )
    when = order[rows]
    n_fit = settings.fit_fraction * rows.size
    n_threshold = settings.threshold_fraction * rows.size
    # Rows of one moment stay together: a row's place is that of its moment's start.
    place = np.searchsorted(np.sort(when), when, side="left")
    role = np.where(place < n_fit, 0, np.where(place < n_fit + n_threshold, 1, 2))
    codes = own.group_codes()
    keep = np.ones(rows.size, dtype=bool)
    notes = []
    if codes is not None:
        # A group that lives on into the future is tested there, never fitted on.
        last = np.zeros(codes.max() + 1, dtype=np.int64)
        np.maximum.at(last, codes[rows], role)
        keep = role == last[codes[rows]]
        if not keep.all():
            text = (
                f"{int((~keep).sum()):,} earlier rows were left out of the fit: their "
                f"{own.roles.group} occurs among the later rows too."
            )
            notes.append(Note("group-across-time", "info", text))
    parts = [rows[keep & (role == number)] for number in range(3)]
    if not parts[0].size or not parts[2].size:
        raise FitError(
            "The split by time leaves no rows to fit on or none to test on.",
            own.name,
            "Change the share of fit rows, or choose another kind of split.",
        )
    return _single("time", own, Round(*parts), tuple(notes))


def _from_fit_file(study: Study, rows: IndexArray) -> Split:
    own, other = study.evaluation, study.fit
    assert other is not None  # noqa: S101 - the caller has looked
    fit = usable_rows(other)
    if not fit.size or not rows.size:
        raise FitError(
            "The calibration file or the evaluation file has no labelled row.",
            other.name,
            "Both need labels.",
        )
    notes: tuple[Note, ...] = ()
    for role in ("group", "id"):
        left, right = own.column(role), other.column(role)
        if left is None or right is None:
            continue
        seen = set(as_keys(right).iloc[fit].dropna())
        shared = as_keys(left).iloc[rows].isin(seen).to_numpy(bool)
        if shared.any():
            text = (
                f"{int(shared.sum()):,} evaluation rows share their {left.name} with "
                "the calibration file and are not tested."
            )
            notes += (Note("shared-with-fit-file", "warning", text),)
            rows = rows[~shared]
    if not rows.size:
        raise FitError(
            "Every evaluation row is in the calibration file too.",
            other.name,
            "Give calibration rows that are not evaluated.",
        )
    return _single("fit-file", own, Round(fit, _NONE, rows), notes)


def _from_column(
    own: Predictions, rows: IndexArray
) -> tuple[Split | None, tuple[Note, ...]]:
    """Return the split that the file's column states, or None and the reason."""
    column = own.column("split")
    assert column is not None  # noqa: S101 - the caller has looked
    names = column.iloc[rows].astype(str).str.strip().str.lower().to_numpy()
    parts = {
        role: rows[np.isin(names, spellings)] for role, spellings in ROLE_NAMES.items()
    }
    notes: list[Note] = []
    if not parts["fit"].size and parts["train"].size:
        parts["fit"] = parts["train"]
        text = (
            f"{parts['train'].size:,} training rows fit the calibrators. Were "
            "they used to train the model? Then their confidence says nothing about "
            "new rows."
        )
        notes.append(Note("fit-on-train", "question", text))
    elif parts["train"].size:
        text = f"{parts['train'].size:,} training rows are left out of every number."
        notes.append(Note("train-left-out", "info", text))
    known = np.isin(names, [name for group in ROLE_NAMES.values() for name in group])
    if not parts["fit"].size or not parts["test"].size or not known.all():
        odd = names[~known][0] if not known.all() else ", ".join(sorted(set(names)))
        text = (
            f"The column {own.roles.split} does not name fit and test rows (found "
            f"{odd!r}): write calibration and test."
        )
        return None, (Note("split-not-used", "warning", text),)
    codes = own.group_codes()
    if codes is not None:
        owners = [set(codes[parts[role]]) for role in ("fit", "threshold", "test")]
        n_shared = sum(len(owners[i] & owners[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
        if n_shared:
            text = (
                f"{n_shared:,} groups of {own.roles.group} have rows in more than one "
                f"role of {own.roles.split}."
            )
            return None, (Note("group-in-two-roles", "warning", text),)
    round_ = Round(parts["fit"], parts["threshold"], parts["test"])
    return _single("file", own, round_, tuple(notes)), ()


def _without_training_rows(own: Predictions, rows: IndexArray) -> IndexArray:
    column = own.column("split")
    assert column is not None  # noqa: S101 - the caller has looked
    names = column.iloc[rows].astype(str).str.strip().str.lower()
    others = rows[~names.isin(ROLE_NAMES["train"]).to_numpy()]
    return others if others.size else rows


def _single(
    kind: str, own: Predictions, round_: Round, notes: tuple[Note, ...]
) -> Split:
    fold = np.full(len(own), -1, dtype=np.int64)
    fold[round_.test] = 0
    return Split(kind, (round_,), fold, notes)
