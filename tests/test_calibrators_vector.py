"""Vector scaling: its objective, its certificate, its ridge and its edges."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from core.calibrators import Calibrator, TemperatureScaling, VectorScaling
from core.calibrators.vector_fit import VectorFit
from core.messages import Cancelled, DataError
from core.softmax import softmax


def draw(n=400, k=4, t=2.0, seed=0, dtype=np.float64):
    """Logits at temperature t; each class has an offset of its own."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k)) + np.linspace(-1, 1, k)
    y = (z + np.linspace(1, -1, k) + rng.gumbel(size=(n, k))).argmax(axis=1)
    return (z * t).astype(dtype), y


def penalised(z, y, t, ridge, weight=None):
    """The documented objective of the slow twin, of stacked (slope, offset)."""
    n, k = z.shape
    w = np.ones(n) if weight is None else weight
    strength = ridge * k * (w @ w) / w.sum() ** 2

    def value(point):
        slope, offset = point.reshape(2, k)
        loss, gradient = naive.vector_objective(z, y, slope, offset, w)
        bent = t * slope - 1
        loss += strength * (bent @ bent + offset @ offset)
        gradient = gradient + 2 * strength * np.stack([t * bent, offset])
        return loss, gradient.ravel()

    return value


# --------------------------------------------------------- objective and optimum


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 3, 70, 1100])
def test_the_kernel_is_the_slow_objective(k, dtype):
    z, y = draw(40, k, dtype=dtype)
    z[::5, 0] = -np.inf
    y[::5] = np.maximum(y[::5], 1)
    rng = np.random.default_rng(1)
    weight = rng.gamma(1.0, size=40)
    weight[3] = 0.0
    slope, offset = rng.normal(1, 0.3, k), rng.normal(size=k)
    fit = VectorFit(z, y, weight, 1.0, 0.0)
    loss, gradient = fit.objective(slope, offset)
    slow_loss, slow_gradient = naive.vector_objective(z, y, slope, offset, weight)
    assert loss == pytest.approx(slow_loss, rel=1e-12)
    np.testing.assert_allclose(gradient, slow_gradient, rtol=1e-9, atol=1e-14)


def test_the_gradient_is_that_of_the_loss():
    z, y = draw(60, 3)
    point = np.random.default_rng(2).normal(1, 0.3, 6)
    fit = VectorFit(z, y, np.ones(60), 1.0, 0.0)
    error = optimize.check_grad(
        lambda x: fit.loss(*x.reshape(2, 3)),
        lambda x: fit.objective(*x.reshape(2, 3))[1].ravel(),
        point,
    )
    assert error < 1e-6


