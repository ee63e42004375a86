"""Estimates of every metric on one set of rows, and their changes, resampled alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.binning import mean_outcome
from core.messages import Note, Progress, no_progress, part_of
from core.metrics.base import METRICS, RowScores, one_weighting
from core.metrics.calibration_error import Bins, squared_error_change
from core.metrics.design import Design
from core.metrics.scoring_rules import WeightedMeans
from core.registry import Method
from core.settings import Settings
from core.uncertainty import Estimate, bootstrap, percentile_interval

__all__ = ["Sample", "changes", "estimates"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
Draws = dict[tuple[str, str], FloatArray]

FEW_OUTCOMES = 10  # right or wrong rows below which resamples tell little
FEW_GROUPS = 20
_MEANS = "means"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Several sets of scores on the same rows, drawn together by one bootstrap.

    Parameters
    ----------
    scores : mapping of str to RowScores
        Name (a calibrator's id, say) -> scores; all on the same rows.
    settings : Settings
        `n_bins`, `strategy`, `norm`, `level`, `n_resamples` and `seed`.
    sample_weight : ndarray of shape (n,), optional
    groups : ndarray of int of shape (n,), optional
    rows : {"all", "test", "cross-fitted", "in-sample"}
        Which rows these are.
    metrics : tuple of str, default=()
        Ids of the metrics that are wanted; empty for those of the tier "default".
    """

    scores: Mapping[str, RowScores]
    settings: Settings
    sample_weight: FloatArray | None = None
    groups: IndexArray | None = None
    rows: str = "all"
    metrics: tuple[str, ...] = ()
    _designs: dict[str, Design] = field(default_factory=dict)
    _draws: Draws = field(default_factory=dict)
    _values: dict[tuple[str, str], float] = field(default_factory=dict)

    def bins(self, name: str) -> Bins:
        """Return the rows of one set of scores sorted into bins, made once."""
        return self.design(name).bins(self.scores[name])

    def design(self, name: str) -> Design:
        """Return what distances of one set of scores depend on, made once."""
        if name not in self._designs:
            chosen = self.settings
            self._designs[name] = Design(
                n_bins=chosen.n_bins,
                strategy=chosen.strategy,
                level=chosen.level,
                n_resamples=chosen.n_resamples,
                seed=chosen.seed,
                sample_weight=self.sample_weight,
                groups=self.groups,
            )
        return self._designs[name]

    def methods(self, name: str) -> list[Method]:
        """Return the wanted metrics that these scores allow."""
        return [
            method
            for method in METRICS.values()
            if is_available(method, self.scores[name])
            and (method.id in self.metrics or self._is_offered_at_once(method))
        ]

    def _is_offered_at_once(self, method: Method) -> bool:
        return not self.metrics and method.tier == "default"

    def value(self, name: str, method: Method) -> float:
        """Return a metric of rows without its interval, made once."""
        if (name, method.id) not in self._values:
            statistic = method.traits["statistic"]
            weight = one_weighting(self.sample_weight, self.n)
            if self.sample_weight is None:
                weight = weight.astype(np.float32)  # as counts of the bootstrap are
            self._values[name, method.id] = float(
                statistic(self.scores[name], weight)[0]
            )
        return self._values[name, method.id]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self.scores.values())))

    @property
    def n_units(self) -> float:
        """Rows or groups that the bootstrap draws, by their effective number."""
        return self.design(next(iter(self.scores))).n_units(self.n)

    def n_rare(self, name: str) -> int:
        """Rows with the rarer outcome: how much an interval can rest on."""
        outcome = self.scores[name].outcome
        if self.sample_weight is not None:
            outcome = outcome[self.sample_weight > 0]
        n_right = int(outcome.sum())
        return min(n_right, outcome.size - n_right)

    def accuracy_interval(self, name: str) -> tuple[float, float]:
        """Wilson interval of the mean outcome, by the effective number of rows."""
        _, low, high = mean_outcome(
            self.scores[name].outcome,
            sample_weight=self.sample_weight,
            groups=self.groups,
            level=self.settings.level,
        )
        return low, high

    def extended(self, scores: Mapping[str, RowScores], rows: str) -> Sample:
        """Return a sample with more scores of the same rows; what was made is kept."""
        return replace(
            self,
            scores={**self.scores, **scores},
            rows=rows,
            _designs=dict(self._designs),
            _draws=dict(self._draws),
            _values=dict(self._values),
        )

    def measured_as(self, settings: Settings) -> Sample:
        """Return the same scores under other settings; resamples that hold are kept."""
        is_redrawn = any(
            getattr(self.settings, name) != getattr(settings, name)
            for name in ("n_resamples", "seed")
        )
        draws = {} if is_redrawn else dict(self._draws)
        return replace(self, settings=settings, _designs={}, _draws=draws)

    def resample(self, progress: Progress = no_progress) -> Draws:
        """Return (name, metric id) -> bootstrap draws, made once for all of them."""
        missing = [
            (name, method)
            for name in self.scores
            for method in self.methods(name)
            if method.traits["needs"] == "rows" and (name, method.id) not in self._draws
        ]
        if not missing:
            return self._draws
        # A function that several metrics share is called once; means in one pass.
        columns: dict[tuple[str, str], tuple[Any, int | None]] = {}
        functions: dict[Any, Callable[[FloatArray], FloatArray]] = {}
        means: list[FloatArray] = []
        for name, method in missing:
            scores, traits = self.scores[name], method.traits
            if "values" in traits:
                columns[name, method.id] = _MEANS, len(means)
                means.append(traits["values"](scores))
                continue
            function, column = traits.get("joint", (traits["statistic"], None))
            columns[name, method.id] = (name, function), column
            functions[name, function] = partial(function, scores)
        if means:
            functions[_MEANS] = WeightedMeans(means)
        found = bootstrap(
            functions,
            self.n,
            n_resamples=self.settings.n_resamples,
            seed=self.settings.seed,
            sample_weight=self.sample_weight,
            groups=self.groups,
            progress=progress,
        )
        for key, (function, column) in columns.items():
            draws = found[function]
            self._draws[key] = draws if column is None else draws[:, column]
        return self._draws

    def prepare(self, progress: Progress = no_progress) -> None:
        """Make every resample and simulation that estimates need, and keep them.

        Parameters
        ----------
        progress : callable, optional
            Told the share that is done; may raise `Cancelled`.
        """
        self.resample(part_of(progress, 0.0, 0.6))
        needed = [
            name
            for name in self.scores
            if any(method.traits["needs"] == "bins" for method in self.methods(name))
        ]
        for i, name in enumerate(needed):
            ends = (0.6 + 0.4 * place / len(needed) for place in (i, i + 1))
            self.bins(name).simulate(part_of(progress, *ends))


