"""Calibrators side by side on the same test rows, ranked by what never saw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
from core.metrics import RowScores, Sample, changes, estimates
from core.predictions import Study
from core.settings import Settings
from core.splitting import Split
from core.uncertainty import Estimate

__all__ = ["Comparison", "compare"]

IndexArray = NDArray[np.int64]

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
    """

    views: Mapping[str, Mapping[str, ViewResult]]
    changes: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    ranking: tuple[tuple[str, Estimate, Estimate], ...]


def compare(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    progress: Progress = no_progress,
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
        known = overview.samples.get(view)
        if known is not None and _is_same_sample(overview, test, known, settings):
            sample = known.extended(added, split.rows)
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
    if is_ranked_apart:
        ranked = _fit_sample(study, settings, overview, fitted, split)
    report = part_of(progress, len(names) / n_steps, 1.0)
    return Comparison(views, moved, _ranking(replace(ranked, metrics=("nll",)), report))


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
    known = scores_of(own, before, settings)
    scores = {UNCALIBRATED: known} | {
        name: RowScores(known.confidence, known.outcome, nll=item.ranking)
        for name, item in fitted.items()
    }
    return sample_of(own, rows, scores, settings, "cross-fitted")


def _ranking(
    sample: Sample, progress: Progress
) -> tuple[tuple[str, Estimate, Estimate], ...]:
    """Rank by cross-validated NLL: fit rows only, or the cross-fitted rows."""
    found = {name: item["nll"] for name, item in estimates(sample, progress).items()}
    order = sorted(
        found, key=lambda name: (np.isnan(found[name].value), found[name].value)
    )
    return tuple(
        (name, found[name], changes(sample, order[0], name)["nll"]) for name in order
    )
