"""Temperatures per row, confidences by a curve: losses, gradients, edges, exports."""

from __future__ import annotations

import numpy as np
import pytest
from golden.make_torch import copies_of
from scipy import optimize

from core.calibrators import (
    CALIBRATORS,
    Calibrator,
    CorrectnessAware,
    CorrectnessAwareReleased,
    IntraOrderPreserving,
    TemperatureScaling,
    TopVersusAll,
)
from core.calibrators.correctness import copy_scores, log_odds_change
from core.calibrators.network import Network, Plan, fit_network, output_of
from core.calibrators.row_losses import LOSSES, TOP_LABEL, RowLoss
from core.calibrators.row_temperature import (
    LOWEST_LOG,
    sorted_log_probabilities,
    top_places,
)
from core.calibrators.top_rows import KEPT_GAP, raised
from core.export import from_json, to_json, to_python, verify
from core.export.fuse import fuse
from core.export.onnx import to_onnx
from core.messages import Cancelled, DataError, no_progress
from core.softmax import log_softmax, softmax

CURVES = [name for name in CALIBRATORS if name.startswith("top-versus-all-")]


def draw(n=600, k=5, seed=0, t=2.0):
    """Rows of different difficulty; copies of hard ones disagree with them."""
    rng = np.random.default_rng(seed)
    z = 2.0 * rng.normal(size=(n, k))
    hard = rng.gamma(1.0, size=(n, 1)) * 1.5
    y = (z / (0.5 + hard) + rng.gumbel(size=(n, k))).argmax(axis=1)
    copies = z + 2.0 * hard * rng.normal(size=(3, n, k))
    return t * z, y, t * copies


def slow_loss(kind, share, row, label, t):
    """The loss of one row, by its definition."""
    p = softmax(row[None] / t)[0]
    top = int(row.argmax())
    q, right = p[top], float(top == label)
    squared = sum((p[k] - (k == label)) ** 2 for k in range(row.size))
    found = {
        "correctness-aware": (q - right) ** 2,
        "cross-entropy": -np.log(p[label]),
        "squared-error": squared,
        TOP_LABEL: -np.log(q if right else 1 - q),
    }
    if kind == "mixture":
        return share * found["correctness-aware"] + (1 - share) * found["cross-entropy"]
    return found[kind]


