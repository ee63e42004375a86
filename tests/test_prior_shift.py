"""Prior shift: known, from labels, by EM; Z-scores and Z-losses of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from core.calibrators import Calibrator, PriorShift, estimated_prevalence
from core.messages import Cancelled, DataError
from core.metrics import METRICS
from core.ood import DETECTORS
from core.predictions import Predictions
from core.softmax import log_softmax, softmax
from core.z_loss import rank_offset, z_losses, z_scores


def shifted_rows(prevalence, n=6000, seed=0, source=None):
    """Rows of Gaussian classes at a prevalence, scored by Bayes' rule at `source`."""
    rng = np.random.default_rng(seed)
    k = len(prevalence)
    y = rng.choice(k, size=n, p=prevalence)
    x = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[y]
    rho = np.full(k, 1 / k) if source is None else np.asarray(source)
    return 1.5 * x + np.log(rho), y


NOW = np.array([0.7, 0.2, 0.1])


def slow_em(p, source, steps=400):
    """Saerens' EM row by row, with `source` as one more row."""
    pi = list(source)
    for _ in range(steps):
        sums = list(source)
        for row in p:
            mass = [q * a / b for q, a, b in zip(row, pi, source, strict=True)]
            for c, m in enumerate(mass):
                sums[c] += m / sum(mass)
        pi = [s / (len(p) + 1) for s in sums]
    return np.array(pi)


def test_em_is_the_slow_em():
    z, _ = shifted_rows(NOW, 60)
    source = np.full(3, 1 / 3)
    found = estimated_prevalence(softmax(z), source, np.ones(60))
    np.testing.assert_allclose(found, slow_em(softmax(z), source), atol=1e-7)


@pytest.mark.parametrize("estimate", ["labels", "em"])
def test_a_shift_is_found_with_and_without_labels(estimate):
    z, y = shifted_rows(NOW)
    made = PriorShift(estimate=estimate).fit(z, y)
    np.testing.assert_allclose(made.prevalence_, NOW, atol=0.02)
    bias = made.bias_ - made.bias_.mean()
    truth = np.log(NOW) - np.log(NOW).mean()
    np.testing.assert_allclose(bias, truth, atol=0.12)
    right = -log_softmax(z + np.log(NOW))[np.arange(len(y)), y].mean()
    found = -made.transform(z)[np.arange(len(y)), y].mean()
    assert found == pytest.approx(right, abs=2e-3)
    if estimate == "em":  # the labels have no say
        other = PriorShift(estimate="em").fit(z, np.roll(y, 1))
        np.testing.assert_array_equal(other.bias_, made.bias_)


def test_offsets_from_labels_are_of_least_loss():
    z, y = shifted_rows(NOW, 120)
    weight = np.random.default_rng(0).gamma(2.0, size=120)
    made = PriorShift().fit(z, y, weight)
    share = weight / weight.sum()
    ridge = 3 * float(share @ share)

    def loss(b):
        own = log_softmax(z + b)[np.arange(120), y]
        return -float(share @ own) + 0.5 * ridge * float(b @ b)

    best = optimize.minimize(loss, np.zeros(3), options={"gtol": 1e-8}).x
    np.testing.assert_allclose(made.bias_, best, atol=1e-5)


def test_a_known_prevalence_is_bayes_rule():
    there = [0.2, 0.3, 0.5]
    z, y = shifted_rows(there, source=there)
    known = PriorShift(prevalence=[7, 2, 1], source=there).fit(z, y)
    np.testing.assert_allclose(known.prevalence_, NOW)
    expected = softmax(z) * NOW / there
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(known.predict_proba(z), expected, rtol=1e-10)
    shares = (np.bincount(y) + 1 / 3) / (len(y) + 1)
    from_rows = PriorShift(prevalence=NOW.tolist()).fit(z, y)
    np.testing.assert_allclose(from_rows.bias_, np.log(NOW) - np.log(shares))
    again = Calibrator.from_dict(known.to_dict())
    np.testing.assert_array_equal(again.transform(z), known.transform(z))


def test_rows_without_labels_from_elsewhere_are_adapted_to():
    there = [0.2, 0.3, 0.5]
    z, y = shifted_rows(there)
    made = PriorShift().fit(z, y)
    new, truth = shifted_rows(NOW, seed=1)
    moved = made.adapted(new)
    np.testing.assert_allclose(moved.prevalence_, NOW, atol=0.03)
    before, after = (
        -item.transform(new)[np.arange(len(truth)), truth].mean()
        for item in (made, moved)
    )
    assert after < before - 0.05
    assert made.prevalence_[2] > 0.4  # the fitted one stays as it is


def test_progress_can_stop_either_fit():
    def stop(share, text):
        raise Cancelled

    z, y = shifted_rows(NOW, 50)
    for estimate in ("labels", "em"):
        with pytest.raises(Cancelled):
            PriorShift(estimate=estimate).fit(z, y, progress=stop)


