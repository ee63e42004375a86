"""Statistical truth of the metrics of the tier "more" (`make test-slow`).

The same designs as in `test_simulated_truth`: independent rows, groups of ten rows,
and weights that depend on the confidence; scores as they are or logits times 1.6.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats
from test_simulated_truth import DESIGNS, DISTORTION, N_BINS, K, draw

from core.binning import assign_bins, bin_edges
from core.metrics import (
    METRICS,
    Design,
    Sample,
    estimates,
    reliability_curve,
    scores_from_probabilities,
)
from core.metrics.corp import isotonic_fits
from core.settings import Settings
from core.softmax import softmax

pytestmark = pytest.mark.slow

REPETITIONS, N = 500, 1000
SETTINGS = Settings(n_resamples=200, n_bins=N_BINS)
DISTANCES = (
    "rmsce",
    "mce",
    "ace",
    "ks",
    "smooth-ece",
    "smooth-ece-relplot",
    "brier-mcb",
    "log-mcb",
    "brier-reliability",
    "classwise-ece",
    "classwise-l2",
)
INTERVALS = (
    "classwise-l2",
    "brier-dsc",
    "brier-unc",
    "log-dsc",
    "log-unc",
    "brier-resolution",
    "brier-uncertainty",
    "brier-within-variance",
    "brier-within-covariance",
    "sharpness",
    "entropy",
    "e-aurc",
    "best-temperature",
)


def population(z, p, weight, distortion):
    """Return the values when outcomes follow p."""
    q = softmax(z * distortion)
    n = len(q)
    share = np.full(n, 1 / n) if weight is None else weight / weight.sum()
    c, right = q.max(axis=1), p[np.arange(n), q.argmax(axis=1)]
    edges = bin_edges(c, N_BINS, "uniform")

    def means(index, values):
        mass = np.bincount(index, share, N_BINS)
        return mass, np.bincount(index, share * values, N_BINS) / np.maximum(mass, 1e-9)

    square = 0.0
    for k in range(K):
        mass, gap = means(assign_bins(q[:, k], edges), q[:, k] - p[:, k])
        square += mass @ gap**2 / K
    index = assign_bins(c, edges)
    mass, accuracy = means(index, right)
    _, mean = means(index, c)
    rate = share @ right
    order = np.argsort(c)
    weights, hits = share[order][None, :], (share * right)[order][None, :]
    x = isotonic_fits(c[order], weights, hits, c[order])[0]
    plain = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    fit = -(weights[0] @ (x * np.log(x) + (1 - x) * np.log1p(-x)))
    back = order[::-1]
    wrong = np.cumsum((share * (1 - right))[back]) / np.cumsum(share[back])
    return {
        "classwise-l2": square,
        "brier-dsc": weights[0] @ (x - rate) ** 2,
        "brier-unc": rate * (1 - rate),
        "log-dsc": plain - fit,
        "log-unc": plain,
        "brier-resolution": mass @ (accuracy - rate) ** 2,
        "brier-uncertainty": rate * (1 - rate),
        "brier-within-variance": mass @ (means(index, c * c)[1] - mean**2),
        "brier-within-covariance": mass
        @ (means(index, c * right)[1] - mean * accuracy),
        "sharpness": share @ (c - share @ c) ** 2,
        "entropy": -(share @ (q * np.log(q)).sum(axis=1)),
        "e-aurc": share[back] @ wrong - (1 - rate + rate * np.log(rate)),
        "best-temperature": distortion,
    }


@cache
def simulate(design, distortion):
    """Return the coverage of every interval and the p-values."""
    rng = np.random.default_rng(20)
    parts = [draw(rng, 50_000, design) for _ in range(10)]
    z, p = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    weight = None
    if design == "weights":
        weight = np.concatenate([part[4] for part in parts])
    truth = population(z, p, weight, distortion)
    hits = dict.fromkeys(INTERVALS, 0)
    p_values = {name: [] for name in DISTANCES}
    inside = []
    for repetition in range(REPETITIONS):
        rng = np.random.default_rng([22, repetition])
        z, y, _, groups, weight = draw(rng, N, design)
        scores = scores_from_probabilities(y, softmax(z * distortion))
        settings = SETTINGS.replace(seed=repetition)
        sample = Sample(
            {"a": scores},
            settings,
            sample_weight=weight,
            groups=groups,
            metrics=(*DISTANCES, *INTERVALS),
        )
        found = estimates(sample)["a"]
        for name in INTERVALS:
            hits[name] += found[name].low <= truth[name] <= found[name].high
        for name in DISTANCES:
            p_values[name].append(found[name].p_value)
        curve = reliability_curve(
            scores,
            Design(
                n_resamples=200, seed=repetition, sample_weight=weight, groups=groups
            ),
        )
        middle = np.searchsorted(curve.x, np.quantile(scores.confidence, [0.3, 0.7]))
        inside.append(
            (curve.low[middle] <= curve.y[middle])
            & (curve.y[middle] <= curve.high[middle])
        )
    covered = {name: count / REPETITIONS for name, count in hits.items()}
    return covered, p_values, float(np.mean(inside))


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_when_miscalibrated(design, name):
    assert 0.93 <= simulate(design, DISTORTION)[0][name] <= 0.975


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_when_calibrated(design, name):
    assert simulate(design, 1.0)[0][name] >= 0.93


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("design", DESIGNS)
def test_p_values_are_uniform_when_calibrated(design, name):
    values = np.array(simulate(design, 1.0)[1][name])
    assert (values < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert stats.kstest(values, "uniform").pvalue > 0.001


@pytest.mark.parametrize("design", DESIGNS)
def test_consistency_bands_hold_calibrated_curves(design):
    assert simulate(design, 1.0)[2] == pytest.approx(0.9, abs=0.03)


def test_every_metric_with_an_interval_or_a_null_is_simulated():
    more = {name for name, item in METRICS.items() if item.tier == "more"}
    assert more == {*DISTANCES, *INTERVALS}
