"""What is measured when it is asked for: more metrics, curves, other libraries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.fitting import Fitted
from core.measurement import (
    UNCALIBRATED,
    Overview,
    positive_index,
    sample_of,
    scores_of,
    view_names,
)
from core.messages import DataError, Progress, no_progress, part_of
from core.metrics import CURVES, Curve, RowScores, Sample, estimates
from core.metrics.base import METRICS
from core.metrics.presets import PeerNumber, peer_numbers
from core.predictions import Predictions, Study
from core.probability_rows import ProbabilityRows
from core.settings import Settings
from core.softmax import softmax
from core.uncertainty import Estimate
from core.validation import given_probabilities

__all__ = ["MORE_METRICS", "measure_metrics", "peers", "reliability_curves"]

FloatArray = NDArray[np.floating[Any]]

Found = dict[str, dict[str, dict[str, Estimate]]]


def _more() -> tuple[str, ...]:
    return tuple(name for name, item in METRICS.items() if item.tier == "more")


MORE_METRICS = _more()
"""Ids of the metrics that are computed only when they are asked for."""


def measure_metrics(
    study: Study,
    settings: Settings,
    overview: Overview,
    metrics: Iterable[str],
    fitted: Mapping[str, Fitted] | None = None,
    progress: Progress = no_progress,
    *,
    view: str = "",
    method: str = "",
) -> Found:
    """Estimate the metrics that are asked for, and no others.

    Parameters
    ----------
    study : Study
    settings : Settings
    overview : Overview
        From `core.analysis.measure` with the same study and settings.
    metrics : iterable of str
        Ids or aliases in `core.metrics.METRICS`.
    fitted : mapping of str to Fitted, optional
        Calibrators to measure as well; then all numbers come from the test rows.
        Without them they come from every labelled row that is used.
    progress : callable, optional
    view, method : str, optional
        Only this view, and only "uncalibrated" or this calibrator.

    Returns
    -------
    dict
        View -> "uncalibrated" or calibrator id -> metric id -> Estimate. Metrics that
        the file does not allow are left out.

    Raises
    ------
    DataError
        If a metric is unknown.
    """
    wanted = tuple(dict.fromkeys(_known(name) for name in metrics))
    if not wanted:
        return {}
    is_whole = any(METRICS[m].traits["field"] == "probabilities" for m in wanted)
    found: Found = {}
    samples = _samples(
        study, settings, overview, fitted or {}, wanted, is_whole=is_whole, only=method
    )
    for part, place, name, sample in _parts(samples, view, method, progress):
        one = replace(sample, scores={name: sample.scores[name]})
        found.setdefault(place, {}).update(estimates(one, part))
    return found


def reliability_curves(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted] | None = None,
    progress: Progress = no_progress,
    *,
    kind: str = "corp",
    view: str = "",
    method: str = "",
) -> dict[str, dict[str, Curve]]:
    """Return reliability curves with consistency bands at the level of `settings`.

    Parameters
    ----------
    study, settings, overview, fitted, progress, view, method
        As in `measure_metrics`.
    kind : str, default="corp"
        Id in `core.metrics.CURVES`.

    Returns
    -------
    dict
        View -> "uncalibrated" or calibrator id -> Curve.
    """
    samples = _samples(study, settings, overview, fitted or {}, ())
    found: dict[str, dict[str, Curve]] = {}
    for part, place, name, sample in _parts(samples, view, method, progress):
        design = replace(sample.design(name), progress=part)
        curve = CURVES[kind](sample.scores[name], design, level=settings.level)
        found.setdefault(place, {})[name] = replace(curve, rows=sample.rows)
    return found


def _parts(
    samples: Mapping[str, Sample], view: str, method: str, progress: Progress
) -> Iterator[tuple[Progress, str, str, Sample]]:
    """Yield progress, view, name and sample of the scores that are asked for."""
    wanted = [
        (place, name, sample)
        for place, sample in samples.items()
        for name in sample.scores
        if view in ("", place) and method in ("", name)
    ]
    for number, item in enumerate(wanted):
        ends = (place / len(wanted) for place in (number, number + 1))
        yield part_of(progress, *ends), *item


def peers(
    study: Study,
    settings: Settings,
    overview: Overview,
    progress: Progress = no_progress,
) -> tuple[PeerNumber, ...]:
    """Return what scikit-learn, netcal, torchmetrics, MAPIE and relplot would print.

    Parameters
    ----------
    study, settings, overview
        As in `measure_metrics`; the rows are every labelled row that is used.
    progress : callable, optional

    Returns
    -------
    tuple of PeerNumber
        Empty without labels.
    """
    if not overview.used.size:
        return ()
    own, used = study.evaluation, overview.used
    scores = _scores(own, settings, overview, is_whole=True)
    weight = own.sample_weight()
    sample = {
        view: sample_of(own, used, {UNCALIBRATED: item}, settings, "all")
        for view, item in scores.items()
    }

    def ours(metric: str, view: str) -> float:
        method, item = METRICS[metric], scores[view]
        design = sample[view].design(UNCALIBRATED)
        if method.traits["needs"] == "design":
            return float(method.traits["point"](item, design))
        if method.traits["needs"] == "bins":
            return design.bins(item).statistics.error("l1")
        mass = design.shares(len(item))[None, :]
        return float(method.traits["statistic"](item, mass)[0])

    top = scores["top-label"]
    return peer_numbers(
        top.labels,
        _given(own, used, top.probabilities),
        confidence=overview.rows.confidence[used],
        correct=top.outcome,
        positive=positive_index(own, settings),
        n_bins=settings.n_bins,
        strategy=settings.strategy,
        ours=ours,
        is_weighted=weight is not None,
        progress=progress,
    )


def _given(
    own: Predictions,
    used: NDArray[np.int64],
    probabilities: FloatArray | ProbabilityRows | None,
) -> FloatArray | None:
    """Return what a user hands to another library: probabilities as in the file.

    Zeros and values on the edges of bins, which logarithms blur, are what libraries
    differ in.
    """
    if own.input_kind != "probabilities" or own.logits is None:
        return None if probabilities is None else np.asarray(probabilities)
    has_zeros = any(note.code == "exact-zero" for note in own.notes)
    floor = float(own.logits.min()) if has_zeros else None
    return given_probabilities(own.logits[used], floor)


def _known(name: str) -> str:
    if name not in METRICS:
        raise DataError(
            f"There is no metric called {name!r}.",
            "metrics",
            f"Choose among: {', '.join(METRICS)}.",
        )
    return METRICS[name].id


def _scores(
    own: Predictions, settings: Settings, overview: Overview, *, is_whole: bool
) -> dict[str, RowScores]:
    """Return the uncalibrated scores of the rows in use, in every view."""
    rows = overview.rows.take(overview.used)
    found = {view: scores_of(own, rows, settings, view) for view in view_names(own)}
    if is_whole and own.logits is not None and own.labels is not None:
        found["top-label"] = replace(
            found["top-label"],
            probabilities=_probabilities(own.logits, overview.used),
            labels=own.labels[overview.used],
        )
    return found


def _samples(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    metrics: tuple[str, ...],
    *,
    is_whole: bool = False,
    only: str = "",
) -> dict[str, Sample]:
    """Return one sample per view: all rows in use, or the test rows of calibrators.

    Whole rows of probabilities are large: `only` one set of scores gets them, if named.
    """
    own, split = study.evaluation, overview.split
    if not overview.used.size:
        return {}
    if not fitted or split is None:
        scores = _scores(own, settings, overview, is_whole=is_whole)
        return {
            view: replace(
                sample_of(own, overview.used, {UNCALIBRATED: item}, settings, "all"),
                metrics=metrics,
            )
            for view, item in scores.items()
        }
    rows = {UNCALIBRATED: overview.rows.take(split.test)}
    rows |= {name: item.rows for name, item in fitted.items()}
    found = {}
    for view in view_names(own):
        made = {name: scores_of(own, r, settings, view) for name, r in rows.items()}
        if is_whole and view == "top-label" and own.labels is not None:
            made = {
                name: replace(
                    item,
                    probabilities=_calibrated(study, overview, fitted.get(name)),
                    labels=own.labels[split.test],
                )
                if only in ("", name)
                else item
                for name, item in made.items()
            }
        sample = sample_of(own, split.test, made, settings, split.rows)
        found[view] = replace(sample, metrics=metrics)
    return found


def _calibrated(
    study: Study, overview: Overview, fitted: Fitted | None
) -> ProbabilityRows:
    """Return probabilities of the test rows, each from a fit that never saw it."""
    own, split = study.evaluation, overview.split
    assert own.logits is not None  # noqa: S101 - calibrators have class scores
    assert split is not None  # noqa: S101 - the caller has looked
    if fitted is None:
        return _probabilities(own.logits, split.test)
    logs = fitted.log_probability_rows(study, split, np.float64)

    def make(start: int, stop: int) -> FloatArray:
        found = logs(start, stop)
        return np.asarray(np.exp(found, out=found))

    return ProbabilityRows((split.test.size, own.n_classes), make)


def _probabilities(logits: FloatArray, rows: NDArray[np.int64]) -> ProbabilityRows:
    """Return the softmax of some rows in double precision."""

    def make(start: int, stop: int) -> FloatArray:
        return softmax(logits[rows[start:stop]].astype(np.float64))

    return ProbabilityRows((rows.size, logits.shape[1]), make)
