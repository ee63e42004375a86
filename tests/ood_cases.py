"""Small networks' worth of rows for the tests of out-of-distribution detectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.predictions import Head, Predictions

K, D = 4, 12


def network(seed: int = 0, k: int = K, d: int = D) -> Head:
    """Return the last layer of a network that nobody trained."""
    rng = np.random.default_rng(seed)
    return Head(rng.normal(size=(k, d)), rng.normal(size=k) / 2)


def features_of(n: int, seed: int = 0, k: int = K, d: int = D) -> tuple[Any, Any]:
    """Return features that are at least 0 and follow their labels, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    pull = network(k=k, d=d).weight[labels]
    mixing = np.random.default_rng(99).normal(size=(d, d)) / 3 + np.eye(d)
    return np.maximum(pull + rng.normal(size=(n, d)) @ mixing + 0.5, 0.0), labels


def rows(
    n: int = 200, seed: int = 0, dtype: Any = np.float64, **more: Any
) -> Predictions:
    """Return in-distribution rows with features, logits and labels."""
    h, y = features_of(n, seed)
    return of_features(h.astype(dtype), y, **more)


def of_features(h: Any, y: Any = None, **more: Any) -> Predictions:
    """Return rows whose logits are what the network makes of their features."""
    head = network(d=h.shape[1])
    logits = (h @ head.weight.T + head.bias).astype(h.dtype)
    return Predictions.from_arrays(logits, y, features=h, **more)


def strangers(n: int = 80, seed: int = 7, dtype: Any = np.float64) -> Predictions:
    """Return rows whose features follow no label."""
    rng = np.random.default_rng(seed)
    h = np.maximum(1.5 * rng.normal(size=(n, D)), 0.0)
    return of_features(h.astype(dtype), name="strangers")
