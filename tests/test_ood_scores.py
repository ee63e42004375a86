"""Scores against their slow twins, other libraries and known answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive_ood
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ood_cases import network, of_features, rows, strangers
from scipy import stats
from sklearn.covariance import ledoit_wolf_shrinkage

from core.messages import DataError, FitError
from core.ood import DETECTORS, Detector, Mahalanobis, evaluate_ood
from core.ood.gaussians import Moments
from core.ood.templates import weibull_fits
from core.predictions import Head, Predictions

STORED = json.loads(
    (Path(__file__).parent / "golden" / "ood_peers.json").read_text(encoding="utf-8")
)
COMBINED = {"rank-average", "logistic-combination"}


def fitted(method: str, own: Predictions, head: Head | None = None, **options: Any):
    made: Detector = DETECTORS[method](**options)
    return made.fit(
        own, head=network(d=np.shape(own.features)[1]) if head is None else head
    )


def case_of(own: Predictions, new: Predictions) -> naive_ood.Case:
    head = network()
    return naive_ood.Case(
        *(own.features, own.logits, own.labels, head.weight, head.bias),
        *(new.features, new.logits),
    )


# ------------------------------------------------------------------------- twins


def test_every_score_has_a_twin() -> None:
    assert set(naive_ood.TWINS) | COMBINED == set(DETECTORS)


@pytest.mark.parametrize("method", list(naive_ood.TWINS))
def test_scores_are_those_of_the_twin(method: str) -> None:
    own, new = rows(150, seed=1), strangers(25)
    options = {"share": 1.0} if method == "nnguide" else {}
    found = fitted(method, own, **options).score(new)
    expected = naive_ood.TWINS[method](case_of(own, new))
    loose = {"temperature-softmax": 1e-6, "openmax": 1e-3, "abet-posthoc": 1e-4}
    np.testing.assert_allclose(found, expected, rtol=loose.get(method, 1e-9))


@pytest.mark.parametrize("variant", ["p", "s"])
def test_the_other_variants_of_ash(variant: str) -> None:
    own, new = rows(50), strangers(25)
    found = fitted("ash", own, variant=variant, percentile=65).score(new)
    expected = naive_ood.ash(case_of(own, new), variant, 65)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_other_forms_of_the_logit_scores() -> None:
    own, new = rows(50), strangers(25)
    case = case_of(own, new)
    hot = -np.array([max(p) for p in naive_ood.naive.softmax(new.logits, 1000)])
    found = fitted("odin", own, form="softmax").score(new)
    np.testing.assert_allclose(found, hot, rtol=1e-12)
    # The default form ranks as a very high temperature does.
    limit = fitted("odin", own).score(new)
    assert stats.spearmanr(limit, found).statistic > 0.999
    gen = fitted("gen", own, gamma=0.5, n_classes=2).score(new)
    np.testing.assert_allclose(gen, naive_ood.gen(case, 0.5, 2), rtol=1e-9)
    warm = fitted("energy", own, temperature=2.0).score(new)
    expected = -2 * naive_ood.naive.logsumexp(new.logits, 2)
    np.testing.assert_allclose(warm, expected, rtol=1e-12)


def test_classes_that_are_ruled_out_count_for_nothing() -> None:
    z = strangers(20).logits
    masked = np.column_stack([z, np.full(20, -np.inf)])
    names = ["max-softmax", "gen", "energy", "max-logit", "entropy", "margin", "odin"]
    for method in (*names, "z-loss", "log-partition"):
        plain = DETECTORS[method]().score(Predictions.from_arrays(z))
        found = DETECTORS[method]().score(Predictions.from_arrays(masked))
        np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)


def test_probabilities_keep_what_does_not_need_the_scale() -> None:
    new = strangers(30)
    p = naive_ood.naive.softmax(new.logits)
    given = Predictions.from_arrays(p, input_kind="probabilities")
    for method in ("max-softmax", "gen", "entropy", "margin", "z-loss", "odin"):
        found, plain = (DETECTORS[method]().score(x) for x in (given, new))
        np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)
    for method in ("energy", "max-logit", "log-partition"):
        with pytest.raises(DataError, match="scale of the logits"):
            DETECTORS[method]().score(given)


def test_a_file_of_confidences_has_the_baseline() -> None:
    own = Predictions.from_arrays(
        input_kind="confidence", confidence=[0.9, 0.2], correct=[1, 0]
    )
    np.testing.assert_array_equal(DETECTORS["msp"]().score(own), [-0.9, -0.2])
    with pytest.raises(DataError, match="every class"):
        DETECTORS["entropy"]().score(own)


def test_weibull_tails_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    tails = [np.sort(rng.gamma(3, size=20)), np.array([2.0, 2.0]), np.array([1.0])]
    shape, scale, start = weibull_fits([*tails, np.array([])])
    moved = tails[0] - tails[0].min() + 10_000
    expected = stats.weibull_min.fit(moved, floc=0)
    assert shape[0] == pytest.approx(expected[0], rel=1e-3)
    assert scale[0] == pytest.approx(expected[2], rel=1e-3)
    at = [
        -stats.weibull_min.logpdf(moved, *c).sum()
        for c in (expected, (shape[0], 0, scale[0]))
    ]
    assert at[1] <= at[0] + 1e-9
    assert start[0] == tails[0][0]
    assert np.isnan(shape[1:]).all()


# ------------------------------------------------------------------ combinations


def test_the_mean_rank_of_several_scores() -> None:
    members = ("energy", "knn")
    made = fitted("rank-average", rows(150), members=members)
    new = strangers(20)
    scores = [item.score(new) for item in made.members_.values()]
    n = len(made.ordered_)
    expected = np.zeros(20)
    for own, values in zip(made.ordered_.T, scores, strict=True):
        for i, value in enumerate(values):
            rank = sum(x < value for x in own) + sum(x == value for x in own) / 2
            expected[i] += (rank + 0.5) / (n + 1) / 2
    np.testing.assert_allclose(made.score(new), expected)
    assert n == 30  # a fifth of the reference rows, which fitted no member


def test_a_combination_says_whether_strangers_tuned_it() -> None:
    own, new, odd = rows(300), rows(200, seed=2), strangers(200)
    made = fitted("logistic-combination", own)
    plain = evaluate_ood(made.score(new), made.score(odd), n_resamples=100)
    assert [n.code for n in made.notes_ if "tuned" in n.code] == ["not-tuned-on-ood"]
    made.tune(strangers(100, seed=8))
    (note,) = [n for n in made.notes_ if "tuned" in n.code]
    assert note.code == "tuned-on-ood"
    assert "100 validation rows" in note.text
    tuned = evaluate_ood(made.score(new), made.score(odd), n_resamples=100)
    assert tuned.auroc.value >= plain.auroc.value - 0.01


def test_members_must_be_usable_when_named() -> None:
    own = replace(rows(50), labels=None)
    with pytest.raises(FitError, match="mahalanobis"):
        fitted("rank-average", own, members=("energy", "mahalanobis"))
    assert "vim" in fitted("rank-average", own).members_


# ------------------------------------------------------------------------- peers


@pytest.fixture(scope="module")
def peer_rows() -> tuple[Predictions, Predictions, Head]:
    case = {name: np.array(values) for name, values in STORED["case"].items()}
    head = Head(case["weight"], case["bias"])

    def of(h: Any, y: Any = None) -> Predictions:
        return Predictions.from_arrays(h @ head.weight.T + head.bias, y, features=h)

    return of(case["h"], case["y"]), of(case["new_h"]), head


AGREEING = {
    "max-softmax": {},
    "max-logit": {},
    "energy": {},
    "kl-matching": {},
    "openmax": {},
    "vim": {},
    "she": {},
    "nnguide": {"k": 10, "share": 1.0},
    "nci": {},
    "dice": {},
    "react": {},
    "scale": {},
    "ash-b": {"variant": "b", "percentile": 65.0},
    "ash-p": {"variant": "p", "percentile": 65.0},
    "ash-s": {"variant": "s", "percentile": 65.0},
}


@pytest.mark.parametrize("name", AGREEING)
def test_scores_of_pytorch_ood(name: str, peer_rows: Any) -> None:
    own, new, head = peer_rows
    found = fitted(
        name.partition("-")[0] if "ash-" in name else name, own, head, **AGREEING[name]
    )
    loose = {"nnguide": 1e-5, "nci": 1e-4, "vim": 1e-4, "openmax": 1e-3}
    np.testing.assert_allclose(
        found.score(new), STORED["scores"][name], rtol=loose.get(name, 1e-6), atol=1e-9
    )


def test_scores_that_pytorch_ood_scales_otherwise(peer_rows: Any) -> None:
    own, new, head = peer_rows
    n, k = own.logits.shape
    p = naive_ood.naive.softmax(new.logits)
    is_inside = (p > 1e-7).all(axis=1)  # it clips smaller probabilities
    factors = {
        "gen": k,  # a mean in place of a sum
        "fdbd": k - 1,  # likewise
        "gradnorm": k,  # likewise, by automatic differentiation
        "mahalanobis": 2 * n,  # half of it, and no division of the covariance by n
        "relative-mahalanobis": n,  # neither covariance is divided by n
    }
    for name, factor in factors.items():
        theirs = factor * np.array(STORED["scores"][name])
        found = fitted(name, own, head).score(new)
        use = is_inside if name == "gen" else slice(None)
        np.testing.assert_allclose(found[use], theirs[use], rtol=2e-4)
    theirs = np.array(STORED["scores"]["entropy"])
    found = fitted("entropy", own, head).score(new)
    np.testing.assert_allclose(found[is_inside], theirs[is_inside], rtol=1e-6)
    assert is_inside.sum() > 30
    distance = np.sqrt(fitted("knn", own, head).score(new))  # not squared
    np.testing.assert_allclose(distance, STORED["scores"]["knn"], rtol=1e-6)


def test_where_pytorch_ood_differs(peer_rows: Any) -> None:
    own, new, head = peer_rows
    # Fifty steps of its optimiser do not reach the temperature of least loss.
    theirs = np.array(STORED["scores"]["temperature-softmax"])
    ours = fitted("temperature-softmax", own, head).score(new)
    assert np.abs(theirs - ours).max() > 1e-3
    assert stats.spearmanr(theirs, ours).statistic > 0.9
    # Percentiles of each feature by itself; OpenOOD takes those of all activations.
    vra = fitted("vra", own, head).score(new)
    assert np.abs(vra - STORED["scores"]["vra"]).max() > 1e-2


# ----------------------------------------------------------------- known answers


@pytest.mark.parametrize("covariance", ["cholesky", "ledoit-wolf", "pseudo-inverse"])
def test_gaussian_features_have_the_analytic_auroc(covariance: str) -> None:
    rng = np.random.default_rng(3)
    d, n = 6, 4000
    mixing = rng.normal(size=(d, d)) + 2 * np.eye(d)
    # One class at 0, strangers of the same shape but wider: d^2 is a scaled chi^2.
    h, new = (rng.normal(size=(n, d)) @ mixing for _ in range(2))
    wide = 1.3 * rng.normal(size=(n, d)) @ mixing
    own = Predictions.from_arrays(
        None, np.zeros(n, int), input_kind="features", features=h
    )
    made = Mahalanobis(covariance=covariance).fit(own)
    score = [
        made.score(Predictions.from_arrays(None, input_kind="features", features=x))
        for x in (new, wide)
    ]
    found = evaluate_ood(*score, n_resamples=100).auroc
    chance = stats.f.cdf(1.3**2, d, d)  # P(chi^2_in < 1.69 chi^2_out)
    assert found.low <= chance <= found.high


def test_the_analytic_auroc_of_a_shift() -> None:
    # Energy of one logit is a shift of a normal score: AUROC = Phi(delta / sqrt 2).
    rng = np.random.default_rng(5)
    inside, outside = rng.normal(3, 1, (3000, 1)), rng.normal(2, 1, (3000, 1))
    zeros = np.full((3000, 1), -1e3)
    score = [
        DETECTORS["energy"]().score(Predictions.from_arrays(np.hstack([z, zeros])))
        for z in (inside, outside)
    ]
    found = evaluate_ood(*score, n_resamples=100).auroc
    assert found.low <= stats.norm.cdf(1 / np.sqrt(2)) <= found.high


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_mahalanobis_is_unchanged_under_invertible_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    matrix = rng.normal(size=(4, 4)) + 3 * np.eye(4)
    if np.linalg.cond(matrix) > 1e3:
        return
    shift = rng.normal(size=4) * 10

    def score(f: Any) -> Any:
        own = Predictions.from_arrays(None, y, input_kind="features", features=f)
        return [DETECTORS[m]().fit(own).score(own) for m in ("mahalanobis", "rmds")]

    np.testing.assert_allclose(
        score(h @ matrix + shift), score(h), rtol=1e-6, atol=1e-8
    )


@settings(max_examples=25)
@given(st.floats(-50, 50), st.integers(0, 1000))
def test_a_shift_of_the_logits_shifts_the_energy(c: float, seed: int) -> None:
    z = 3 * np.random.default_rng(seed).normal(size=(5, 4))
    for name, moves in (
        ("energy", True),
        ("max-logit", True),
        ("gen", False),
        ("z-loss", False),
        ("odin", False),
    ):
        before, after = (
            DETECTORS[name]().score(Predictions.from_arrays(x)) for x in (z, z + c)
        )
        np.testing.assert_allclose(after, before - c * moves, rtol=1e-9, atol=1e-9)


def test_scores_rise_away_from_what_is_known() -> None:
    own, new, odd = rows(400), rows(300, seed=2), strangers(300)
    for name in ("mahalanobis", "rmds", "mds++", "rmds++", "knn", "vim"):
        made = fitted(name, own)
        found = evaluate_ood(made.score(new), made.score(odd), n_resamples=100)
        assert found.auroc.value > 0.6, name
    # The reference rows themselves lie nearer than new ones: no threshold from them.
    made = fitted("mahalanobis", own)
    assert np.median(made.score(own)) < np.median(made.score(new))


# ------------------------------------------------------- Mahalanobis, in full


def layered(n: int, seed: int, *, odd: bool = False) -> Predictions:
    """Two layers: the first tells strangers apart, the second does not."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    first = rng.normal(size=(n, 5)) * (2.0 if odd else 1.0) + y[:, None]
    second = rng.normal(size=(n, 4)) + 2 * np.eye(4)[y]
    layers = {"early": first, "features": second}
    return Predictions.from_arrays(
        None, y, input_kind="features", features=layers, classes=("a", "b", "c")
    )