@pytest.mark.parametrize("ridge", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_the_optimum_is_that_of_the_slow_objective(ridge, weighted, k):
    z, y = draw(120, k)
    weight = np.random.default_rng(3).gamma(2.0, size=120) if weighted else None
    fit = VectorScaling(ridge=ridge).fit(z, y, weight)
    value = penalised(z, y, fit.temperature_, ridge, weight)
    slow = optimize.minimize(
        value, np.ones(2 * k), method="BFGS", jac=True, options={"gtol": 1e-9}
    )
    ours = value(np.r_[fit.weights_, fit.bias_])
    assert ours[0] <= slow.fun + 1e-12
    assert np.abs(ours[1]).max() <= 1e-6
    assert fit.gradient_ <= 1e-7
    assert fit.notes_ == []
    found = fit.predict_proba(z)
    # Without a ridge only differences of offsets matter: probabilities are compared.
    slope, offset = slow.x.reshape(2, k)
    np.testing.assert_allclose(found, softmax(z * slope + offset), atol=1e-5)


def test_two_classes_are_a_logistic_regression_on_both_logits():
    z, y = draw(500, 2)
    theirs = LogisticRegression(C=1e12, tol=1e-10).fit(z, y)
    ours = VectorScaling(ridge=0.0).fit(z, y)
    np.testing.assert_allclose(ours.weights_ * [-1, 1], theirs.coef_[0], rtol=1e-4)
    shift = ours.bias_[1] - ours.bias_[0]
    assert shift == pytest.approx(theirs.intercept_[0], rel=1e-3)


def test_it_is_a_multinomial_regression_whose_matrix_is_diagonal():
    z, y = draw(500, 3)
    theirs = LogisticRegression(C=1e12, tol=1e-10).fit(z, y)
    matrix = softmax(z @ theirs.coef_.T + theirs.intercept_)
    ours = VectorScaling(ridge=0.0).fit(z, y)
    best = -np.log(matrix[np.arange(500), y]).mean()
    # The larger family fits no worse; six more numbers explain about 3 / n.
    assert best <= ours.nll_after_ <= best + 20 / 500
    residual = ours.predict_proba(z) - np.eye(3)[y]
    # The likelihood equations of the diagonal and of the offsets, no others.
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose((residual * z).mean(axis=0), 0, atol=1e-6)
    assert np.abs(residual.T @ z / 500).max() > 1e-4


def test_known_slopes_and_offsets_are_found():
    rng = np.random.default_rng(4)
    z = 2 * rng.normal(size=(100_000, 4))
    slope, offset = np.array([0.5, 1.0, 0.8, 0.6]), np.array([0.3, -0.6, 0.2, 0.1])
    y = (z * slope + offset + rng.gumbel(size=z.shape)).argmax(axis=1)
    for ridge in (0.0, 1.0):
        fit = VectorScaling(ridge=ridge).fit(z, y)
        np.testing.assert_allclose(fit.weights_, slope, atol=0.03)
        bias = fit.bias_ - fit.bias_.mean()
        np.testing.assert_allclose(bias, offset - offset.mean(), atol=0.03)


def test_it_starts_at_temperature_scaling_and_a_large_ridge_stays_there():
    z, y = draw()
    temperature = TemperatureScaling().fit(z, y)
    fit = VectorScaling(ridge=1e6).fit(z, y)
    assert fit.temperature_ == temperature.temperature_
    assert fit.nll_before_ == pytest.approx(temperature.nll_after_, rel=1e-12)
    np.testing.assert_allclose(fit.transform(z), temperature.transform(z), atol=1e-4)
    free = VectorScaling(ridge=0.0).fit(z, y)
    middle = VectorScaling().fit(z, y)
    assert free.nll_after_ < middle.nll_after_ < fit.nll_after_ <= fit.nll_before_


# --------------------------------------------------------------------- edges


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_weights_are_repeated_rows_and_their_scale_is_nothing(ridge):
    z, y = draw(200)
    weight = np.random.default_rng(0).integers(0, 3, 200).astype(float)
    fit = VectorScaling(ridge=ridge).fit(z, y, weight)
    scaled = VectorScaling(ridge=ridge).fit(z, y, weight * 1e-6)
    np.testing.assert_allclose(scaled.transform(z), fit.transform(z), atol=1e-5)
    kept = weight > 0
    without = VectorScaling(ridge=ridge).fit(z[kept], y[kept], weight[kept])
    np.testing.assert_allclose(without.transform(z), fit.transform(z), atol=1e-5)
    if ridge == 0:
        count = weight.astype(int)
        many = VectorScaling(ridge=0.0).fit(np.repeat(z, count, 0), np.repeat(y, count))
        np.testing.assert_allclose(many.transform(z), fit.transform(z), atol=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_a_missing_class_keeps_the_shared_temperature(ridge):
    z, y = draw(300)
    keep = y != 1
    fit = VectorScaling(ridge=ridge).fit(z[keep], y[keep])
    assert fit.weights_[1] == pytest.approx(1 / fit.temperature_)
    assert fit.bias_[1] == 0.0
    assert fit.gradient_ <= 1e-7
    assert "missing-class" in [note.code for note in fit.notes_]


def test_masked_classes_take_no_part():
    z, y = draw(300, k=5)
    keep = y < 4
    masked = z.copy()
    masked[:, 4] = -np.inf
    fit = VectorScaling().fit(masked[keep], y[keep])
    assert np.isneginf(fit.transform(masked)[:, 4]).all()
    plain = VectorScaling(ridge=0.8).fit(z[keep][:, :4], y[keep])
    # K / n of five classes, one of them masked, against K / n of four.
    lighter = VectorScaling(ridge=0.8 * 4 / 5).fit(masked[keep], y[keep])
    np.testing.assert_allclose(
        lighter.predict_proba(masked)[:, :4], plain.predict_proba(z[:, :4]), atol=1e-6
    )


def test_a_logit_against_its_class_gives_a_falling_curve_with_a_note():
    z, y = draw(500)
    z[:, 0] *= -1
    fit = VectorScaling().fit(z, y)
    assert fit.weights_[0] < 0
    assert (fit.weights_[1:] > 0).all()
    assert [note.code for note in fit.notes_] == ["falling-curve"]


def test_labels_at_minus_infinity_are_counted_and_left_out():
    z, y = draw(200)
    impossible = z.copy()
    impossible[np.arange(5), y[:5]] = -np.inf
    fit = VectorScaling().fit(impossible, y)
    plain = VectorScaling().fit(z[5:], y[5:])
    np.testing.assert_allclose(fit.transform(z), plain.transform(z), atol=1e-6)
    assert [note.code for note in fit.notes_] == ["impossible-label"]
    alone = VectorScaling().fit(impossible[:5], y[:5])
    assert np.isfinite(alone.weights_).all()


def test_separable_rows_say_so_without_a_ridge_and_stay_finite():
    y = np.arange(60) % 3
    z = np.eye(3)[y] * 2 + np.random.default_rng(0).normal(0, 0.1, (60, 3))
    free = VectorScaling(ridge=0.0).fit(z, y)
    assert {"fit-at-bound", "separable"} <= {note.code for note in free.notes_}
    held = VectorScaling().fit(z, y)
    assert "separable" not in {note.code for note in held.notes_}
    for fit in (free, held):
        assert np.isfinite(fit.transform(z)).all()
        assert (fit.predict(z) == y).all()


def test_a_fit_that_is_cut_short_says_so(monkeypatch):
    monkeypatch.setattr("core.calibrators.vector_fit._MAX_ITERATIONS", 1)
    fit = VectorScaling().fit(*draw())
    assert [note.code for note in fit.notes_] == ["not-converged"]
    assert "gradient" in fit.notes_[0].text


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
def test_small_and_huge_logits_are_fitted(scale):
    z, y = draw(300, t=scale)
    fit = VectorScaling().fit(z, y)
    assert np.isfinite(fit.predict_proba(z)).all()
    assert fit.nll_after_ <= fit.nll_before_ + 1e-12
    assert fit.gradient_ <= 1e-7


def test_threads_and_chunks_change_nothing_but_rounding(monkeypatch):
    z, y = draw(400, k=30)
    whole = VectorScaling().fit(z, y)
    monkeypatch.setattr("core.parallel.CHUNK_BYTES", 1 << 12)
    parts = VectorScaling().fit(z, y)
    np.testing.assert_allclose(parts.transform(z), whole.transform(z), atol=1e-6)
    again = VectorScaling().fit(z, y)
    np.testing.assert_array_equal(again.weights_, parts.weights_)


def test_progress_is_told_and_can_stop():
    told = []
    VectorScaling().fit(*draw(), progress=lambda share, text: told.append(text))
    assert {"Fitting the temperature", "Fitting slope and offset of each class"} == set(
        told
    )

    def stop(share, text):
        if text.startswith("Fitting slope"):
            raise Cancelled

    with pytest.raises(Cancelled):
        VectorScaling().fit(*draw(), progress=stop)


@pytest.mark.parametrize("ridge", [-1.0, np.inf, np.nan])
def test_an_impossible_ridge_is_refused(ridge):
    with pytest.raises(ValueError, match="ridge"):
        VectorScaling(ridge=ridge).fit(*draw(50))


def test_impossible_parameters_are_refused():
    good = VectorScaling().fit(*draw(100, k=3)).to_dict()
    assert good["options"] == {"ridge": 1.0}
    for parameters in (
        {"weights": [1.0] * 2, "bias": [0.0] * 3},
        {"weights": [1.0] * 3, "bias": [float("nan")] * 3},
        {"weights": [1e30] * 3, "bias": [0.0] * 3},
        {"weights": [1.0] * 3},
    ):
        with pytest.raises(DataError):
            Calibrator.from_dict(good | {"parameters": parameters})
