"""Entropy target: what TempNet's loss asks of frozen logits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from core.calibrators import Calibrator, EntropyTarget, TemperatureScaling
from core.messages import DataError
from core.softmax import softmax


def draw(n=200, k=5, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * rng.gamma(2.0, size=(n, 1))
    return z, (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)


def test_every_row_gets_the_entropy_that_the_target_says():
    z, y = draw()
    made = EntropyTarget().fit(z, y)
    even = TemperatureScaling().fit(z, y).predict_proba(z)
    assert made.entropy_ == pytest.approx(special.entr(even).sum(axis=1).mean())
    found = special.entr(made.predict_proba(z)).sum(axis=1)
    np.testing.assert_allclose(found, made.entropy_, atol=1e-9)
    assert [note.code for note in made.notes_] == ["equal-entropy"]


def test_temperatures_are_the_optimum_of_the_robust_loss_whatever_the_label():
    z, y = draw(20)
    made = EntropyTarget().fit(z, y)
    rho = np.log(5) - made.entropy_
    for label in (0, 3):
        for row, t in zip(z, made.temperatures(z), strict=True):

            def loss(log_t, row=row, label=label):
                tau = np.exp(log_t)
                soft = special.logsumexp(row / tau)
                return -row[label] + tau * (soft - np.log(5) + rho)

            best = optimize.minimize_scalar(
                loss, bounds=(-6.9, 6.9), method="bounded", options={"xatol": 1e-9}
            )
            assert np.log(t) == pytest.approx(best.x, abs=1e-5)


def test_masks_and_ties_stay_within_the_bounds():
    z, y = draw()
    made = EntropyTarget().fit(z, y)
    odd = np.array([[0, 0, 0, 0, 0], [1, -np.inf, -np.inf, -np.inf, -np.inf]], float)
    np.testing.assert_allclose(made.predict_proba(odd)[0], 0.2)
    np.testing.assert_allclose(made.predict_proba(odd)[1], softmax(odd)[1])
    again = made.to_dict() | {"parameters": {"entropy": 9.0}}
    with pytest.raises(DataError):
        Calibrator.from_dict(again)