def test_layers_are_weighed_with_and_without_strangers() -> None:
    own, new, odd = layered(600, 0), layered(400, 1), layered(400, 2, odd=True)
    last = Mahalanobis().fit(own)
    assert list(last.layers_) == ["features"]
    made = Mahalanobis(layers="all").fit(own)
    assert list(made.layers_) == ["early", "features"]
    np.testing.assert_array_equal(made.weights_.weight, [0.5, 0.5])
    assert "not-tuned-on-ood" in [note.code for note in made.notes_]
    # Standardised on rows that fitted no Gaussian: new rows have mean 0 and spread 1.
    scores = made._layer_scores(naive_rows(new))
    standard = (scores - made.weights_.mean) / made.weights_.scale
    assert np.abs(standard.mean(axis=0)).max() < 0.35
    before = evaluate_ood(made.score(new), made.score(odd), n_resamples=100).auroc
    made.tune(layered(200, 3, odd=True))
    after = evaluate_ood(made.score(new), made.score(odd), n_resamples=100).auroc
    assert after.value > before.value > 0.6
    assert made.weights_.weight[0] > 3 * abs(made.weights_.weight[1])
    assert "tuned-on-ood" in [note.code for note in made.notes_]
    again = Detector.from_dict(made.to_dict())
    np.testing.assert_array_equal(again.score(odd), made.score(odd))
    # With one layer there is nothing to weigh.
    assert Mahalanobis().fit(own).tune(odd).weights_ is None