def is_available(method: Method, scores: RowScores) -> bool:
    """Whether a metric can be computed from these scores."""
    has_field = getattr(scores, method.traits["field"]) is not None
    return has_field and scores.view in method.traits["views"]


def estimates(
    sample: Sample, progress: Progress = no_progress
) -> dict[str, dict[str, Estimate]]:
    """Return name -> metric id -> Estimate, for every metric that can be computed.

    Row metrics have bootstrap intervals (accuracy has Wilson's, the gap one that rests
    on it where few outcomes are right or few wrong); the ECE has a null range and a
    p-value but no interval; the debiased squared error has its closed-form interval.

    Parameters
    ----------
    sample : Sample
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    """
    wanted = [(name, m) for name in sample.scores for m in sample.methods(name)]
    # Each metric of a design simulates for itself, the others draw together.
    alone = [m.id for _, m in wanted if m.traits["needs"] == "design"]
    n_parts = len(alone) + (len(alone) < len(wanted))
    done = n_parts - len(alone)
    sample.prepare(part_of(progress, 0.0, done / max(n_parts, 1)))
    found: dict[str, dict[str, Estimate]] = {name: {} for name in sample.scores}
    for name, method in wanted:
        part: Progress = no_progress
        if method.traits["needs"] == "design":
            part = _named(
                part_of(progress, done / n_parts, (done + 1) / n_parts), method
            )
            done += 1
            part(0.0, "")
        found[name][method.id] = _estimate(method, name, sample, part)
    return found


def _named(progress: Progress, method: Method) -> Progress:
    """Return a progress callback that says which metric is being made."""
    return lambda share, _: progress(share, method.label)


def _estimate(
    method: Method, name: str, sample: Sample, progress: Progress = no_progress
) -> Estimate:
    scores, chosen = sample.scores[name], sample.settings
    statistic = method.traits["statistic"]
    if method.traits["needs"] == "design":
        made: Estimate = statistic(
            scores, replace(sample.design(name), progress=progress)
        )
        return replace(made, rows=sample.rows)
    if method.traits["needs"] == "bins":
        options = {"norm": chosen.norm} if method.id == "ece" else {}
        found: Estimate = statistic(scores, sample.bins(name), **options)
        return replace(found, rows=sample.rows, notes=_bin_notes(sample.bins(name)))
    value = sample.value(name, method)
    if method.id == "accuracy":
        low, high = sample.accuracy_interval(name)
        words = "Wilson interval"
    elif method.id == "gap" and sample.n_rare(name) < FEW_OUTCOMES:
        low, high = _gap_interval(value, name, sample)
        words = "Wilson interval of the outcomes, normal interval of the confidence"
    else:
        low, high = _interval(sample, sample.resample()[name, method.id], value)
        words = _bootstrap_words(sample)
    return Estimate(
        value=value,
        low=None if low != low else low,
        high=None if high != high else high,
        level=chosen.level,
        n=sample.n,
        rows=sample.rows,
        method=words,
        notes=_doubts(method.id, value, name, sample),
    )


