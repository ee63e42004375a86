"""Metrics and calibrators of the samples against slow, independent computations.

golden/samples.json is written by golden/make_samples.py, which uses nothing of `core`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.calibrators import CALIBRATORS
from core.loading import read_study
from core.metrics import METRICS
from core.settings import Settings
from core.softmax import softmax

STORED = json.loads(
    (Path(__file__).parent / "golden" / "samples.json").read_text(encoding="utf-8")
)
# The twin sums Gaussians over the rows, the metric over a grid, to 1e-4.
LOOSE = {"smooth-ece": {"abs": 1e-4}, "best-temperature": {"rel": 1e-6}}
VALUES = [
    (file, view, metric)
    for file, parts in STORED.items()
    for view, values in parts["metrics"].items()
    for metric in values
]


@pytest.fixture(scope="module")
def samples(root):
    return {
        file: read_study(root / "sample_data" / f"{file}.csv", Settings()).evaluation
        for file in STORED
    }


@pytest.mark.parametrize(("file", "view", "metric"), VALUES)
def test_metrics_of_the_samples(samples, file, view, metric):
    own = samples[file]
    options = {}
    name, _, is_weighted = view.partition(", weights")
    if is_weighted:
        options["sample_weight"] = 1.0 + np.arange(len(own)) % 3
    if "positive-class" in METRICS[metric].traits["views"]:
        options["view"] = name
    found = METRICS[metric](own.labels, softmax(own.logits), **options)
    tolerance = LOOSE.get(metric, {"rel": 1e-9, "abs": 1e-13})
    assert found == pytest.approx(STORED[file]["metrics"][view][metric], **tolerance)


def test_every_metric_of_the_second_tier_is_there():
    more = {name for name, item in METRICS.items() if item.tier == "more"}
    for parts in STORED.values():
        # relplot's own number: golden/make_peers.py, test_peers.py.
        assert set(parts["metrics"]["top-label"]) == more - {"smooth-ece-relplot"}


@pytest.mark.parametrize("file", STORED)
@pytest.mark.parametrize("method", ["platt", "beta", "histogram", "vector"])
def test_calibrators_of_the_samples(samples, file, method):
    own = samples[file]
    is_fit = (own.column("split") == "calibration").to_numpy()
    fit = CALIBRATORS[method]().fit(own.logits[is_fit], own.labels[is_fit])
    expected = np.array(STORED[file]["calibrators"][method])
    found = fit.predict_proba(own.logits[~is_fit][: len(expected)])
    tolerance = 1e-12 if method == "histogram" else 2e-7
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