# ----------------------------------------------------------- losses and gradients


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 7, 1100])
@pytest.mark.parametrize("kind", [*LOSSES, TOP_LABEL])
def test_the_loss_is_the_slow_one_and_its_slope_is_right(kind, k, dtype):
    z, y, _ = draw(30, k)
    z = z.astype(dtype)
    z[::7, 0] = -np.inf
    y[::7] = np.maximum(y[::7], 1)
    z[3] = 0.0
    rng = np.random.default_rng(1)
    weight, rows = rng.gamma(1.0, size=30), np.arange(1, 30, 2)
    log_t = rng.normal(size=rows.size)
    loss = RowLoss(z, y, weight, kind, 0.3)
    value, slope = loss(log_t, rows)
    share = weight[rows] / weight[rows].sum()
    expected = [
        slow_loss(kind, 0.3, z[i].astype(np.float64), y[i], np.exp(u))
        for i, u in zip(rows, log_t, strict=True)
    ]
    assert value == pytest.approx(share @ np.array(expected), rel=1e-10)
    step = 1e-6
    for place in range(0, rows.size, 4):
        ends = []
        for sign in (1, -1):
            moved = log_t.copy()
            moved[place] += sign * step
            ends.append(loss(moved, rows)[0])
        change = (ends[0] - ends[1]) / (2 * step)
        assert slope[place] == pytest.approx(change, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("sizes", [(3, 1), (4, 5, 1), (2, 3, 4, 1)])
def test_the_gradient_of_the_network_is_that_of_differences(sizes):
    rng = np.random.default_rng(0)
    network = Network(sizes)
    flat = rng.normal(size=network.n_parameters)
    inputs, slope = rng.normal(size=(9, sizes[0])), rng.normal(size=9)
    _, entered = network.value(flat, inputs)
    found = network.gradient(flat, entered, slope)
    expected = optimize.approx_fprime(
        flat, lambda x: slope @ network.value(x, inputs)[0], 1e-7
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    start = network.start(rng)
    assert (network.value(start, inputs)[0] == 0).all()


def test_a_network_learns_what_there_is_and_a_constant_input_is_harmless():
    rng = np.random.default_rng(0)
    inputs = np.column_stack([rng.normal(5.0, 2.0, 400), np.full(400, 7.0)])
    target = np.sin(inputs[:, 0])

    def objective(output, rows):
        gap = output - target[rows]
        return float((gap**2).mean()), 2 * gap / rows.size

    plan = Plan((5,), 1e-6, 2, 3, 0)
    found = fit_network(inputs, objective, plan, no_progress)
    assert found.is_used
    assert found.loss_after < 0.5 * found.loss_before
    output = output_of(found.layers, inputs)
    assert ((output - target) ** 2).mean() == pytest.approx(found.loss_after)
    groups = np.arange(400) // 200
    alone = fit_network(inputs, objective, plan, no_progress, groups)
    assert alone.compared == ()  # two groups make no three folds


# --------------------------------------------------------------------- features


def test_top_places_and_scores_by_definition():
    z = np.array([[1.0, 3.0, 3.0, -np.inf], [-np.inf, -np.inf, 2.0, -np.inf]])
    assert top_places(z, 4).tolist() == [[1, 2, 0, 3], [2, 0, 1, 3]]
    own = sorted_log_probabilities(z, 3)
    expected = np.sort(log_softmax(z), axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(own, np.maximum(expected, LOWEST_LOG), rtol=1e-12)
    copies = np.random.default_rng(0).normal(size=(2, 2, 4)) * 50
    found = copy_scores(z, copies, 3)
    for row, places in enumerate(([1, 2, 0], [2, 0, 1])):
        expected = np.concatenate(
            [softmax(c[row : row + 1])[0, places] for c in copies]
        )
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


# -------------------------------------------------------------- correctness-aware


def test_copies_that_know_lower_the_loss_and_without_signal_nothing_is_learned():
    z, y, copies = draw(1500)
    new_z, new_y, new_copies = draw(6000, seed=1)
    fit = CorrectnessAware().fit(z, y, copies=copies)
    assert fit.n_copies_ == 3
    assert fit.layers_
    assert fit.loss_after_ < fit.loss_before_
    assert min(fit.compared_[1:]) < fit.compared_[0]
    assert fit.n_fitted_ == fit.n_parameters(5) == 1 + 13 * 5 + 6

    def brier(log_p):
        p = np.exp(log_p)
        return ((p.max(axis=1) - (p.argmax(axis=1) == new_y)) ** 2).mean()

    common = TemperatureScaling().fit(z, y)
    after = brier(fit.transform(new_z, copies=new_copies))
    assert after < 0.97 * brier(common.transform(new_z))
    noise = np.random.default_rng(2).normal(size=copies.shape)
    idle = CorrectnessAware(loss="cross-entropy").fit(z, y, copies=noise)
    assert not idle.layers_
    assert "common-temperature" in [note.code for note in idle.notes_]
    t = idle.temperatures(z, copies=noise)
    np.testing.assert_array_equal(t, idle.temperature_)
    assert idle.temperature_ == common.temperature_


def test_the_fallback_says_so_and_copies_must_be_those_of_the_fit():
    z, y, copies = draw()
    alone = CorrectnessAware().fit(z, y)
    assert "without-copies" in [note.code for note in alone.notes_]
    assert alone.reads == {"logits"}
    np.testing.assert_array_equal(alone.transform(z), alone.transform(z, copies=copies))
    fit = CorrectnessAware().fit(z, y, copies=copies)
    assert fit.reads == {"logits", "copies"}
    for wrong in (None, copies[:2], copies[:, :10], copies[0]):
        with pytest.raises(DataError, match="copies"):
            fit.transform(z, copies=wrong)
    one = CorrectnessAware().fit(z, y, copies=copies[:1])
    assert one.transform(z, copies=copies[:1]).shape == z.shape
    with pytest.raises(DataError, match="needs copies"):
        CorrectnessAwareReleased().fit(z, y)


@pytest.mark.parametrize("accuracy", [0.78, 0.3])
def test_undoing_the_weights_is_exact(accuracy):
    """q minimises the weighted loss at a; its inverse must be a again."""
    for target in (0.5, 0.2, 0.9):
        right, wrong = target / accuracy, (1 - target) / (1 - accuracy)
        for a in (0.05, 0.5, 0.73, 0.999):
            q = a * right / (a * right + (1 - a) * wrong)
            odds = q / (1 - q) * np.exp(log_odds_change(accuracy, target))
            assert odds / (1 + odds) == pytest.approx(a, rel=1e-12)
    # Figures of the paper's weights: a = 0.734 is pulled to 0.437 at A = 0.78.
    q = 0.734 * 0.22 / (0.734 * 0.22 + 0.266 * 0.78)
    assert q == pytest.approx(0.437, abs=1e-3)


def test_balanced_weights_lower_confidence_and_undoing_brings_it_back():
    z, y, copies = draw(2000, k=3)
    kept = {}
    for undo in (False, True):
        fit = CorrectnessAware(weighting="balanced", undo_weighting=undo)
        fit.fit(z, y, copies=copies)
        kept[undo] = fit.predict_proba(z, copies=copies).max(axis=1).mean()
        same = fit.predict(z, copies=copies) == z.argmax(axis=1)
        assert same.all()
    accuracy = (z.argmax(axis=1) == y).mean()
    assert abs(kept[True] - accuracy) < 0.03
    assert kept[False] < accuracy - 0.05
    aim = CorrectnessAware(weighting="target-accuracy", target_accuracy=0.9)
    aim.fit(z, y, copies=copies)
    assert aim.log_odds_change_ < 0
    assert (aim.predict(z, copies=copies) == z.argmax(axis=1)).all()


@pytest.mark.parametrize("case", ["all right", "all wrong", "one class", "two classes"])
@pytest.mark.parametrize(
    "method", ["correctness-aware", "parameterised-temperature", "top-versus-all-beta"]
)
def test_degenerate_rows(method, case):
    z, y, _ = draw(80, k=2 if case == "two classes" else 4)
    y = z.argmax(axis=1) if case == "all right" else y
    y = z.argmin(axis=1) if case == "all wrong" else y
    y = np.zeros_like(y) if case == "one class" else y
    fit = CALIBRATORS[method]().fit(z, y)
    found = fit.predict_proba(z)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-9)
    assert (found.argmax(axis=1) == z.argmax(axis=1)).all()
    assert (found.max(axis=1) >= 1 / z.shape[1] - 1e-9).all()
    if case.startswith("all"):
        assert fit.notes_


def test_one_hot_like_probabilities_and_extreme_rows():
    z, y, copies = draw(300)
    p = np.maximum(softmax(z * 60), 1e-300)
    for method in ("correctness-aware", *CURVES):
        given = {"copies": np.stack([softmax(c) for c in copies])}
        more = given if method == "correctness-aware" else {}
        fit = CALIBRATORS[method](input="probabilities").fit(p, y, **more)
        assert np.isfinite(fit.predict_proba(p, **more)).all()
    huge = np.vstack(
        [z[:5] * 1e4, np.where(z[5:9] < z[5:9].max(1)[:, None], -np.inf, 0)]
    )
    for method in CURVES:
        found = CALIBRATORS[method]().fit(z, y).transform(huge)
        assert (found.argmax(axis=1) == huge.argmax(axis=1)).all()
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-9)


def test_wrong_options_are_refused_and_a_fit_can_be_stopped():
    z, y, _ = draw(200)
    for options in (
        {"loss": "nll"},
        {"weighting": "x"},
        {"mixture": 2.0},
        {"target_accuracy": 1.0},
        {"ridge": -1.0},
        {"restarts": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            CorrectnessAware(**options).fit(z, y)
    told = []

    def stop(fraction, text):
        told.append(fraction)
        if len(told) > 20:
            raise Cancelled

    for method in ("correctness-aware", "parameterised-temperature"):
        told.clear()
        with pytest.raises(Cancelled):
            CALIBRATORS[method]().fit(z, y, progress=stop)
        assert all(0 <= share <= 1 for share in told)


# -------------------------------------------------------------------- as released


def test_the_released_fit_is_dead_for_many_seeds_and_says_so():
    z, y, copies = draw(1000)
    codes = {}
    for seed in range(8):
        fit = CorrectnessAwareReleased(seed=seed).fit(z, y, copies=copies)
        codes[seed] = [note.code for note in fit.notes_]
        assert "few-steps" in codes[seed]
        t = fit.temperatures(z, copies=copies)
        assert ((t >= 0.1) & (t <= 10)).all()
        dead = "dead-at-the-clip" in codes[seed]
        assert dead == (fit.clipped_after_ >= 0.99)
    n_dead = sum("dead-at-the-clip" in found for found in codes.values())
    assert 0 < n_dead < 8


def test_a_step_of_the_released_fit_goes_down():
    z, y, copies = draw(3000)
    seed = next(
        s
        for s in range(20)
        if CorrectnessAwareReleased(seed=s).fit(z, y, copies=copies).clipped_before_
        < 0.1
    )
    fit = CorrectnessAwareReleased(seed=seed).fit(z, y, copies=copies)
    assert fit.loss_after_ < fit.loss_before_
    again = CorrectnessAwareReleased(seed=seed).fit(z, y, copies=copies)
    assert again.to_dict() == fit.to_dict()


# ---------------------------------------------------------------- top-versus-all


def test_top_versus_all_finds_the_best_temperature():
    z, y, _ = draw(1500)
    fit = TopVersusAll().fit(z, y)

    def loss(t):
        p = softmax(z / t)
        q, right = p.max(axis=1), z.argmax(axis=1) == y
        return -np.log(np.where(right, q, 1 - q)).mean()

    best = optimize.minimize_scalar(loss, bounds=(0.5, 20), method="bounded")
    assert fit.temperature_ == pytest.approx(best.x, rel=1e-4)
    assert fit.loss_after_ == pytest.approx(loss(fit.temperature_), rel=1e-10)
    right = TopVersusAll().fit(z, z.argmax(axis=1))
    assert right.is_at_bound_
    assert "fit-at-bound" in [note.code for note in right.notes_]


@pytest.mark.parametrize("method", CURVES)
def test_the_curve_is_that_of_two_classes(method):
    z, y, _ = draw(500)
    fit = CALIBRATORS[method]().fit(z, y)
    q = softmax(z / fit.temperature_).max(axis=1)
    expected = fit.curve_.predict_proba(np.log(np.column_stack([1 - q, q])))[:, 1]
    found = fit.predict_proba(z).max(axis=1)
    second = np.sort(softmax(z / fit.temperature_), axis=1)[:, -2]
    lowest = second / (1 - q + second)
    is_free = expected > lowest + 1e-5
    np.testing.assert_allclose(found[is_free], expected[is_free], atol=1e-9)
    np.testing.assert_allclose(found[~is_free], lowest[~is_free], atol=1e-4)


def test_a_raised_class_stays_first_and_others_keep_their_ratios():
    z = np.array([[2.0, 1.9, 0.0], [3.0, 3.0, -np.inf], [0.0, -np.inf, -np.inf]])
    log_p = raised(z, z.argmax(axis=1), np.array([-5.0, -5.0, -5.0]))
    assert log_p.argmax(axis=1).tolist() == [0, 0, 0]
    assert log_p[0, 0] - log_p[0, 1] == pytest.approx(KEPT_GAP, rel=1e-6)
    assert log_p[0, 1] - log_p[0, 2] == pytest.approx(1.9)
    assert log_p[2, 0] == 0.0
    up = raised(z, z.argmax(axis=1), 1.5)
    before, after = log_softmax(z), up
    odds = before[0, 0] - np.log1p(-np.exp(before[0, 0]))
    assert after[0, 0] - np.log1p(-np.exp(after[0, 0])) == pytest.approx(odds + 1.5)


# ------------------------------------------------------- intra-order-preserving


def test_factors_minimise_the_documented_objective():
    z, y, _ = draw(400, k=4)
    fit = IntraOrderPreserving(ridge=2.0).fit(z, y)
    n, t = len(y), fit.temperature_

    def objective(m):
        order = np.argsort(-z, axis=1, kind="stable")
        found = np.zeros_like(z)
        for i in range(n):
            total = 0.0
            for j in range(3):
                total -= m[j] * (z[i, order[i, j]] - z[i, order[i, j + 1]])
                found[i, order[i, j + 1]] = total
        nll = -log_softmax(found)[np.arange(n), y].mean()
        return nll + 2.0 / n * ((t * m - 1) ** 2).sum()

    best = objective(fit.factors_)
    for place in range(3):
        for step in (1.02, 0.98):
            moved = fit.factors_.copy()
            moved[place] *= step
            assert objective(moved) > best
    assert fit.gradient_ <= 1e-5
    assert fit.nll_after_ <= fit.nll_before_
    common = IntraOrderPreserving(ridge=1e6).fit(z, y)
    np.testing.assert_allclose(
        common.transform(z), log_softmax(z, temperature=t), atol=1e-4
    )


# ------------------------------------------------------------------------ exports


def exported(method, k=4, **options):
    """A calibrator fitted with copies, its rows and its copies."""
    z, y, _ = draw(300, k)
    z[:4, 0] = -np.inf
    y[:4] = np.maximum(y[:4], 1)
    z[4:6] = 0.0
    copies = copies_of(z)
    return CALIBRATORS[method](**options).fit(z, y, copies=copies), z, copies


@pytest.mark.parametrize("kind", ["json", "python", "onnx", "onnx32"])
@pytest.mark.parametrize(
    ("method", "options", "k"),
    [
        ("correctness-aware", {"weighting": "balanced"}, 4),
        ("correctness-aware", {}, 2),
        ("correctness-aware-released", {"seed": 3}, 4),
    ],
)
def test_exports_with_copies_are_what_was_shown(method, options, k, kind):
    fit, z, copies = exported(method, k, **options)
    text = {"json": to_json, "python": to_python}.get(kind, lambda *_: "")(fit, {})
    binary = None
    if kind.startswith("onnx"):
        binary = to_onnx(fit, {}, "float64" if kind == "onnx" else "float32")
    found = verify(kind, text, fit, z, binary=binary, copies=copies)
    assert found.ok, found.problem
    assert found.max_difference <= (1e-5 if kind == "onnx32" else 1e-12)
    assert found.n_label_changes == 0


def test_an_export_of_probabilities_takes_copies_of_probabilities():
    fit, z, copies = exported("correctness-aware")
    z = log_softmax(z)
    for kind, write in (("json", to_json), ("python", to_python)):
        text = write(fit, {"input": "probabilities"})
        found = verify(kind, text, fit, z, copies=copies, input_kind="probabilities")
        assert found.ok, found.problem
    again, metadata = from_json(to_json(fit, {}))
    assert again.to_dict() == fit.to_dict()
    assert metadata["n_copies"] == 2
    assert np.shape(metadata["example_copies"]) == (2, 3, 4)
    assert from_json(to_json(again, metadata))[0].to_dict() == fit.to_dict()


def test_a_model_of_the_user_cannot_give_copies():
    fit, _, _ = exported("correctness-aware")
    with pytest.raises(DataError, match="reads copies beside the scores"):
        fuse(b"", fit, {})


@pytest.mark.parametrize(
    "change",
    [
        {"n_copies": 3},
        {"n_copies": -1},
        {"temperature": 0.0},
        {"bound": 3.0},
        {"layers": [{"weights": [[1.0]], "bias": [0.0]}]},
        {"log_odds_change": float("nan")},
        {"n_top": 2},
    ],
)
def test_impossible_files_are_refused(change):
    values = exported("correctness-aware")[0].to_dict()
    changed = values | {"parameters": values["parameters"] | change}
    with pytest.raises(DataError, match="not a calibrator"):
        Calibrator.from_dict(changed)