@pytest.mark.parametrize(
    "options",
    [
        {"estimate": "x"},
        {"prevalence": [1, 0, 1]},
        {"source": [1, 1], "estimate": "em"},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        PriorShift(**options).fit(*shifted_rows(NOW, 50))


# --------------------------------------------------------------------- Z-loss


def slow_z(row, place):
    kept = [v for v in row if v > -math.inf]
    mean = sum(kept) / len(kept)
    spread = math.sqrt(sum((v - mean) ** 2 for v in kept) / len(kept))
    return (row[place] - mean) / spread if spread else 0.0


def test_z_scores_and_losses_are_the_slow_ones():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 5))
    z[:6, 4] = -np.inf
    z[6] = 3.0
    y = rng.integers(0, 4, 40)
    slow = [slow_z(row, c) for row, c in zip(z.tolist(), y, strict=True)]
    np.testing.assert_allclose(z_scores(z, y), slow, rtol=1e-10)
    top = [slow_z(row, int(np.argmax(row))) for row in z.tolist()]
    np.testing.assert_allclose(z_scores(z), top, rtol=1e-10)
    loss = [math.log1p(math.exp(5 * (0.7 - s))) / 5 for s in slow]
    found = z_losses(z, y, sharpness=5, offset=0.7)
    np.testing.assert_allclose(found, loss, rtol=1e-10)
    assert z_scores(z, np.full(40, 4))[0] == -np.inf
    assert z_losses(z, np.full(40, 4))[0] == np.inf


def test_z_scores_do_not_see_temperature_or_shift_and_are_bounded():
    z = np.random.default_rng(1).normal(size=(50, 7))
    moved = 1e4 * z + 1e6
    np.testing.assert_allclose(z_scores(moved), z_scores(z), rtol=1e-6)
    np.testing.assert_allclose(z_scores(log_softmax(z)), z_scores(z), rtol=1e-9)
    one_hot = np.eye(7)[:3] * 40
    np.testing.assert_allclose(z_scores(one_hot), math.sqrt(6))


def test_the_metric_is_the_mean_loss_of_labels_at_any_temperature():
    rng = np.random.default_rng(0)
    z, weight = 3 * rng.normal(size=(60, 4)), rng.gamma(1.0, size=60)
    z[:5, 3] = -np.inf
    y = rng.integers(0, 3, 60)
    slow = [
        math.log(1 + math.exp(-slow_z(row, c)))
        for row, c in zip(z.tolist(), y, strict=True)
    ]
    for t in (1.0, 4.0):
        found = METRICS["z-loss"](y, softmax(z / t), sample_weight=weight)
        assert found == pytest.approx(np.average(slow, weights=weight), rel=1e-9)
    y[0] = 3
    assert METRICS["z-loss"](y, softmax(z)) == np.inf
    two = METRICS["z-loss"]([0, 1, 1, 1], [[0.9, 0.1]] * 4)
    right, wrong = (math.log(1 + math.exp(sign)) for sign in (-1, 1))
    assert two == pytest.approx(right / 4 + 3 * wrong / 4)


def test_as_a_row_score_it_sees_the_shape_of_a_row_and_not_its_scale():
    z = np.random.default_rng(3).normal(size=(30, 6))
    score = DETECTORS["z-loss"]().score
    found = score(Predictions.from_arrays(z))
    np.testing.assert_allclose(found, np.log1p(np.exp(-z_scores(z))), rtol=1e-12)
    scaled = score(Predictions.from_arrays(7 * z - 3))
    np.testing.assert_allclose(scaled, found, rtol=1e-9)
    flat = np.zeros((1, 6))
    assert score(Predictions.from_arrays(flat))[0] == math.log(2)
    penalty = DETECTORS["log-partition"]().score
    assert penalty(Predictions.from_arrays(flat))[0] == pytest.approx(math.log(6) ** 2)


def test_the_offset_of_a_rank_puts_the_hinge_there():
    z = np.random.default_rng(2).normal(size=(400, 10))
    places = [rank_offset(z, rank) for rank in range(1, 11)]
    assert (np.diff(places) < 0).all()
    assert places[0] == pytest.approx(z_scores(z).mean())
    order = np.argsort(-z, axis=1)
    sharp = {"sharpness": 20.0, "offset": rank_offset(z, 3)}
    inside, outside = (z_losses(z, order[:, r], **sharp) for r in (0, 8))
    assert inside.mean() < 0.05 < 1 < outside.mean()
    with pytest.raises(ValueError, match="rank"):
        rank_offset(z, 11)
    with pytest.raises(ValueError, match="positive"):
        z_losses(z, order[:, 0], sharpness=0)
    with pytest.raises(DataError):
        z_scores(z, np.full(400, 10))