def naive_rows(own: Predictions) -> Any:
    from core.ood.rows import Rows

    return Rows(own)


def test_features_of_preprocessed_inputs_are_scored() -> None:
    own, new = rows(150), rows(30, seed=1)
    h = np.asarray(new.features)
    moved = h + 0.1
    both = replace(new, features={"features": h, "features_preprocessed": moved})
    made = Mahalanobis(preprocessed=True).fit(own)
    np.testing.assert_array_equal(
        made.score(both), Mahalanobis().fit(own).score(of_features(moved))
    )
    np.testing.assert_array_equal(
        Mahalanobis().fit(own).score(both), Mahalanobis().fit(own).score(new)
    )
    with pytest.raises(DataError, match="features_preprocessed"):
        made.score(new)


@pytest.mark.parametrize("method", ["mahalanobis", "relative-mahalanobis"])
def test_a_class_may_be_added_without_the_rows_of_the_others(method: str) -> None:
    h, y = (np.asarray(a) for a in (rows(300).features, rows(300).labels))
    old, new = y < 3, y == 3

    def of(mask: Any, labels: Any) -> Predictions:
        return Predictions.from_arrays(
            None, labels, input_kind="features", features=h[mask]
        )

    made = DETECTORS[method]().fit(of(old, y[old]))
    assert set(made.predict(of(new, y[new]))) <= {0, 1, 2}
    weighted = DETECTORS[method]().fit(of(old, y[old]))
    weighted.add_class(of(new, y[new]), rule="weighted")
    # Weighing by rows is the same as a fit on all of them.
    whole = DETECTORS[method]().fit(of(old | new, y[old | new]))
    probe = strangers(40)
    np.testing.assert_allclose(weighted.score(probe), whole.score(probe), rtol=1e-8)
    before = made.gaussians_["features"].covariance
    made.add_class(of(new, None))
    gaps = h[new] - h[new].mean(axis=0)
    expected = (3 * before + gaps.T @ gaps / new.sum()) / 4
    np.testing.assert_allclose(made.gaussians_["features"].covariance, expected)
    (note,) = [n for n in made.notes_ if n.code == "class-added"]
    assert "covariances differ by" in note.text
    assert (made.predict(of(new, None)) == 3).mean() > 0.5
    assert not np.allclose(made.score(probe), whole.score(probe), rtol=1e-3)
    again = Detector.from_dict(made.to_dict())
    np.testing.assert_array_equal(again.score(probe), made.score(probe))
    with pytest.raises(ValueError, match="rule"):
        made.add_class(of(new, None), rule="none")


