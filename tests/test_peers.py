"""Numbers of other libraries, stored with the script that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.calibrators import TemperatureScaling
from core.loading import read_predictions
from core.metrics import (
    METRICS,
    expected_calibration_error,
    negative_log_likelihood,
)
from core.softmax import softmax

STORED = json.loads(
    (Path(__file__).parent / "golden" / "peers.json").read_text(encoding="utf-8")
)
VALUES: dict[str, float] = STORED["values"]
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in STORED["presets"]}
every_case = pytest.mark.parametrize("name", CASES)


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


# ------------------------------------------------------------ more of the same rows


@pytest.fixture(scope="module")
def inputs(root: Path) -> dict[str, tuple[Any, Any]]:
    """Return labels and probabilities of every case."""
    found = {}
    for name, case in CASES.items():
        if "file" in case:
            own = read_predictions(root / "sample_data" / f"{name}.csv")
            found[name] = own.labels, softmax(own.logits)
        else:
            found[name] = np.array(case["y"]), np.array(case["p"])
    return found


@every_case
def test_decompositions_of_model_diagnostics(
    name: str, inputs: dict[str, tuple[Any, Any]]
) -> None:
    y, p = inputs[name]
    view = "positive-class" if p.shape[1] == 2 else "top-label"
    for key, value in CASES[name]["model-diagnostics"].items():
        metric = key.removesuffix(", weights")
        weight = None if key == metric else 1.0 + np.arange(len(y)) % 3
        found = METRICS[metric](y, p, view=view, sample_weight=weight)
        if value is None:
            # Its isotonic fit (scikit-learn's) interpolates between probabilities
            # so close to 0 that the slope is infinite: NaN. A fit has no need to.
            assert name == "breast_cancer_binary"
            assert np.isfinite(found)
        else:
            # In our log loss confidences have 12 decimals and 0 and 1 are 1e-12 off.
            tolerance = {"abs": 1e-10} if "log" in key else {"rel": 1e-9, "abs": 1e-13}
            assert found == pytest.approx(value, **tolerance), key


def sorted_parts(p: Any, y: Any) -> tuple[Any, Any]:
    """Return confidences and correctness by rising confidence, in float32."""
    top = p.max(axis=1).astype(np.float32)
    order = np.argsort(top, kind="stable")
    return top[order].astype(float), (p.argmax(axis=1) == y)[order].astype(float)


@every_case
def test_ace_of_torch_uncertainty(
    name: str, inputs: dict[str, tuple[Any, Any]]
) -> None:
    y, p = inputs[name]
    value = CASES[name]["torch-uncertainty"]["ace"]
    ours = METRICS["ace"](y, p)
    has_ties = np.unique(np.round(p.max(axis=1), 12)).size < len(y)
    if not has_ties and len(y) % 15 == 0:
        assert ours == pytest.approx(value, rel=2e-6)
        return
    # It cuts between equal confidences, in an order that no one sees, and weighs bins
    # by their rows. Without ties the cuts are ours.
    cuts = [np.array_split(part, 15) for part in sorted_parts(p, y)]
    gaps = [abs(c.mean() - o.mean()) * c.size for c, o in zip(*cuts, strict=True)]
    tolerance = 5e-6 if not has_ties else 0.05
    assert sum(gaps) / len(y) == pytest.approx(value, abs=tolerance)
    assert ours != pytest.approx(value, rel=1e-6)


@every_case
def test_classwise_ece_of_torch_uncertainty(
    name: str, inputs: dict[str, tuple[Any, Any]]
) -> None:
    y, p = inputs[name]
    value = CASES[name]["torch-uncertainty"]["classwise-ece"]
    # Classes are binned as by torchmetrics: [lo, hi), with exactly 1 on its own.
    edges = np.linspace(0.0, 1.0, 16)
    total = 0.0
    for k in range(p.shape[1]):
        place = np.searchsorted(edges, p[:, k], side="right") - 1
        total += np.abs(np.bincount(place, p[:, k] - (y == k), 16)).sum()
    closed_left = total / p.shape[1] / len(y)
    ours = METRICS["classwise-ece"](y, p)
    if name.startswith(("distinct", "digits")):
        assert ours == pytest.approx(value, rel=1e-9)
    # Values on an edge: torch.linspace rounds some edges to another last digit.
    n_on_edge = int((np.abs(p[..., None] - edges) < 1e-12).sum())
    assert closed_left == pytest.approx(value, abs=1e-9 + n_on_edge / p.size / 15)


@every_case
def test_aurc_of_torch_uncertainty(
    name: str, inputs: dict[str, tuple[Any, Any]]
) -> None:
    y, p = inputs[name]
    value = CASES[name]["torch-uncertainty"]["aurc"]
    correct = sorted_parts(p, y)[1][::-1]
    risks = np.cumsum(1 - correct) / np.arange(1, len(y) + 1)
    has_ties = np.unique(p.max(axis=1)).size < len(y)
    if not has_ties:
        # The trapezoid rule from 1 / n to 1, scaled up; ours is the mean risk.
        theirs = (risks.sum() - (risks[0] + risks[-1]) / 2) / (len(y) - 1)
        assert theirs == pytest.approx(value, rel=1e-5)
        assert METRICS["aurc"](y, p) == pytest.approx(risks.mean(), rel=1e-9)
    # Half of the first and of the last risk, and the order among ties.
    assert METRICS["aurc"](y, p) == pytest.approx(value, abs=0.05)


@every_case
def test_smooth_ece_of_torch_uncertainty_and_probmetrics(
    name: str, inputs: dict[str, tuple[Any, Any]]
) -> None:
    y, p = inputs[name]
    view = "positive-class" if p.shape[1] == 2 else "top-label"
    ours = METRICS["smooth-ece-relplot"](y, p, view=view)
    assert ours == pytest.approx(CASES[name]["probmetrics"]["smece"], rel=1e-6)
    value = CASES[name]["torch-uncertainty"]["smooth-ece"]
    # It looks at the prediction for two classes as well; float32.
    top = METRICS["smooth-ece-relplot"](y, p)
    assert top == pytest.approx(value, rel=1e-4)


@every_case
def test_brier_and_binned_errors_of_probmetrics(
    name: str, inputs: dict[str, tuple[Any, Any]]
) -> None:
    y, p = inputs[name]
    values = CASES[name]["probmetrics"]
    # It sums over both of two classes, which doubles ours (and scikit-learn's).
    double = 2.0 if p.shape[1] == 2 else 1.0
    assert double * METRICS["brier"](y, p) == pytest.approx(values["brier"], rel=1e-9)
    # It keeps probabilities 1e-7 off 0 and 1 and rescales rows, then calls
    # torchmetrics: rows at exactly 1 are in the last bin, as in ours.
    kept = np.clip(p, 1e-7, 1 - 1e-7)
    kept /= kept.sum(axis=1, keepdims=True)
    c, o = kept.max(axis=1), (p.argmax(axis=1) == y).astype(float)
    if p.shape[1] == 2:
        c, o = kept[:, 1], (y == 1).astype(float)
    kind = np.float32 if p.shape[1] > 2 else np.float64
    edges = np.linspace(0, 1, 16).astype(kind)
    if (np.abs(c[:, None] - edges) < 1e-6).any(axis=1).mean() > 0.01:
        return  # the last digit of torch's edges decides the bins
    place = np.searchsorted(edges, c.astype(kind), side="right") - 1
    count = np.bincount(place, minlength=16)
    gaps = np.abs(np.bincount(place, c - o, 16)) / np.maximum(count, 1)
    share = count / len(y)
    assert share @ gaps == pytest.approx(values["ece-15"], abs=2e-6)
    assert np.sqrt(share @ gaps**2) == pytest.approx(values["rmsce-15"], abs=2e-6)
    assert gaps.max() == pytest.approx(values["mce-15"], abs=2e-6)