def _interval(sample: Sample, draws: FloatArray, value: float) -> tuple[float, float]:
    if not math.isfinite(value):
        return math.nan, math.nan
    return percentile_interval(draws, sample.settings.level, sample.n_units)


def _gap_interval(value: float, name: str, sample: Sample) -> tuple[float, float]:
    """Interval where few outcomes are right, or few wrong: resamples may hold none.

    The distances of both means from their limits, added as if independent (Zou and
    Donner 2008, Statistics in Medicine 27).
    """
    weight = one_weighting(sample.sample_weight, sample.n)[0]
    unit = np.arange(sample.n) if sample.groups is None else sample.groups
    unit = np.unique(unit, return_inverse=True)[1]
    confidence = sample.scores[name].confidence
    centre = float(np.average(confidence, weights=weight))
    sums = np.bincount(unit, weights=weight * (confidence - centre))
    z = float(special.ndtri(0.5 + sample.settings.level / 2))
    half = z * float(np.sqrt(sums @ sums)) / weight.sum()
    low, high = sample.accuracy_interval(name)
    share = centre - value
    return value - math.hypot(high - share, half), value + math.hypot(share - low, half)


def _doubts(metric: str, value: float, name: str, sample: Sample) -> tuple[Note, ...]:
    """Say what makes an estimate rest on little."""
    if value != value:
        text = "All rows are right or all are wrong: there is nothing to compare."
        return (Note("one-outcome", "warning", text),)
    if math.isinf(value):
        text = "Some labels have probability 0, so that the mean is infinite."
        return (Note("impossible-label", "warning", text),)
    notes: tuple[Note, ...] = ()
    if sample.groups is not None and sample.n_units < FEW_GROUPS:
        n_groups = np.unique(sample.groups).size
        text = f"Few groups ({n_groups}): intervals are rough."
        notes += (Note("few-groups", "warning", text),)
    rare = sample.n_rare(name)
    if metric != "accuracy" and rare < FEW_OUTCOMES:
        text = f"Few outcomes differ from the rest ({rare}): intervals are rough."
        notes += (Note("few-outcomes", "warning", text),)
    return notes


def changes(sample: Sample, before: str, after: str) -> dict[str, Estimate]:
    """Return metric id -> Estimate of (after minus before), paired on the same rows.

    The ECE has no valid interval of its own; its change carries none. The change of
    the debiased squared error has a closed form.
    """
    found = {}
    for method in sample.methods(after):
        if method.id == "l2":
            found["l2"] = squared_error_change(sample.bins(before), sample.bins(after))
            found["l2"] = replace(found["l2"], rows=sample.rows)
            continue
        if method.traits["needs"] != "rows":
            ends = [_point(method, sample, key) for key in (before, after)]
            found[method.id] = Estimate(
                value=ends[1] - ends[0],
                level=sample.settings.level,
                n=sample.n,
                rows=sample.rows,
                method="a plug-in distance: no interval is valid",
            )
            continue
        found[method.id] = _paired(method, sample, before, after)
    return found


def _point(method: Method, sample: Sample, name: str) -> float:
    """Return the value of a metric of bins, or of a design, without its null."""
    if method.traits["needs"] == "bins":
        return sample.bins(name).statistics.error(sample.settings.norm)
    return float(method.traits["point"](sample.scores[name], sample.design(name)))


def _paired(method: Method, sample: Sample, before: str, after: str) -> Estimate:
    values = [sample.value(name, method) for name in (before, after)]
    draws = sample.resample()
    with np.errstate(invalid="ignore"):
        difference = draws[after, method.id] - draws[before, method.id]
    low, high = _interval(sample, difference, values[1] - values[0])
    return Estimate(
        value=values[1] - values[0],
        low=None if low != low else low,
        high=None if high != high else high,
        level=sample.settings.level,
        n=sample.n,
        rows=sample.rows,
        method="paired " + _bootstrap_words(sample),
    )


def _bootstrap_words(sample: Sample) -> str:
    unit = "rows" if sample.groups is None else "groups"
    chosen = sample.settings
    return f"bootstrap of {unit}, {chosen.n_resamples:,} resamples, seed {chosen.seed}"


def _bin_notes(bins: Bins) -> tuple[Note, ...]:
    n_thin = int(bins.statistics.is_thin.sum())
    if not n_thin:
        return ()
    smallest = int(bins.statistics.count[bins.statistics.is_thin].min())
    text = f"Bins with fewer than 10 rows: {n_thin}; the smallest has {smallest}."
    return (Note("thin-bins", "info", text),)