def test_the_classifier_of_the_gaussians() -> None:
    own, new = rows(400), rows(200, seed=1)
    assert (Mahalanobis().fit(own).predict(new) == new.labels).mean() > 0.8


def test_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 8)) * np.arange(1, 9)
    moments = Moments(8)
    for part in (x[:11], x[11:]):
        moments.add(part)
    expected = ledoit_wolf_shrinkage(x, assume_centered=True)
    assert moments.shrinkage == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(moments.covariance, x.T @ x / 30)


# ------------------------------------------------------------- degenerate inputs


def lone(h: Any, y: Any) -> Predictions:
    return Predictions.from_arrays(
        None, y, input_kind="features", features=np.asarray(h)
    )


def codes(made: Detector) -> list[str]:
    return [note.code for note in made.notes_]


def test_fewer_rows_than_dimensions() -> None:
    rng = np.random.default_rng(0)
    own, new = (lone(rng.normal(size=(n, 30)), np.arange(n) % 2) for n in (20, 50))
    made = Mahalanobis().fit(own)
    assert "rank-deficient" in codes(made)
    assert "effective rank 18 of 30" in " ".join(n.text for n in made.notes_)
    assert np.isfinite(made.score(new)).all()
    shrunk = Mahalanobis(covariance="ledoit-wolf").fit(own)
    assert "shrunk" in codes(shrunk)
    assert np.isfinite(shrunk.score(new)).all()
    with pytest.raises(FitError, match="rank 18 of 30"):
        Mahalanobis(covariance="cholesky").fit(own)
    assert np.isfinite(DETECTORS["rmds"]().fit(own).score(new)).all()


