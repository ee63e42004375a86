"""The fit of a temperature against scikit-learn, probmetrics and torch's L-BFGS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.side_by_side import Report, medians
from sklearn.calibration import _TemperatureScaling

from core.calibrators import TemperatureScaling
from core.softmax import temperature_objective

pytestmark = pytest.mark.benchmark

# rows, classes: at least so many times as fast as scikit-learn, probmetrics and torch
BARS = {(25_000, 1_000): (80.0, 60.0, 200.0), (5_000, 100): (30.0, 10.0, 20.0)}


def lbfgs(torch: Any, z: Any, y: Any) -> float:
    """Fit log T as the usual snippet does, to a gradient of 1e-8.

    In double precision: single precision does not reach it.
    """
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_t],
        max_iter=100,
        tolerance_grad=1e-8,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Any:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(z / log_t.exp(), y)
        value.backward()
        return value

    optimizer.step(loss)
    return float(log_t.detach().exp())


@pytest.mark.parametrize("shape", BARS, ids=lambda s: f"{s[0]:,} x {s[1]:,}")
def test_temperature_fit(report: Report, torch: Any, shape: tuple[int, int]) -> None:
    probmetrics = pytest.importorskip("probmetrics.calibrators")
    distributions = pytest.importorskip("probmetrics.distributions")
    rng = np.random.default_rng(0)
    z = rng.standard_normal(shape, np.float32) * 4
    y = (z * 0.5 + rng.gumbel(size=shape).astype(np.float32)).argmax(axis=1)
    theirs, labels = torch.from_numpy(z), torch.from_numpy(y)
    found = TemperatureScaling().fit(z, y).temperature_

    def probmetrics_fit() -> Any:
        calibrator = probmetrics.TemperatureScalingCalibrator()
        logits = distributions.CategoricalLogits(theirs)
        return calibrator.fit_torch(logits, labels)

    slope = temperature_objective(z, y, 1 / found).slope
    assert abs(slope.mean()) <= 1e-8
    peers = {
        "scikit-learn": lambda: _TemperatureScaling().fit(z, y),
        "probmetrics": probmetrics_fit,
        "torch L-BFGS": lambda: lbfgs(torch, theirs.double(), labels),
    }
    assert found == pytest.approx(1 / peers["scikit-learn"]().beta_, rel=1e-3)
    assert found == pytest.approx(peers["torch L-BFGS"](), rel=1e-6)
    missed = []
    for (name, peer), bar in zip(peers.items(), BARS[shape], strict=True):
        ours, other = medians(lambda: TemperatureScaling().fit(z, y), peer, runs=7)
        work = f"temperature fit {shape[0]:,} x {shape[1]:,}"
        if report.line(work, ours, name, other, bar) < bar:
            missed.append(name)
    assert not missed
