"""Would more labels help? The loss of held-out rows over the number of fit rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.calibrators import CALIBRATORS
from core.fitting import Maker, fit_source, inner_split
from core.messages import FitError, Progress, no_progress, part_of
from core.predictions import Study
from core.settings import Settings
from core.splitting import Round, Split, make_split
from core.uncertainty import Estimate

__all__ = ["LearningCurve", "learning_curves"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_FEWEST = 40  # fit rows of the smallest fit
_MOST_SIZES = 6
_MOST_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class LearningCurve:
    """The held-out NLL of one method over the number of rows that it was fitted on.

    Parameters
    ----------
    method : str
        Id of the calibrator.
    sizes : ndarray of int64 of shape (m,)
        Mean number of fit rows, ascending: each twice the one before.
    nll : ndarray of shape (m,)
        Mean NLL of rows that no fit saw; the same rows at every size.
    low, high : ndarray of shape (m,)
        Interval of the NLL over those rows.
    gain : Estimate
        How much the last doubling lowered the NLL, paired on the same rows.
    """

    method: str
    sizes: IndexArray
    nll: FloatArray
    low: FloatArray
    high: FloatArray
    gain: Estimate

    @property
    def expected_gain(self) -> float:
        """What another doubling would bring if the excess loss falls as 1/n: half."""
        return max(self.gain.value, 0.0) / 2

    @property
    def sentence(self) -> str:
        """Whether more labels would help, in a sentence."""
        label, gain = CALIBRATORS[self.method].label, self.gain
        if gain.low is None or gain.low <= 0:
            return (
                f"{label}: no gain from the last doubling of the fit rows is "
                "detectable; more labels would hardly help."
            )
        return (
            f"{label}: the last doubling of the fit rows lowered the NLL by "
            f"{gain.value:.4f} ({gain.low:.4f} to {gain.high:.4f}); twice as many "
            f"would bring about {self.expected_gain:.4f} more."
        )


def learning_curves(
    study: Study,
    settings: Settings,
    methods: Sequence[str],
    progress: Progress = no_progress,
) -> dict[str, LearningCurve]:
    """Return method -> held-out NLL over the number of fit rows.

    Everything happens inside the fit rows of the split: they are cross-validated, and
    each fit is repeated on halves, quarters, ... of its rows (whole groups, drawn once
    for all methods). The test rows are not read.

    Parameters
    ----------
    study : Study
    settings : Settings
    methods : sequence of str
        Ids of calibrators that can be fitted on this study.
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.

    Raises
    ------
    FitError
        If the fit rows cannot be divided.
    """
    split = make_split(study, settings)
    source, rows = fit_source(study, split), split.fit
    names = list(dict.fromkeys(CALIBRATORS[name].id for name in methods))
    found = {}
    for number, name in enumerate(names):
        maker = Maker(study, source, settings, name)
        few = settings.replace(n_folds=min(settings.n_folds, _MOST_FOLDS))
        inner = inner_split(source, rows, maker, few)
        if inner is None:
            raise FitError(
                "The fit rows are too few to be divided.",
                source.name,
                "Give more labelled rows, or groups.",
            )
        report = part_of(progress, number / len(names), (number + 1) / len(names))
        found[name] = _curve(name, maker, inner, few, report)
    return found


def _curve(
    name: str, maker: Maker, inner: Split, settings: Settings, progress: Progress
) -> LearningCurve:
    smallest = min(round_.fit.size for round_ in inner.rounds)
    n_sizes = 1
    while n_sizes < _MOST_SIZES and smallest / 2**n_sizes >= _FEWEST:
        n_sizes += 1
    losses: list[list[FloatArray]] = [[] for _ in range(n_sizes)]
    counts = np.zeros(n_sizes)
    tested: list[IndexArray] = []
    n_steps, done = len(inner.rounds) * n_sizes, 0
    for number, round_ in enumerate(inner.rounds):
        tested.append(round_.test)
        order = _shuffled(round_, maker, settings.seed + number)
        for place in range(n_sizes):
            report = part_of(progress, done / n_steps, (done + 1) / n_steps)
            some = _first_units(round_.fit, order, 0.5 ** (n_sizes - 1 - place))
            fitted = maker.fit(some, report)
            measured = maker.tested(fitted, round_.test).label_log_probability
            assert measured is not None  # noqa: S101 - labelled rows
            losses[place].append(-measured)
            counts[place] += some.size / len(inner.rounds)
            done += 1
    every = np.concatenate(tested)
    table = np.stack([np.concatenate(parts) for parts in losses])
    means, errors, n_units = _means(table, every, maker)
    quantile = float(special.stdtrit(max(n_units - 1, 1), 0.5 + settings.level / 2))
    last = table[-2] - table[-1] if n_sizes > 1 else np.zeros(every.size)
    step, error, _ = _means(last[None], every, maker)
    half = quantile * float(error[0])
    gain = Estimate(
        value=float(step[0]),
        low=float(step[0]) - half if n_sizes > 1 and math.isfinite(half) else None,
        high=float(step[0]) + half if n_sizes > 1 and math.isfinite(half) else None,
        level=settings.level,
        n=every.size,
        rows="cross-fitted",
        method="paired differences of rows, Student's t",
    )
    return LearningCurve(
        method=name,
        sizes=np.round(counts).astype(np.int64),
        nll=means,
        low=means - quantile * errors,
        high=means + quantile * errors,
        gain=gain,
    )


def _shuffled(round_: Round, maker: Maker, seed: int) -> IndexArray:
    """Return the place in a random order of each fit row's group, or of the row."""
    codes = maker.groups
    units = np.arange(round_.fit.size)
    if codes is not None:
        units = np.unique(codes[round_.fit], return_inverse=True)[1]
    places = np.random.default_rng(seed).permutation(int(units.max()) + 1)
    return np.asarray(places[units])


def _first_units(rows: IndexArray, place: IndexArray, share: float) -> IndexArray:
    """Return the rows of the first groups that hold a share of all rows."""
    if share >= 1:
        return rows
    size = np.bincount(place)
    last = int(np.searchsorted(np.cumsum(size), share * rows.size)) + 1
    return rows[place < last]


def _means(
    table: FloatArray, rows: IndexArray, maker: Maker
) -> tuple[FloatArray, FloatArray, int]:
    """Return weighted means of each line, their standard errors, and units."""
    weight = np.ones(rows.size) if maker.weight is None else maker.weight[rows]
    share = weight / weight.sum()
    means = table @ share
    with np.errstate(invalid="ignore"):
        sums = share * (table - means[:, None])
    n = rows.size
    if maker.groups is not None:
        unit = np.unique(maker.groups[rows], return_inverse=True)[1]
        n = int(unit.max()) + 1
        sums = np.stack([np.bincount(unit, line, n) for line in sums])
    errors = np.sqrt((sums**2).sum(axis=1) * n / max(n - 1, 1))
    return means, errors, n