def test_dead_units_are_ignored_and_named() -> None:
    own, new = rows(200), rows(50, seed=1)
    dead = [np.column_stack([p.features, np.zeros((len(p), 2))]) for p in (own, new)]
    made = Mahalanobis().fit(lone(dead[0], own.labels))
    assert "effective rank 12 of 14" in " ".join(n.text for n in made.notes_)
    plain = Mahalanobis().fit(own)
    np.testing.assert_allclose(
        made.score(lone(dead[1], None)), plain.score(new), rtol=1e-8
    )


def test_one_class_a_class_of_one_row_and_copies() -> None:
    h = np.asarray(rows(60).features)
    single = Mahalanobis().fit(lone(h, np.zeros(60, int)))
    assert np.isfinite(single.score(lone(h, None))).all()
    relative = DETECTORS["rmds"]().fit(lone(h, np.zeros(60, int)))
    assert "one-class" in codes(relative)
    np.testing.assert_allclose(relative.score(lone(h, None)), 0, atol=1e-9)
    labels = np.append(np.zeros(59, int), 1)
    made = Mahalanobis().fit(lone(h, labels))
    assert "single-row-class" in codes(made)
    assert made.score(lone(h, None))[-1] == pytest.approx(0, abs=1e-9)
    gap = Mahalanobis().fit(lone(h, np.where(labels == 1, 3, 0)))
    assert "missing-class" in codes(gap)
    copies = lone(np.tile(h[:1], (60, 1)), np.zeros(60, int))
    for method in ("mahalanobis", "rmds", "mds++"):
        with pytest.raises(FitError, match="No feature varies"):
            DETECTORS[method]().fit(copies)
    assert np.isfinite(DETECTORS["knn"]().fit(copies).score(lone(h, None))).all()


