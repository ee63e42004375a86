"""Metrics against their usual implementations, and against the clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.side_by_side import Report, medians

from core.binning import bin_statistics
from core.metrics import METRICS, RowScores, Sample, changes, estimates
from core.metrics.base import scores_from_probabilities
from core.settings import Settings
from core.softmax import softmax

pytestmark = pytest.mark.benchmark


def by_bincount(confidence: Any, correct: Any) -> float:
    """ECE of 15 bins as it is usually written in NumPy."""
    index = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    n = np.bincount(index, minlength=15)
    gap = np.bincount(index, confidence, 15) - np.bincount(index, correct, 15)
    return float(np.abs(gap[n > 0]).sum() / len(confidence))


def test_ece_of_a_million_confidences(report: Report, torch: Any) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    netcal = pytest.importorskip("netcal.metrics")
    rng = np.random.default_rng(0)
    confidence = rng.beta(4, 1.5, 1_000_000)
    correct = (rng.random(1_000_000) < confidence).astype(float)
    theirs = torch.from_numpy(confidence)
    target = torch.from_numpy(correct.astype(np.int64))
    integers = correct.astype(int)

    def ours() -> float:
        return bin_statistics(confidence, correct, n_bins=15).error("l1")

    peers = {
        "NumPy, bincount": (lambda: by_bincount(confidence, correct), 3.0),
        "torchmetrics": (
            lambda: functional.binary_calibration_error(theirs, target, n_bins=15),
            5.0,
        ),
        "netcal": (lambda: netcal.ECE(15).measure(confidence, integers), 5.0),
    }
    missed = []
    for name, (peer, bar) in peers.items():
        assert float(peer()) == pytest.approx(ours(), abs=1e-6)
        mine, other = medians(ours, peer, runs=21)
        if report.line("ECE, 1,000,000 confidences", mine, name, other, bar) < bar:
            missed.append(name)
    assert not missed


def scores(seed: int) -> RowScores:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1.5, 10_000)
    outcome = (np.random.default_rng(0).random(10_000) < confidence).astype(float)
    entropy = -confidence * np.log(confidence)
    return RowScores(
        confidence,
        outcome,
        nll=-np.log(np.where(outcome > 0, confidence, 1 - confidence)),
        brier=(confidence - outcome) ** 2,
        entropy=entropy,
    )


def test_every_row_metric(report: Report) -> None:
    rows = tuple(name for name, m in METRICS.items() if m.traits["needs"] != "design")
    before, after = scores(0), scores(0)

    def ours() -> None:
        sample = Sample({"a": before, "b": after}, Settings(), metrics=rows)
        estimates(sample)
        changes(sample, "a", "b")

    work = f"{len(rows)} row metrics, before, after and change, 1,000 resamples, nulls"
    assert report.within(f"{work}, 10,000 rows", medians(ours, runs=5)[0], 1.0)


def test_a_loop_over_resamples(report: Report) -> None:
    found = scores(2)
    rng = np.random.default_rng(2)

    def loop() -> None:
        outcome, confidence = found.outcome, found.confidence
        for _ in range(1_000):
            rows = rng.integers(0, 10_000, 10_000)
            for values in (outcome, confidence - outcome, confidence, confidence**2):
                values[rows].mean()
            order = np.argsort(-confidence[rows], kind="stable")
            (np.cumsum(1 - outcome[rows][order]) / np.arange(1, 10_001)).mean()

    ours, other = medians(
        lambda: estimates(Sample({"a": found}, Settings())), loop, runs=5
    )
    work = "first-screen metrics, 1,000 resamples, 10,000 rows"
    assert report.line(work, ours, "a loop over resamples", other, 1.5) >= 1.5


def test_classwise(report: Report) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((50_000, 1_000), np.float32) * 3
    p = softmax(z)
    y = (z + rng.gumbel(size=z.shape).astype(np.float32)).argmax(axis=1)
    del z
    found = scores_from_probabilities(y, p)

    def ours() -> None:
        sample = Sample({"a": found}, Settings(), metrics=("classwise-ece",))
        estimates(sample)

    work = "classwise ECE with its interval, 50,000 x 1,000"
    assert report.within(work, medians(ours, runs=5)[0], 1.0)
