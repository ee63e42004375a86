"""Supervised TempNet: its network against a slow twin, its gradient, its theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from core.calibrators import (
    Calibrator,
    EntropyTarget,
    SupervisedTempNet,
    TemperatureScaling,
)
from core.calibrators.row_losses import RowLoss
from core.calibrators.tempnet import PooledNetwork
from core.messages import DataError
from core.softmax import log_softmax, softmax


def draw(n=1200, k=5, seed=0):
    """Rows whose larger logits are the more overconfident ones."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * rng.gamma(2.0, size=(n, 1))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    is_large = np.abs(z).max(axis=1, keepdims=True) > 3.0
    return np.where(is_large, 3.0, 1.0) * z, y


def slow_output(layers, log_spread, x):
    """What the network says of one row, weight by weight."""
    norm = math.sqrt(sum(value**2 for value in x))
    x = [value / norm for value in x]

    def through(layer, given):
        w, b = layer["weights"], layer["bias"]
        return [
            sum(value * w[i][j] for i, value in enumerate(given)) + b[j]
            for j in range(len(b))
        ]

    hidden = [1.0 / (1.0 + math.exp(-v)) for v in through(layers[0], x)]
    u = through(layers[1], hidden)
    masses = [math.exp(v / math.exp(log_spread)) for v in u]
    share = [mass / sum(masses) for mass in masses]
    pooled = [(len(u) * a - 1.0) * v for a, v in zip(share, u, strict=True)]
    return through(layers[2], pooled)[0]


def test_probabilities_are_those_of_the_slow_network():
    z, y = draw()
    fit = SupervisedTempNet().fit(z, y)
    state = fit.to_dict()["parameters"]
    assert len(state["layers"]) == 3
    assert fit.n_fitted_ == fit.n_parameters(5) == 1 + 6 * 16 + 17 * 16 + 18
    for row, found in zip(z[:20], fit.predict_proba(z[:20]), strict=True):
        x = sorted(np.maximum(log_softmax(row[None])[0], -30.0), reverse=True)
        g = slow_output(state["layers"], state["log_spread"], x)
        t = state["temperature"] * math.exp(2.0 * math.tanh(g / 2.0))
        np.testing.assert_allclose(found, softmax(row[None] / t)[0], rtol=1e-9)


@pytest.mark.parametrize("sizes", [(3, 4, 4, 1), (10, 16, 16, 1)])
def test_the_gradient_of_the_pooled_network_is_that_of_differences(sizes):
    rng = np.random.default_rng(0)
    network = PooledNetwork(sizes)
    flat = rng.normal(size=network.n_parameters)
    inputs, slope = rng.normal(size=(9, sizes[0])), rng.normal(size=9)
    _, entered = network.value(flat, inputs)
    found = network.gradient(flat, entered, slope)
    expected = optimize.approx_fprime(
        flat, lambda x: slope @ network.value(x, inputs)[0], 1e-7
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (network.value(network.start(rng), inputs)[0] == 0).all()


def test_the_robust_loss_forgets_labels_and_its_quotient_by_t_does_not():
    z, y = draw(60)
    rho, rows, log_t = 0.4, np.arange(60), np.linspace(-1.0, 1.0, 60)

    def slopes(labels, *, is_divided):
        loss = RowLoss(z, labels, np.ones(60), "cross-entropy")
        per_row, of_log_t = (
            np.array(part)
            for part in zip(
                *(loss(log_t[i : i + 1], rows[i : i + 1]) for i in rows), strict=True
            )
        )
        t, of_log_t = np.exp(log_t), of_log_t[:, 0]
        if is_divided:  # CE + rho - ln K
            return of_log_t
        return t * (per_row + rho - np.log(5)) + t * of_log_t

    others = (y + 1) % 5
    robust = [slopes(labels, is_divided=False) for labels in (y, others)]
    np.testing.assert_allclose(*robust, atol=1e-9)
    divided = [slopes(labels, is_divided=True) for labels in (y, others)]
    assert np.abs(divided[0] - divided[1]).max() > 0.1
    # The slope of the robust loss is the distance to the entropy of the target.
    t = np.exp(log_t)
    p = softmax(z / t[:, None])
    entropy = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(robust[0], t * (entropy - np.log(5) + rho), atol=1e-9)


def test_labels_make_it_a_calibrator_where_the_entropy_target_is_none():
    z, y = draw()
    new, labels = draw(5000, seed=1)
    n = np.arange(labels.size)

    def nll(fit):
        return -fit.fit(z, y).transform(new)[n, labels].mean()

    common, own = nll(TemperatureScaling()), nll(SupervisedTempNet())
    assert own < common - 0.01
    assert nll(EntropyTarget()) > common
    again = SupervisedTempNet().fit(z, y)
    assert again.loss_after_ < again.loss_before_
    assert (again.predict(new) == new.argmax(axis=1)).all()


def test_few_rows_get_the_common_temperature_and_a_wrong_file_is_refused():
    z, y = draw(30)
    fit = SupervisedTempNet().fit(z, z.argmax(axis=1))
    assert not fit.layers_
    assert "common-temperature" in [note.code for note in fit.notes_]
    fit = SupervisedTempNet().fit(*draw())
    for wrong in ({"log_spread": 1e4}, {"n_top": 3}, {"layers": [{}]}):
        values = fit.to_dict()
        values["parameters"] = values["parameters"] | wrong
        with pytest.raises(DataError):
            Calibrator.from_dict(values)
    with pytest.raises(ValueError, match="ridge"):
        SupervisedTempNet(ridge=-1.0).fit(z, y)