def test_each_row_a_class_of_its_own() -> None:
    h = np.asarray(rows(20).features)
    with pytest.raises(FitError, match="No feature varies inside"):
        Mahalanobis().fit(lone(h, np.arange(20)))


def test_fewer_neighbours_than_asked_for() -> None:
    made = fitted("knn", rows(20))
    assert "fewer-neighbours" in codes(made)
    drawn = fitted("knn", rows(200), n_reference=50, k=5)
    assert "reference-drawn" in codes(drawn)
    assert "number 5 stands for about number 20" in " ".join(
        n.text for n in drawn.notes_
    )
    assert len(drawn.bank_) == 50
    whole = fitted("knn", rows(200), n_reference=0, k=5)
    assert len(whole.bank_) == 200
    # A drawn row is its own neighbour; distances to fewer rows are larger.
    assert (drawn.score(strangers()) >= whole.score(strangers()) - 1e-12).all()


def test_negative_features_are_named() -> None:
    h = np.random.default_rng(0).normal(size=(80, 12))
    for method in ("react", "vra", "ash", "scale", "dice"):
        made = fitted(method, of_features(h))
        assert "negative-features" in codes(made)
        assert np.isfinite(made.score(of_features(h))).all()
    assert np.isfinite(
        fitted("ash", of_features(h), variant="s").score(of_features(h))
    ).all()
    zeros = of_features(np.zeros((3, 12)))
    for variant in "bps":
        found = fitted("ash", rows(50), variant=variant).score(zeros)
        np.testing.assert_allclose(found, fitted("energy", rows(50)).score(zeros))
    np.testing.assert_allclose(
        fitted("scale", rows(50)).score(zeros), fitted("energy", rows(50)).score(zeros)
    )


