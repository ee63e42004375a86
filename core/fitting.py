"""Fitting a calibrator the honest way: every row is predicted by one it never met."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from core.calibrators import CALIBRATORS, Calibrator
from core.companions import companions_of, copies_problem
from core.fingerprints import rows_of
from core.folds import fold_numbers
from core.messages import FitError, Note, Progress, no_progress
from core.predictions import Predictions, Study
from core.row_statistics import RowStatistics
from core.settings import Settings
from core.splitting import Round, Split, make_split, refit_rounds

__all__ = [
    "FEW_FIT_ROWS",
    "Fitted",
    "Maker",
    "Refit",
    "fit_method",
    "fit_source",
    "inner_split",
    "unusable_reason",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

FEW_FIT_ROWS = 5000  # below it the split is repeated to show the variation over refits
N_REPEATS = 5


_CELLS = 1 << 22  # scores transformed at once


@dataclass(frozen=True, slots=True)
class Refit:
    """What one repetition of the split measured on its test rows."""

    nll: float
    gap: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A calibrator, and what it does to rows that it never saw.

    Parameters
    ----------
    method : str
        Id of the calibrator.
    calibrator : Calibrator
        Fitted on all fit rows: the one that is exported.
    rows : RowStatistics
        Of the test rows in file order; each from a calibrator that saw neither the
        row nor its group.
    ranking : ndarray of shape (n_fit,)
        Cross-validated NLL of each fit row, by which methods are ranked. For
        cross-fitting these are the test rows' own.
    folds : tuple of dict
        Readable parameters of each round's calibrator.
    rounds : tuple of Calibrator
        Each round's calibrator, in the order of `Split.rounds`.
    refits : tuple of Refit
        Results of repeated splits; empty with 5,000 fit rows or more.
    notes : tuple of Note
    validated : RowStatistics or None
        Of each fit row, from a calibrator that saw neither the row nor its group;
        None where the fit rows are too few for that.
    seconds : float
        What one fit took: of all fit rows, on this machine, compiling included.
    """

    method: str
    calibrator: Calibrator
    rows: RowStatistics
    ranking: FloatArray
    folds: tuple[dict[str, Any], ...]
    rounds: tuple[Calibrator, ...]
    refits: tuple[Refit, ...]
    notes: tuple[Note, ...]
    validated: RowStatistics | None = None
    seconds: float = 0.0

    @property
    def refit_range(self) -> dict[str, tuple[float, float]]:
        """Metric id -> least and greatest value over the refits; empty without them."""
        if not self.refits:
            return {}
        values = {
            "nll": [item.nll for item in self.refits],
            "gap": [item.gap for item in self.refits],
        }
        return {metric: (min(found), max(found)) for metric, found in values.items()}

    def log_probabilities(
        self, study: Study, split: Split, dtype: DTypeLike | None = None
    ) -> FloatArray:
        """Return calibrated log-probabilities of the test rows in file order.

        Parameters
        ----------
        study : Study
        split : Split
            That the rounds were fitted with.
        dtype : dtype, optional
            To compute in; by default that of the logits.
        """
        own, n = study.evaluation, split.test.size
        assert own.logits is not None  # noqa: S101 - calibrators have class scores
        make = self.log_probability_rows(study, split, dtype)
        step = max(1, _CELLS // max(1, own.n_classes))
        found = np.empty((n, own.n_classes), dtype or own.logits.dtype)
        for start in range(0, n, step):
            found[start : start + step] = make(start, min(start + step, n))
        return found

    def log_probability_rows(
        self, study: Study, split: Split, dtype: DTypeLike | None = None
    ) -> Callable[[int, int], FloatArray]:
        """Return what makes some of them: called with the first and the last test row.

        Parameters
        ----------
        study, split, dtype
            As `log_probabilities` has them.
        """
        own, test = study.evaluation, split.test
        assert own.logits is not None  # noqa: S101 - calibrators have class scores
        logits, kind = own.logits, np.dtype(dtype or own.logits.dtype)
        beside = companions_of(study, own, self.calibrator)
        number = np.empty(test.size, dtype=np.int64)
        for place, round_ in enumerate(split.rounds):
            number[np.searchsorted(test, round_.test)] = place

        def make(start: int, stop: int) -> FloatArray:
            found = np.empty((stop - start, own.n_classes), kind)
            for place, calibrator in enumerate(self.rounds):
                here = np.flatnonzero(number[start:stop] == place)
                if here.size:
                    rows = test[start:stop][here]
                    given = logits[rows].astype(kind, copy=False)
                    found[here] = calibrator.transform(given, **beside.take(rows))
            return found

        return make


def unusable_reason(study: Study, method: str) -> str | None:
    """Return why a calibrator cannot be used on this study, or None if it can."""
    own = study.evaluation
    requires = CALIBRATORS[method].requires
    if own.logits is None:
        return (
            "The file has one confidence per row; this calibrator needs the scores of "
            "every class."
        )
    if "features" in requires and own.features is None:
        return "The file has no features."
    if "copies" in requires and (problem := copies_problem(study)) is not None:
        return problem
    no_features = study.fit is not None and study.fit.features is None
    if "features" in requires and no_features:
        return "The calibration file has no features."
    return None


def fit_method(
    study: Study,
    settings: Settings,
    method: str,
    progress: Progress = no_progress,
) -> Fitted:
    """Fit one calibrator on the fit rows and measure it on the test rows.

    Parameters
    ----------
    study : Study
    settings : Settings
        The split, the seed and the options of the method.
    method : str
        Id in `core.calibrators.CALIBRATORS`.
    progress : callable, optional
        May raise `Cancelled`.

    Raises
    ------
    FitError
        If the method cannot use this input, or too few rows can be divided.
    """
    if method not in CALIBRATORS:
        known = ", ".join(CALIBRATORS)
        what = f"There is no calibrator called {method!r}."
        raise FitError(what, "calibrators", f"Choose one of: {known}.")
    method = CALIBRATORS[method].id
    reason = unusable_reason(study, method)
    if reason is not None:
        raise FitError(reason, study.evaluation.name, "Choose another calibrator.")
    split = make_split(study, settings)
    source = fit_source(study, split)
    maker = Maker(study, source, settings, method)
    repeats = N_REPEATS if split.fit.size < FEW_FIT_ROWS else 0
    is_single = len(split.rounds) == 1
    report = _Shares(progress, (2 if is_single else 3) + repeats)

    rows, per_round = _tested(study, split, maker, report.next("Cross-fitting"))
    if is_single:
        final = per_round[0]
    else:
        final = maker.fit(split.fit, report.next("Fitting on all rows"))
    seconds = maker.seconds
    step = report.next("Cross-validating")
    validated: RowStatistics | None = rows
    if is_single:
        validated = _cross_validated(source, split.fit, maker, settings, step)
    ranking = np.full(split.fit.size, np.nan)
    if validated is not None:
        assert validated.label_log_probability is not None  # noqa: S101 - labelled
        ranking = -validated.label_log_probability
    refits = []
    if repeats:
        for again in refit_rounds(study, settings, repeats):
            step = report.next("Repeating the split")
            refits.append(_refit(study, again, maker, step))
    return Fitted(
        method=method,
        calibrator=final,
        rows=rows,
        ranking=ranking,
        folds=tuple(item.parameters() for item in per_round),
        rounds=tuple(per_round),
        refits=tuple(refits),
        notes=tuple(final.notes_),
        validated=validated,
        seconds=seconds,
    )


class Maker:
    """Makes calibrators of one kind from rows of one source.

    Parameters
    ----------
    study : Study
    source : Predictions
        The file that fit rows are in.
    settings : Settings
        Options of the method.
    method : str
        Id of the calibrator.
    """

    def __init__(
        self, study: Study, source: Predictions, settings: Settings, method: str
    ) -> None:
        entry = CALIBRATORS[method]
        self.source = source
        self.beside = companions_of(study, source, entry)
        self.entry = entry
        try:
            self.options = entry.validate(settings.method_options(method))
        except ValueError as error:
            what = f"{error}."
            raise FitError(what, "options", "Correct or remove the option.") from error
        self.weight = source.sample_weight()
        self.groups = source.group_codes()
        self.seconds = 0.0  # of the last fit

    def fit(self, rows: IndexArray, progress: Progress) -> Calibrator:
        """Fit on some rows of the source."""
        source = self.source
        assert source.logits is not None  # noqa: S101 - unusable_reason has looked
        assert source.labels is not None  # noqa: S101 - fit rows are labelled
        made: Calibrator = self.entry(**self.options)
        start = time.perf_counter()
        made.fit(
            rows_of(source.logits, rows),
            source.labels[rows],
            None if self.weight is None else self.weight[rows],
            groups=None if self.groups is None else self.groups[rows],
            progress=progress,
            **self.beside.take(rows),
        )
        self.seconds = time.perf_counter() - start
        return made

    def tested(self, calibrator: Calibrator, rows: IndexArray) -> RowStatistics:
        """Return statistics of rows of the source under a calibrator."""
        source = self.source
        assert source.logits is not None  # noqa: S101 - unusable_reason has looked
        assert source.labels is not None  # noqa: S101 - only labelled rows are tested
        return calibrator.row_statistics(
            rows_of(source.logits, rows), source.labels[rows], **self.beside.take(rows)
        )


class _Shares:
    """Divides a progress bar into equal steps."""

    def __init__(self, progress: Progress, n_steps: int) -> None:
        self.progress, self.n_steps, self.done = progress, n_steps, 0

    def next(self, text: str) -> Progress:
        """Return the progress callback of the next step."""
        start = self.done / self.n_steps
        self.done += 1

        def report(fraction: float, message: str) -> None:
            share = start + min(max(fraction, 0.0), 1.0) / self.n_steps
            self.progress(share, f"{text}: {message[:1].lower()}{message[1:]}")

        self.progress(start, text)
        return report


def fit_source(study: Study, split: Split) -> Predictions:
    """Return the file that the fit rows of a split are in."""
    if split.kind == "fit-file" and study.fit is not None:
        return study.fit
    return study.evaluation


def _each_round(
    split: Split, maker: Maker, progress: Progress
) -> Iterator[tuple[Round, Calibrator]]:
    n = len(split.rounds)
    for number, round_ in enumerate(split.rounds):

        def report(fraction: float, message: str, done: int = number) -> None:
            progress((done + fraction) / n, message)

        yield round_, maker.fit(round_.fit, report)


def _tested(
    study: Study, split: Split, maker: Maker, progress: Progress
) -> tuple[RowStatistics, list[Calibrator]]:
    """Return statistics of the test rows in file order, and each round's fit."""
    own, beside = study.evaluation, companions_of(study, study.evaluation, maker.entry)
    assert own.logits is not None  # noqa: S101 - unusable_reason has looked
    assert own.labels is not None  # noqa: S101 - test rows are labelled
    parts, order, made = [], [], []
    for round_, calibrator in _each_round(split, maker, progress):
        logits = rows_of(own.logits, round_.test)
        labels, more = own.labels[round_.test], beside.take(round_.test)
        parts.append(calibrator.row_statistics(logits, labels, **more))
        order.append(round_.test)
        made.append(calibrator)
    joined = RowStatistics.concatenate(parts)
    return joined.take(np.argsort(np.concatenate(order), kind="stable")), made


def _cross_validated(
    source: Predictions,
    rows: IndexArray,
    maker: Maker,
    settings: Settings,
    progress: Progress,
) -> RowStatistics | None:
    """Return statistics of each fit row by calibrators fitted on the other folds."""
    inner = inner_split(source, rows, maker, settings)
    if inner is None:
        return None
    parts = [
        maker.tested(calibrator, round_.test)
        for round_, calibrator in _each_round(inner, maker, progress)
    ]
    order = np.concatenate([round_.test for round_ in inner.rounds])
    return RowStatistics.concatenate(parts).take(np.argsort(order, kind="stable"))


def inner_split(
    source: Predictions, rows: IndexArray, maker: Maker, settings: Settings
) -> Split | None:
    """Return how the fit rows are divided among themselves; None where they are not."""
    assert source.labels is not None  # noqa: S101 - fit rows are labelled
    groups = None if maker.groups is None else maker.groups[rows]
    n_units = rows.size if groups is None else np.unique(groups).size
    n_folds = int(min(settings.n_folds, n_units))
    if n_folds < 2:
        return None
    fold = fold_numbers(source.labels[rows], groups, n_folds, settings.seed)
    rounds = tuple(
        Round(rows[fold != i], rows[:0], rows[fold == i]) for i in range(n_folds)
    )
    return Split("cross-fit", rounds, fold)


def _refit(study: Study, split: Split, maker: Maker, progress: Progress) -> Refit:
    rows, _ = _tested(study, split, maker, progress)
    assert rows.label_log_probability is not None  # noqa: S101 - labelled rows
    assert rows.correct is not None  # noqa: S101
    weight = study.evaluation.sample_weight()
    mass = None if weight is None else weight[split.test]
    return Refit(
        nll=float(np.average(-rows.label_log_probability, weights=mass)),
        gap=float(np.average(rows.confidence - rows.correct, weights=mass)),
    )
