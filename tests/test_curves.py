"""Reliability curves without bins, against slow twins and calibrated models."""

from __future__ import annotations

import re

import numpy as np
import pytest

from core.messages import Cancelled
from core.metrics import (
    CURVES,
    METRICS,
    Design,
    RowScores,
    smooth_reliability_curve,
)

WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def weights(n, weighted):
    return np.random.default_rng(2).gamma(1.0, size=n) if weighted else None


def slow_curve(c, o, w, width, t):
    """Average residuals by kernels that end at one half and reflect at 0 and 1."""
    found = []
    for point in t:
        bump = np.zeros_like(c)
        for place in (c, -c, 2 - c):
            distance = np.abs(point - place)
            bump += np.exp(-0.5 * (distance / width) ** 2) * (distance <= 0.5)
        found.append(point + (w * bump * (o - c)).sum() / (w * bump).sum())
    return np.clip(found, 0, 1)


@pytest.mark.parametrize("saturated", [False, True])
@WEIGHTED
def test_smooth_curve_is_the_slow_twin_as_wide_as_the_error(saturated, weighted):
    rng = np.random.default_rng(16)
    c = np.round(1024 * rng.beta(4, 2, 300)) / 1024  # on the grid: nothing is shared
    if saturated:
        c[:100] = 1.0
    o = (rng.random(300) < c**2).astype(float)
    w = weights(300, weighted)
    design = Design(n_resamples=200, sample_weight=w)
    curve = smooth_reliability_curve(RowScores(c, o), design)
    width = float(re.search(r"width ([\d.]+),", curve.method)[1])
    error = METRICS["smooth-ece"].traits["point"](RowScores(c, o), design)
    assert width == pytest.approx(error, abs=2e-4)
    mass = np.ones(300) if w is None else w
    expected = slow_curve(c, o, mass, width, curve.x)
    assert curve.y == pytest.approx(expected, abs=5e-4)
    assert (curve.x[0], curve.x[-1]) == (c.min(), c.max())
    # Overconfident: the curve leaves the band of calibrated models, on its low side.
    outside = curve.y < curve.low
    assert outside.mean() > 0.5
    assert not (curve.y > curve.high).any()


def test_smooth_band_holds_the_curve_of_a_calibrated_model():
    rng = np.random.default_rng(17)
    inside = []
    for _ in range(20):
        c = rng.beta(5, 2, 1000)
        o = (rng.random(1000) < c).astype(float)
        curve = smooth_reliability_curve(
            RowScores(c, o), Design(n_resamples=200), level=0.9
        )
        inside.append(((curve.low <= curve.y) & (curve.y <= curve.high)).mean())
    assert 0.8 < np.mean(inside) <= 1.0


def test_curves_leave_out_what_no_row_is_near_and_bear_one_row():
    rng = np.random.default_rng(18)
    c = np.r_[rng.uniform(0.0, 0.02, 4000), rng.uniform(0.98, 1.0, 4000)]
    o = (rng.random(8000) < c).astype(float)
    curve = smooth_reliability_curve(RowScores(c, o), Design(n_resamples=100))
    assert not ((curve.x > 0.2) & (curve.x < 0.8)).any()
    for values in (curve.y, curve.low, curve.high):
        assert np.isfinite(values).all()
    one = RowScores(np.array([0.37]), np.array([1.0]))
    for kind in CURVES.values():
        found = kind(one, Design(n_resamples=100))
        assert found.n == 1
        assert np.isfinite(found.y).all()
        assert found.x.size >= 1


@pytest.mark.parametrize("kind", list(CURVES))
def test_curves_tell_progress_and_can_be_stopped(kind):
    rng = np.random.default_rng(19)
    c = rng.random(20_000)
    scores = RowScores(c, (rng.random(c.size) < c).astype(float))
    seen = []
    CURVES[kind](scores, Design(progress=lambda share, _: seen.append(share)))
    assert len(seen) > 3
    assert seen == sorted(seen)

    def stop(share, _):
        if share > 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        CURVES[kind](scores, Design(progress=stop))
