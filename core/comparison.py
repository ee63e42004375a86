"""Calibrators side by side on the same test rows, ranked by what never saw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.fitting import Fitted
from core.measurement import (
    UNCALIBRATED,
    Overview,
    ViewResult,
    rows_of,
    sample_of,
    scores_of,
    view_names,
)
from core.messages import Progress, no_progress, part_of
from core.metrics import Sample, changes, estimates
from core.predictions import Study
from core.settings import Settings
from core.splitting import Split, refit_rounds
from core.uncertainty import Estimate

__all__ = ["RANKING_METRICS", "Comparison", "compare"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

RANKING_METRICS = ("nll", "brier", "ece")
"""What is cross-validated inside the fit rows, in the order of its say."""

# Settings that the numbers of a set of rows depend on.
_MEASURING = (
    "n_bins",
    "strategy",
    "norm",
    "level",
    "n_resamples",
    "seed",
    "positive_class",
)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Calibrators side by side on the same test rows.

    Parameters
    ----------
    views : mapping of str to mapping of str to ViewResult
        View -> calibrator id (and "uncalibrated") -> numbers and bins.
    changes : mapping of str to mapping of str to mapping of str to Estimate
        View -> calibrator id -> metric id -> change from the uncalibrated scores.
    ranking : tuple of (str, Estimate, Estimate)
        Calibrators by cross-validated NLL, best first: id, that NLL, and the
        difference to the best one, paired.
    validated : mapping of str to mapping of str to Estimate
        Calibrator id -> "nll", "brier" and "ece" of the fit rows, each from a
        calibrator that never saw it. The NLL ranks, the Brier score breaks ties.
    samples : mapping of str to Sample
        View -> what the numbers were made from: differences to any of the calibrators
        are paired by the same resamples (`core.contrasts`).
    ranked : Sample or None
        What the ranking was made from.
    refits : mapping of str to ndarray of shape (n_refits,)
        Calibrator id (and "uncalibrated") -> NLL of the test rows of each repeated
        split; empty with 5,000 fit rows or more.
    """

    views: Mapping[str, Mapping[str, ViewResult]]
    changes: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    ranking: tuple[tuple[str, Estimate, Estimate], ...]
    validated: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    samples: Mapping[str, Sample] = field(default_factory=dict)
    ranked: Sample | None = None
    refits: Mapping[str, FloatArray] = field(default_factory=dict)


def compare(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    progress: Progress = no_progress,
    known: Comparison | None = None,
) -> Comparison:
    """Return all calibrators' numbers on the same test rows, with paired changes.

    Parameters
    ----------
    study : Study
    settings : Settings
    overview : Overview
        With the split; where it measured the test rows, its resamples are used.
    fitted : mapping of str to Fitted
        By id of the calibrator.
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    known : Comparison, optional
        Of the same scores on the same rows with other bins or another level: its
        resamples are used.
    """
    split = overview.split
    if split is None:
        msg = "there is no split to compare on"
        raise ValueError(msg)
    own, test = study.evaluation, split.test
    is_ranked_apart = split.kind != "cross-fit"
    names = view_names(own)
    n_steps = len(names) + is_ranked_apart
    samples, views, moved = {}, {}, {}
    for i, view in enumerate(names):
        added = {
            name: scores_of(own, item.rows, settings, view)
            for name, item in fitted.items()
        }
        first = overview.samples.get(view)
        if known is not None:
            sample = known.samples[view].measured_as(settings)
        elif first is not None and _is_same_sample(overview, test, first, settings):
            sample = first.extended(added, split.rows)
        else:
            before = scores_of(own, overview.rows.take(test), settings, view)
            scores = {UNCALIBRATED: before, **added}
            sample = sample_of(own, test, scores, settings, split.rows)
        found = estimates(sample, part_of(progress, i / n_steps, (i + 1) / n_steps))
        views[view] = {
            name: ViewResult(numbers, sample.bins(name).statistics)
            for name, numbers in found.items()
        }
        moved[view] = {name: changes(sample, UNCALIBRATED, name) for name in fitted}
        samples[view] = sample
    ranked = samples["top-label"]
    if is_ranked_apart and known is not None and known.ranked is not None:
        ranked = known.ranked.measured_as(settings)
    elif is_ranked_apart:
        ranked = _fit_sample(study, settings, overview, fitted, split)
    report = part_of(progress, len(names) / n_steps, 1.0)
    is_validated = all(item.validated is not None for item in fitted.values())
    ranked = replace(ranked, metrics=RANKING_METRICS if is_validated else ("nll",))
    validated = estimates(ranked, report)
    ranking = _ranking(ranked, validated)
    refits = (
        known.refits
        if known is not None
        else _refits(study, settings, overview, fitted)
    )
    return Comparison(views, moved, ranking, validated, samples, ranked, refits)


def _is_same_sample(
    overview: Overview, rows: IndexArray, sample: Sample, settings: Settings
) -> bool:
    """Whether a sample was made of these rows, in the way these settings ask for."""
    is_alike = all(
        getattr(sample.settings, name) == getattr(settings, name) for name in _MEASURING
    )
    return is_alike and np.array_equal(overview.used, rows)


def _fit_sample(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    split: Split,
) -> Sample:
    """Return the cross-validated losses of the fit rows of a fixed split."""
    fit_file = study.fit if split.kind == "fit-file" else None
    own, rows = fit_file or study.evaluation, split.fit
    before = rows_of(fit_file).take(rows) if fit_file else overview.rows.take(rows)
    scores = {UNCALIBRATED: scores_of(own, before, settings)}
    for name, item in fitted.items():
        if item.validated is None:
            scores[name] = replace(scores[UNCALIBRATED], nll=item.ranking)
        else:
            scores[name] = scores_of(own, item.validated, settings)
    return sample_of(own, rows, scores, settings, "cross-fitted")


def _refits(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
) -> Mapping[str, FloatArray]:
    """Return the NLL of every repeated split, of the scores as they are too."""
    found = {
        name: np.array([again.nll for again in item.refits])
        for name, item in fitted.items()
        if item.refits
    }
    if found:
        n = min(values.size for values in found.values())
        found[UNCALIBRATED] = _uncalibrated_refits(study, settings, overview, n)
    return found


def _uncalibrated_refits(
    study: Study, settings: Settings, overview: Overview, n: int
) -> FloatArray:
    """Return the NLL of the scores as they are on the test rows of repeated splits."""
    rows = overview.rows
    assert rows.label_log_probability is not None  # noqa: S101 - class scores, labels
    weight = study.evaluation.sample_weight()
    found = []
    for split in refit_rounds(study, settings, n):
        test = split.test
        mass = None if weight is None else weight[test]
        loss = -rows.label_log_probability[test]
        found.append(float(np.average(loss, weights=mass)))
    return np.array(found)


def _ranking(
    sample: Sample, found: Mapping[str, Mapping[str, Estimate]]
) -> tuple[tuple[str, Estimate, Estimate], ...]:
    """Rank by cross-validated NLL: fit rows only, or the cross-fitted rows."""

    def place(name: str) -> tuple[bool, float, float]:
        nll, brier = found[name]["nll"].value, found[name].get("brier")
        return bool(np.isnan(nll)), nll, 0.0 if brier is None else brier.value

    order = sorted(found, key=place)
    return tuple(
        (name, found[name]["nll"], changes(sample, order[0], name)["nll"])
        for name in order
    )
