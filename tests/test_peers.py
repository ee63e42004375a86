"""Numbers of other libraries, stored with the script that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.calibrators import TemperatureScaling
from core.metrics import expected_calibration_error, negative_log_likelihood
from core.softmax import softmax

STORED = json.loads(
    (Path(__file__).parent / "golden" / "peers.json").read_text(encoding="utf-8")
)
VALUES: dict[str, float] = STORED["values"]


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    return np.array(STORED["logits"]), np.array(STORED["labels"])


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_ece_of_torchmetrics(rows: tuple[Any, Any], norm: str) -> None:
    # No confidence is exactly 1 or on an edge, where its bins differ.
    found = expected_calibration_error(rows[1], softmax(rows[0]), norm=norm)
    # torchmetrics sums in float32.
    assert found == pytest.approx(VALUES[f"torchmetrics_ece_15_{norm}"], rel=2e-6)


@pytest.mark.parametrize(("norm", "name"), [("l1", "ece"), ("max", "mce")])
def test_ece_of_netcal(rows: tuple[Any, Any], norm: str, name: str) -> None:
    found = expected_calibration_error(
        rows[1], softmax(rows[0]), norm=norm, closed="left"
    )
    assert found == pytest.approx(VALUES[f"netcal_{name}_15"], rel=1e-6)


def test_nll_and_temperature_of_torch(rows: tuple[Any, Any]) -> None:
    logits, labels = rows
    found = negative_log_likelihood(labels, softmax(logits))
    assert found == pytest.approx(VALUES["torch_cross_entropy"], rel=1e-12)
    fit = TemperatureScaling().fit(logits, labels)
    assert fit.temperature_ == pytest.approx(VALUES["torch_temperature"], rel=1e-6)
    best = VALUES["torch_nll_at_temperature"]
    assert fit.nll_after_ == pytest.approx(best, rel=1e-12)
    assert fit.nll_after_ <= best + 1e-15
