"""Maps of pixels, and a temperature for each of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import optimize

from core.calibrators import TemperatureScaling
from core.messages import Cancelled, DataError
from core.segmentation import (
    FEATURES,
    LocalTemperature,
    SegmentationMaps,
    _loss,
    pixel_features,
)
from core.softmax import softmax


def maps(seed=0, b=3, k=3, size=24, uneven=True, dtype=np.float64):
    """Stripes whose scores are three times too sure next to where they change."""
    rng = np.random.default_rng(seed)
    stripes = (np.arange(size) // 8 % k)[None, None, :].repeat(b, 0).repeat(size, 1)
    near = np.minimum(np.arange(size) % 8, 7 - np.arange(size) % 8) < 2
    true = 2.0 * np.eye(k)[stripes] + rng.normal(size=(b, size, size, k))
    y = (true + rng.gumbel(size=true.shape)).argmax(-1)
    factor = np.where(near & uneven, 4.0, 1.5)[None, None, :, None]
    z = np.moveaxis(true * factor, -1, 1).astype(dtype)
    y[0, :2] = -1
    return SegmentationMaps.from_arrays(z, y)


def nll(log_p, given):
    used = given.labels >= 0
    own = np.take_along_axis(log_p, np.maximum(given.labels, 0)[:, None], 1)[:, 0]
    return -own[used].mean()


def test_maps_are_checked_frozen_and_have_a_fingerprint():
    made = maps()
    assert made.n_pixels == 3 * 24 * 24
    assert not made.logits.flags.writeable
    assert made.fingerprint == maps().fingerprint != maps(1).fingerprint
    z, y = made.pixels()
    assert z.shape == (made.n_pixels - 48, 3)
    assert (y >= 0).all()
    marked = np.where(made.labels < 0, 255, made.labels)
    same = SegmentationMaps.from_arrays(made.logits, marked, ignore_index=255)
    assert same.fingerprint == made.fingerprint
    for bad, labels in (
        (np.zeros((3, 4, 4)), None),
        (np.zeros((1, 1, 4, 4)), None),
        (np.full((1, 2, 4, 4), np.nan), None),
        (np.zeros((1, 2, 4, 4)), np.zeros((1, 4, 5), int)),
        (np.zeros((1, 2, 4, 4)), np.full((1, 4, 4), 2)),
        (np.zeros((1, 2, 4, 4)), np.zeros((1, 4, 4))),
    ):
        with pytest.raises(DataError):
            SegmentationMaps.from_arrays(bad, labels)
    with pytest.raises(DataError):
        SegmentationMaps.from_arrays(made.logits).pixels()
    with pytest.raises(DataError):
        SegmentationMaps.from_arrays(made.logits, classes=("a",))


def test_features_are_the_slow_ones():
    z = maps(b=1, size=7).logits
    found = pixel_features(z)[0]
    p = softmax(np.moveaxis(z[0], 0, -1).reshape(-1, 3)).reshape(7, 7, 3)
    entropy = -(p * np.log(p)).sum(-1)
    margin = np.sort(p, axis=-1)[..., -1] - np.sort(p, axis=-1)[..., -2]
    prediction = p.argmax(-1)
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    edges = [
        (r, c)
        for r in range(7)
        for c in range(7)
        if any(
            0 <= r + i < 7
            and 0 <= c + j < 7
            and prediction[r + i, c + j] != prediction[r, c]
            for i, j in steps
        )
    ]
    for r in range(7):
        for c in range(7):
            window = [
                (min(max(r + i, 0), 6), min(max(c + j, 0), 6))
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ]
            far = min(np.hypot(r - a, c - d) for a, d in edges)
            expected = [
                1.0,
                np.mean([entropy[at] for at in window]),
                np.mean([margin[at] for at in window]),
                np.log1p(min(far, 32)),
            ]
            np.testing.assert_allclose(found[r, c], expected, rtol=1e-9)


def test_local_temperatures_learn_where_scores_are_too_sure():
    given, new = maps(), maps(1)
    made = LocalTemperature().fit(given)
    one = TemperatureScaling().fit(*given.pixels())
    assert made.temperature_ == one.temperature_
    assert made.nll_after_ < made.nll_before_ - 0.02
    z = np.moveaxis(new.logits, 1, -1).reshape(-1, 3)
    plain = np.moveaxis(one.transform(z).reshape(3, 24, 24, 3), -1, 1)
    local = made.transform(new)
    assert nll(local, new) < nll(plain, new) - 0.02
    np.testing.assert_array_equal(local.argmax(1), new.logits.argmax(1))
    np.testing.assert_allclose(np.exp(local).sum(1), 1, rtol=1e-12)
    near = np.minimum(np.arange(24) % 8, 7 - np.arange(24) % 8) < 2
    t = made.temperatures(new)
    assert t[..., near].mean() > 1.3 * t[..., ~near].mean()


def test_gradient_and_optimum_are_those_of_slow_searches():
    given = maps(b=1, size=16)
    z, y = given.pixels()
    z = z - z.max(axis=1, keepdims=True)
    phi = np.random.default_rng(0).normal(size=(y.size, 4))
    theta = np.array([0.1, -0.2, 0.3, 0.05])
    numeric = optimize.approx_fprime(theta, lambda t: _loss(z, y, phi, t)[0], 1e-7)
    np.testing.assert_allclose(_loss(z, y, phi, theta)[1], numeric, atol=1e-5)
    beta = np.exp(phi @ theta)
    slow = -np.mean(
        [
            np.log(softmax((b * row)[None])[0, c])
            for b, row, c in zip(beta, z, y, strict=True)
        ]
    )
    assert _loss(z, y, phi, theta)[0] == pytest.approx(slow, rel=1e-10)


def test_one_temperature_is_kept_where_nothing_is_local():
    given = maps(uneven=False)
    made = LocalTemperature().fit(given)
    t = made.temperatures(given)
    assert np.abs(np.log(t / made.temperature_)).mean() < 0.15
    flat = SegmentationMaps.from_arrays(np.zeros((1, 2, 4, 4)), np.ones((1, 4, 4), int))
    assert np.isfinite(LocalTemperature().fit(flat).transform(flat)).all()


def test_they_can_be_kept_and_read_back():
    given = maps(dtype=np.float32)
    made = LocalTemperature().fit(given)
    values = json.loads(json.dumps(made.to_dict()))
    again = LocalTemperature.from_dict(values)
    np.testing.assert_array_equal(again.transform(given), made.transform(given))
    assert made.transform(given).dtype == np.float32
    assert len(values["weights"]) == len(FEATURES)
    for bad in ({"weights": [1.0]}, {"temperature": -1}, {"scale": [0.0] * 4}):
        with pytest.raises(DataError):
            LocalTemperature.from_dict(values | bad)

    def stop(share, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        LocalTemperature().fit(given, progress=stop)
