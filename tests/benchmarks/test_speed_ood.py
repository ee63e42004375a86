"""Out-of-distribution scores against their matrix products and other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.side_by_side import Report, medians
from sklearn.neighbors import NearestNeighbors

from core.ood import DETECTORS, score_all
from core.predictions import Predictions
from core.softmax import row_statistics

pytestmark = pytest.mark.benchmark

CLASSES, WIDTH = 100, 512
LOGIT_SCORES = (
    *("max-softmax", "temperature-softmax", "gen", "energy", "max-logit", "entropy"),
    *("margin", "odin"),
)


def rows(n: int) -> Predictions:
    """Return features of as many rows around the means of their classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, n)
    features = rng.standard_normal((CLASSES, WIDTH), np.float32)[labels]
    features += rng.standard_normal((n, WIDTH), np.float32)
    return Predictions.from_arrays(
        None, labels, input_kind="features", features=features, copy=False
    )


def test_mahalanobis_and_its_matrix_products(report: Report) -> None:
    own = rows(50_000)
    x = np.asarray(own.features, dtype=np.float64)
    square, means = np.eye(WIDTH), np.zeros((WIDTH, CLASSES))

    def products() -> Any:
        return x.T @ x, (x @ square) @ means

    ours, other = medians(
        lambda: DETECTORS["mahalanobis"]().fit(own).score(own), products, runs=5
    )
    work = f"Mahalanobis, fit and score 50,000 x {WIDTH}"
    assert report.line(work, ours, "its matrix products", other, 0.4) >= 0.4


def test_mahalanobis_and_pytorch_ood(report: Report, torch: Any) -> None:
    peer = pytest.importorskip("pytorch_ood.detector").Mahalanobis
    own = rows(10_000)
    features = torch.from_numpy(np.array(own.features))
    labels = torch.from_numpy(np.array(own.labels))

    def theirs() -> Any:
        return peer(None).fit_features(features, labels).predict_features(features)

    ours, other = medians(
        lambda: DETECTORS["mahalanobis"]().fit(own).score(own), theirs, runs=3
    )
    work = f"Mahalanobis, fit and score 10,000 x {WIDTH}"
    assert report.line(work, ours, "pytorch-ood", other, 5) >= 5


def test_scores_of_the_logits_together(report: Report) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((50_000, 1000), np.float32) * 3
    own = Predictions.from_arrays(z, rng.integers(0, 1000, len(z)), copy=False)
    made = {name: DETECTORS[name]().fit(own) for name in LOGIT_SCORES}
    ours, other = medians(lambda: score_all(made, own), lambda: row_statistics(z))
    work = f"{len(made)} scores of the logits, 50,000 x 1,000"
    report.line(work, ours, "row_statistics alone", other, None)


def test_nearest_neighbours_and_the_library(report: Report) -> None:
    own, made = rows(10_000), DETECTORS["knn"]().fit(rows(20_000))
    library = NearestNeighbors(n_neighbors=50, algorithm="brute").fit(made.bank_)
    x = np.asarray(own.features)
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    ours, other = medians(
        lambda: made.score(own), lambda: library.kneighbors(units), runs=5
    )
    work = f"k nearest neighbours, 10,000 x {WIDTH} in 10,000"
    assert report.line(work, ours, "scikit-learn alone", other, 1 / 1.5) >= 1 / 1.5
