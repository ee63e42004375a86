"""What the losses of the correctness-aware calibrator do to right and wrong rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators import CorrectnessAware, RowTemperature, TemperatureScaling
from core.calibrators.row_losses import LOSSES, RowLoss
from core.companions import companions_of
from core.fitting import Fitted
from core.messages import Progress, no_progress, part_of
from core.metrics import RowScores, Sample, estimates
from core.predictions import Predictions, Study
from core.row_statistics import RowStatistics
from core.settings import Settings
from core.splitting import Split, make_split

__all__ = [
    "COMMON",
    "GROUPS",
    "METHOD",
    "NARROW",
    "OURS",
    "PAPER",
    "LossEffects",
    "RowTemperatures",
    "compare_losses",
    "pulls",
    "row_temperatures",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

METHOD = "correctness-aware"
COMMON = "common temperature"
"""Name of plain temperature scaling among the losses."""

GROUPS = ("right", "narrowly wrong", "clearly wrong")
NARROW = 0.3
"""Lead, in probability, at which a wrong row is narrowly wrong: at most so much, and
the true class comes second."""

OURS = ("nll", "brier", "ece-15")
PAPER = ("ece-25", "ace-25", "top-brier", "ks", "auroc")
_PAPER_BINS = 25


@dataclass(frozen=True, slots=True, eq=False)
class LossEffects:
    """Test rows under each loss, by calibrators that never saw them.

    Parameters
    ----------
    n : dict of str to int
        Rows of each of `GROUPS`, as plain temperature scaling leaves them.
    confidence : dict of str to dict of str to float
        Loss (or `COMMON`) -> group -> mean confidence; NaN where there are no rows.
    numbers : dict of str to dict of str to float
        Loss (or `COMMON`) -> name in `OURS` or `PAPER` -> value.
    rows : str
        "test" or "cross-fitted".
    has_copies : bool
        Whether T came from transformed copies.
    """

    n: dict[str, int]
    confidence: dict[str, dict[str, float]]
    numbers: dict[str, dict[str, float]]
    rows: str
    has_copies: bool


@dataclass(frozen=True, slots=True, eq=False)
class RowTemperatures:
    """Temperatures that test rows got from a calibrator that never saw them.

    Parameters
    ----------
    confidence, temperature : ndarray of shape (n,)
        Confidence before, and T.
    correct : ndarray of bool of shape (n,)
    common : float
        T0 of all fit rows; NaN where the calibrator has none.
    """

    confidence: FloatArray
    temperature: FloatArray
    correct: NDArray[np.bool_]
    common: float


def pulls(
    confidence: FloatArray, *, losses: tuple[str, ...] = LOSSES
) -> dict[str, FloatArray]:
    """Return how hard each loss pulls at ln T of a wrong row of two classes.

    Parameters
    ----------
    confidence : ndarray of shape (m,)
        Of the wrong prediction, from 0.5 to 1, at T = 1.
    losses : tuple of str

    Returns
    -------
    dict of str to ndarray of shape (m,)
        Minus the derivative in ln T: positive where a higher T lowers the loss.
    """
    q = np.asarray(confidence, dtype=np.float64)
    logits = np.column_stack([np.log(q) - np.log1p(-q), np.zeros_like(q)])
    # The first of equal logits is predicted, and it is wrong.
    label, rows = np.ones(q.size, dtype=np.int64), np.arange(q.size)
    return {
        kind: -q.size
        * RowLoss(logits, label, np.ones(q.size), kind)(np.zeros(q.size), rows)[1]
        for kind in losses
    }


def row_temperatures(study: Study, split: Split, fitted: Fitted) -> RowTemperatures:
    """Return T of the test rows, for calibrators that give each row its own."""
    own = study.evaluation
    assert own.logits is not None  # noqa: S101 - calibrators have class scores
    assert own.labels is not None  # noqa: S101 - test rows are labelled
    beside = companions_of(study, own, fitted.calibrator)
    temperature = np.empty(split.test.size)
    for round_, calibrator in zip(split.rounds, fitted.rounds, strict=True):
        assert isinstance(calibrator, RowTemperature)  # noqa: S101 - the page has looked
        found = calibrator.temperatures(
            own.logits[round_.test], **beside.take(round_.test)
        )
        temperature[np.searchsorted(split.test, round_.test)] = found
    before = TemperatureScaling.from_dict(_plain(own.n_classes)).row_statistics(
        own.logits[split.test], own.labels[split.test]
    )
    assert before.correct is not None  # noqa: S101 - labelled rows
    common = float(getattr(fitted.calibrator, "temperature_", np.nan))
    return RowTemperatures(before.confidence, temperature, before.correct, common)


def _plain(k: int) -> dict[str, Any]:
    same = {"method": "temperature", "options": {}, "input": "logits"}
    return {**same, "parameters": {"temperature": 1.0}, "n_scores": k, "n_classes": k}


def compare_losses(
    study: Study, settings: Settings, progress: Progress = no_progress
) -> LossEffects:
    """Fit the correctness-aware calibrator by each loss; measure it on the test rows.

    Parameters
    ----------
    study : Study
    settings : Settings
        The split, the seed, and the other options of the method.
    progress : callable, optional
        May raise `Cancelled`.
    """
    split = make_split(study, settings)
    options = settings.method_options(METHOD)
    options.pop("loss", None)
    rows, has_copies = {}, False
    names = (COMMON, *LOSSES)
    for number, name in enumerate(names):
        part = part_of(progress, number / len(names), (number + 1) / len(names))
        made = TemperatureScaling if name == COMMON else CorrectnessAware
        chosen = {} if name == COMMON else {**options, "loss": name}
        found, has_copies = _tested(study, split, made, chosen, part)
        rows[name] = found
    place = _groups(rows[COMMON])
    kind = "cross-fitted" if split.kind == "cross-fit" else "test"
    return LossEffects(
        n={group: int((place == i).sum()) for i, group in enumerate(GROUPS)},
        confidence={name: _means(item, place) for name, item in rows.items()},
        numbers=_numbers(rows, settings),
        rows=kind,
        has_copies=has_copies,
    )


def _tested(
    study: Study, split: Split, made: Any, options: Mapping[str, Any], report: Progress
) -> tuple[RowStatistics, bool]:
    """Return statistics of the test rows in file order; whether copies were read."""
    own = study.evaluation
    source = study.fit if split.kind == "fit-file" and study.fit is not None else own
    parts, order, has_copies = [], [], False
    for number, round_ in enumerate(split.rounds):
        step = part_of(
            report, number / len(split.rounds), (number + 1) / len(split.rounds)
        )
        calibrator = made(**options)
        beside = companions_of(study, source, calibrator).take(round_.fit)
        logits, labels = _of(source, round_.fit)
        groups, weight = source.group_codes(), source.sample_weight()
        calibrator.fit(
            logits,
            labels,
            None if weight is None else weight[round_.fit],
            groups=None if groups is None else groups[round_.fit],
            progress=step,
            **beside,
        )
        has_copies = "copies" in calibrator.reads
        more = companions_of(study, own, calibrator).take(round_.test)
        parts.append(calibrator.row_statistics(*_of(own, round_.test), **more))
        order.append(round_.test)
    joined = RowStatistics.concatenate(parts)
    return joined.take(np.argsort(np.concatenate(order), kind="stable")), has_copies


def _of(rows: Predictions, places: IndexArray) -> tuple[FloatArray, IndexArray]:
    assert rows.logits is not None  # noqa: S101 - calibrators have class scores
    assert rows.labels is not None  # noqa: S101 - rows of a split are labelled
    return rows.logits[places], rows.labels[places]


def _groups(rows: RowStatistics) -> IndexArray:
    """Return the number of the group of each row."""
    assert rows.correct is not None  # noqa: S101 - labelled rows
    assert rows.label_rank is not None  # noqa: S101
    assert rows.margin is not None  # noqa: S101 - rows of class scores
    is_narrow = (rows.label_rank == 1) & (rows.margin <= NARROW)
    return np.where(rows.correct, 0, np.where(is_narrow, 1, 2))


def _means(rows: RowStatistics, place: IndexArray) -> dict[str, float]:
    """Return the mean confidence of each group."""
    found = {}
    for number, group in enumerate(GROUPS):
        some = rows.confidence[place == number]
        found[group] = float(some.mean()) if some.size else float("nan")
    return found


def _numbers(
    rows: Mapping[str, RowStatistics], settings: Settings
) -> dict[str, dict[str, float]]:
    scores = {name: _scores(item) for name, item in rows.items()}
    quick = settings.replace(n_resamples=100, strategy="uniform", norm="l1")
    wanted = {
        ("nll", "brier", "ece"): quick.replace(n_bins=15),
        ("ks", "auroc"): quick,
        ("ece",): quick.replace(n_bins=_PAPER_BINS),
        ("ece", "quantile"): quick.replace(n_bins=_PAPER_BINS, strategy="quantile"),
    }
    found: dict[str, dict[str, float]] = {name: {} for name in rows}
    for names, chosen in wanted.items():
        metrics = tuple(name for name in names if name != "quantile")
        for name, values in estimates(Sample(scores, chosen, metrics=metrics)).items():
            for metric, estimate in values.items():
                key = metric
                if metric == "ece":
                    stem = "ace" if chosen.strategy == "quantile" else "ece"
                    key = f"{stem}-{chosen.n_bins}"
                found[name][key] = float(estimate.value)
    for name, item in scores.items():
        gap = item.confidence - item.outcome
        found[name]["top-brier"] = float((gap**2).mean())
    return found


def _scores(rows: RowStatistics) -> RowScores:
    assert rows.correct is not None  # noqa: S101 - labelled rows
    assert rows.label_log_probability is not None  # noqa: S101
    assert rows.squared_sum is not None  # noqa: S101
    p = np.exp(rows.label_log_probability)
    return RowScores(
        rows.confidence,
        rows.correct.astype(np.float64),
        -rows.label_log_probability,
        rows.squared_sum - 2.0 * p + 1.0,
    )
