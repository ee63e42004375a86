"""What a repair leaves is said in the same words everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from core.analysis import analyze
from core.on_demand import measure_metrics
from core.predictions import Predictions, Study
from core.remaining import remaining_sentence, remaining_tests
from core.settings import Settings
from core.uncertainty import Estimate

SETTINGS = Settings(calibrators=("temperature",), n_resamples=100)


def skewed(n=4000, k=3, seed=0):
    """Return rows that no temperature repairs: two classes wrong in opposite ways."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 1.5
    shift = np.linspace(-0.8, 0.8, k)
    p = np.exp(logits + shift)
    p /= p.sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return 3 * logits, labels


@pytest.mark.parametrize("k", [2, 3])
def test_a_repair_on_average_says_what_is_still_wrong(k) -> None:
    study = Study(Predictions.from_arrays(*skewed(k=k)))
    found = analyze(study, SETTINGS)
    tests = remaining_tests(
        study, SETTINGS, found.overview, found.comparison, found.fitted["temperature"]
    )
    last = list(tests)[-1]
    assert found.remains == remaining_sentence(tests)
    assert found.remains.startswith("Still miscalibrated on 4,000 cross-fitted rows")
    assert last in found.remains
    assert found.to_dict()["remains"] == found.remains
    if k == 3:
        known = measure_metrics(
            study, SETTINGS, found.overview, ("classwise-ece",), found.fitted
        )
        assert tests[last] == known["top-label"]["temperature"]["classwise-ece"]
    else:
        view = found.comparison.views["positive-class"]["temperature"]
        assert tests[last] == view.estimates["ece"]


def test_only_tests_that_reject_are_named() -> None:
    def ece(p_value):
        return Estimate(0.0123, n=1000, p_value=p_value, rows="test")

    assert remaining_sentence({"a": ece(0.06), "b": ece(None)}) == ""
    said = remaining_sentence({"a": ece(0.5), "b": ece(0.004), "c": ece(0.0)})
    assert said == (
        "Still miscalibrated on 1,000 test rows: b (ECE 1.23 points, p = 0.004) and "
        "c (ECE 1.23 points, p < 0.001)."
    )


def test_nothing_remains_without_a_repair() -> None:
    logits, labels = skewed(300)
    study = Study(Predictions.from_arrays(logits, labels))
    found = analyze(study, Settings(n_resamples=100, calibrators=()))
    assert found.remains == ""