def test_a_last_layer_of_another_network_is_noticed() -> None:
    own = rows(80)
    made = fitted("vim", own, network(seed=5))
    assert "head-mismatch" in codes(made)
    assert "head-mismatch" not in codes(fitted("vim", own))
    with pytest.raises(FitError, match="takes 11 features"):
        fitted("vim", own, network(d=11))
    with pytest.raises(DataError, match="5 classes, the rows have 4"):
        fitted("vim", own, network(k=5))


def test_one_output_is_a_binary_score() -> None:
    rng = np.random.default_rng(0)
    h = np.maximum(rng.normal(size=(60, 5)), 0)
    head = Head(rng.normal(size=(1, 5)), np.zeros(1))
    own = Predictions.from_arrays(h @ head.weight.T, rng.integers(0, 2, 60), features=h)
    for method in ("vim", "fdbd", "scale", "gradnorm"):
        assert np.isfinite(fitted(method, own, head).score(own)).all()


def test_the_layer_that_fits_the_head_is_taken() -> None:
    own = rows(60)
    layers = {"features": np.asarray(own.features), "wide": np.ones((60, 20))}
    made = fitted("vim", replace(own, features=layers), network())
    assert list(made.layers_) == ["features"]


def test_options_that_leave_nothing_are_refused() -> None:
    with pytest.raises(FitError, match="leaves nothing"):
        fitted("residual", rows(60), dimension=12)
    wrong = of_features(np.asarray(rows(40).features), np.zeros(40, int))
    shifted = replace(wrong, labels=(wrong.logits.argmax(axis=1) + 1) % 4)
    for method in ("openmax", "she"):
        with pytest.raises(FitError, match="predicted rightly"):
            fitted(method, shifted)


def test_a_temperature_needs_rows_that_are_wrong() -> None:
    own = rows(200)
    easy = replace(own, labels=_cosine_classes(own))
    made = fitted("abet-posthoc", easy)
    assert "too-few-errors" in codes(made)
    assert not made.direction_.any()
    again = Detector.from_dict(made.to_dict())
    np.testing.assert_array_equal(again.score(own), made.score(own))


def _cosine_classes(own: Predictions) -> Any:
    units = naive_ood.unit(network().weight)
    return (np.asarray(own.features) @ units.T).argmax(axis=1)


def test_nan_never_enters() -> None:
    h = np.asarray(rows(10).features).copy()
    h[3, 2] = np.nan
    with pytest.raises(DataError, match="A feature is nan: not finite") as found:
        lone(h, None)
    assert found.value.where.endswith("row 4, feature 3")
    with pytest.raises(DataError, match="A logit is nan"):
        of_features(h)


@pytest.mark.slow
@pytest.mark.parametrize("n_reference", [10_000, 0])
def test_neighbours_among_a_million_rows(n_reference: int) -> None:
    n, d, place = 1_000_000, 512, 123_456
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, d), dtype=np.float32)
    made = DETECTORS["knn"](n_reference=n_reference, k=1).fit(lone(features, None))
    assert len(made.bank_) == (n_reference or n)
    assert ("reference-drawn" in codes(made)) == bool(n_reference)
    new = features[place : place + 20] + np.float32(0.1)
    found = made.score(lone(new, None))
    bank = made.bank_ if n_reference else made.bank_[place : place + 20]
    units = new / np.linalg.norm(new, axis=1, keepdims=True)
    nearest = (2 - 2 * units.astype(float) @ bank.T.astype(float)).min(axis=1)
    np.testing.assert_allclose(found, nearest, rtol=1e-3)
