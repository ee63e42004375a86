"""Rows whose exponent lies between two whole numbers: both places must choose one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from core.softmax import (
    log_softmax,
    logsumexp,
    row_statistics,
    softmax,
    temperature_objective,
)


def on_the_half(dtype: type, temperature: float) -> np.ndarray:
    """Return logits whose quotient by T ln 2 is n + 1/2, and their neighbours."""
    halves = np.arange(-40, 40) + 0.5
    exact = (halves * np.log(2) * temperature).astype(dtype)
    found = [exact]
    for direction in (np.inf, -np.inf):
        near = exact
        for _ in range(3):
            near = np.nextafter(near, dtype(direction))
            found.append(near)
    return np.concatenate(found)


@pytest.mark.parametrize("temperature", [1.0, 1.37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 10, 64, 100, 5000])
def test_the_sum_and_the_peak_have_one_exponent(n_classes, dtype, temperature) -> None:
    top = on_the_half(dtype, temperature)
    rng = np.random.default_rng(0)
    below = np.abs(rng.normal(0, 3, (len(top), n_classes)))
    z = (top[:, None] - below).astype(dtype)
    place = n_classes // 3
    z[:, place] = top
    y = np.full(len(z), place)
    wide = z.astype(np.float64) / temperature
    total = special.logsumexp(wide, axis=1)
    own = wide[:, place] - total
    close = {"rtol": 2e-6, "atol": 2e-6}
    options = {"temperature": temperature}
    for algorithm in ("auto", "two-pass", "three-pass", "online"):
        p = softmax(z, algorithm=algorithm, **options)[:, place]
        np.testing.assert_allclose(p, np.exp(own), rtol=2e-6)
    np.testing.assert_allclose(logsumexp(z, **options), total, **close)
    np.testing.assert_allclose(log_softmax(z, **options)[:, place], own, **close)
    rows = row_statistics(z, y, **options)
    np.testing.assert_allclose(rows.logsumexp, total, **close)
    np.testing.assert_allclose(rows.label_log_probability, own, **close)
    loss = temperature_objective(z, y, 1 / temperature).loss
    np.testing.assert_allclose(loss, -own, **close)
