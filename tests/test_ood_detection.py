"""Rows by role, thresholds from rows of their own, and what pages and commands read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ood_cases import network, of_features, rows, strangers
from scipy import stats

from core.messages import FitError
from core.ood import (
    DETECTORS,
    INSIDE,
    Detector,
    Threshold,
    choose_threshold,
    densities,
    detect,
    detect_in_turn,
    divide,
    evaluate_ood,
    fit_detector,
    hardest_rows,
    mixtures,
    precision_recall_points,
    rejected_rows,
    roc_points,
    scatter,
    unusable_reasons,
    with_threshold,
)
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings

N = 240
FEW = {"n_resamples": 100}


def own_rows(
    kind: str, *, grouped: bool = False, n: int = N, h: Any = None
) -> Predictions:
    base = rows(n, seed=1)
    table = pd.DataFrame({"id": np.arange(n), "time": np.arange(n)})
    roles = {"id": "id"}
    if kind == "time":
        roles["time"] = "time"
    if kind == "file":
        names = np.array(["fit", "threshold", "test"])
        table["split"] = names[(np.arange(n) // 4) % 3]
    if kind == "two roles":
        table["split"] = np.where((np.arange(n) // 4) % 2, "calibration", "test")
    if "split" in table:
        roles["split"] = "split"
    if grouped:
        table["group"] = np.arange(n) // 4
        roles["group"] = "group"
    return of_features(
        np.asarray(base.features) if h is None else h,
        base.labels,
        metadata=table,
        roles=ColumnRoles(**roles),
    )


def study_of(kind: str, *, grouped: bool = False, h: Any = None, **more: Any) -> Study:
    ood = {"near_a": strangers(50), "far_b": strangers(40, seed=9)}
    fit = rows(120, seed=4, name="fit file") if kind == "fit-file" else None
    reference = rows(150, seed=6, name="reference") if kind == "reference" else None
    given = {"ood": ood, "fit": fit, "reference": reference, "head": network()} | more
    return Study(own_rows(kind, grouped=grouped, h=h), **given)


KINDS = {
    "file": {},
    "two roles": {},
    "fit-file": {},
    "reference": {},
    "nothing": {},
    "cross-fit": {"split": "cross-fit"},
    "holdout": {"split": "holdout", "threshold_fraction": 0.2},
    "time": {"split": "time"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def file_rows(part: Predictions) -> set[int]:
    return set(part.file_rows.tolist())


@every_kind
@pytest.mark.parametrize("grouped", [False, True])
def test_no_row_has_two_roles(kind: str, grouped: bool) -> None:
    study = study_of(kind, grouped=grouped)
    found = divide(study, Settings(**KINDS[kind]))
    parts = [found.threshold, found.test]
    if kind == "fit-file":
        assert found.reference.name == found.threshold.name == "fit file"
        assert not file_rows(found.reference) & file_rows(found.threshold)
        assert len(found.reference) + len(found.threshold) == 120
        assert len(found.test) == N
    else:
        assert not file_rows(found.threshold) & file_rows(found.test)
        assert not file_rows(found.held_out) & file_rows(found.test)
        assert not file_rows(found.held_out) & file_rows(found.threshold)
    if kind == "reference":
        assert found.reference is study.reference
    elif kind not in ("fit-file",):
        assert file_rows(found.reference) == file_rows(found.held_out)
    if grouped and kind != "fit-file":
        owners = [set(p.column("group")) for p in (*parts, found.held_out)]
        assert not owners[0] & owners[1]
        assert not (owners[0] | owners[1]) & owners[2]
    assert min(len(p) for p in (*parts, found.reference)) > 10
    assert "threshold rows" in found.sentence


def test_default_shares_of_a_file_that_says_nothing() -> None:
    found = divide(study_of("nothing"), Settings())
    sizes = [len(p) for p in (found.reference, found.threshold, found.test)]
    assert sizes == pytest.approx([N / 2, N / 4, N / 4], abs=8)
    assert found.split.kind == "holdout"
    apart = divide(study_of("reference"), Settings())
    assert len(apart.test) == pytest.approx(N / 2, abs=8)


def test_rows_without_labels_are_divided_too() -> None:
    own = replace(own_rows("nothing"), labels=None)
    found = divide(Study(own, ood={"a": strangers()}), Settings())
    assert len(found.reference) + len(found.threshold) + len(found.test) == N
    some = own_rows("nothing")
    labels = np.where(np.arange(N) % 3 == 0, -1, some.labels)
    found = divide(Study(replace(some, labels=labels)), Settings())
    assert len(found.reference) + len(found.threshold) + len(found.test) == N


def test_marked_rows_and_rows_of_the_reference_are_kept_apart() -> None:
    own = own_rows("nothing")
    marked = replace(own, is_ood=np.arange(N) < 30)
    found = divide(Study(marked), Settings())
    assert file_rows(found.ood["ood"]) == set(range(1, 31))
    for part in (found.reference, found.threshold, found.test):
        assert not file_rows(part) & set(range(1, 31))
    reference = own.take(np.arange(60), "reference")
    shared = divide(Study(own, reference=reference), Settings())
    assert "shared-with-reference" in [note.code for note in shared.notes]
    assert not (file_rows(shared.test) | file_rows(shared.threshold)) & set(
        range(1, 61)
    )
    with pytest.raises(FitError, match="reference row too"):
        divide(Study(own, reference=own), Settings())
    bare = replace(own, roles=replace(own.roles, id=None))
    with pytest.raises(FitError, match="reference row too"):
        divide(Study(bare, reference=bare), Settings())


def test_too_few_rows_to_divide() -> None:
    with pytest.raises(FitError):
        divide(Study(rows(1)), Settings())


# --------------------------------------------------------------------- leakage


def described(made: Detector) -> str:
    from core.ood.storage import to_json

    return to_json(made.to_dict())


@pytest.mark.parametrize("method", list(DETECTORS))
def test_no_fit_and_no_threshold_reads_rows_of_another_role(method: str) -> None:
    every = list(KINDS)
    number = list(DETECTORS).index(method)
    # Rows are handed over by one piece of code: the designs may take turns.
    for kind in (every[number % len(every)], every[(3 * number + 1) % len(every)]):
        settings = Settings(**KINDS[kind], **FEW, ood_tuning="validation")
        study = study_of(kind)
        first = detect(study, settings, methods=(method,))
        h = np.asarray(study.evaluation.features).copy()
        test = first.rows.test.file_rows - 1
        threshold = first.rows.threshold.file_rows - 1
        h[test] = 50 + 50 * np.random.default_rng(0).random(h[test].shape)
        changed = {n: replace(r, **_absurd(r)) for n, r in first.rows.ood.items()}
        ood = dict(study.ood)
        for name, own in changed.items():
            kept = own.file_rows - 1
            features = np.asarray(ood[name].features).copy()
            features[kept] = own.features
            ood[name] = of_features(features)
        # Test rows and reported OOD rows are absurd: fit and threshold stay.
        second = detect(study_of(kind, h=h, ood=ood), settings, methods=(method,))
        np.testing.assert_array_equal(
            second.rows.test.file_rows, first.rows.test.file_rows
        )
        one, two = first.results[method], second.results[method]
        assert described(two.detector) == described(one.detector)
        assert two.threshold == one.threshold
        if kind == "fit-file":
            continue
        # Threshold rows are absurd too: the fit stays, the threshold moves.
        h[threshold] = 50 + 50 * np.random.default_rng(1).random(h[threshold].shape)
        third = detect(study_of(kind, h=h, ood=ood), settings, methods=(method,))
        assert described(third.results[method].detector) == described(one.detector)
        assert third.results[method].threshold.value != one.threshold.value


def _absurd(own: Predictions) -> dict[str, Any]:
    return {"features": 1e3 * np.random.default_rng(2).random(np.shape(own.features))}


def test_held_out_rows_fit_what_must_not_see_the_rows_of_the_network() -> None:
    study = study_of("reference")
    found = divide(study, Settings())
    for method in ("temperature-softmax", "kl-matching", "abet-posthoc"):
        assert DETECTORS[method].fits_on == "held-out"
        made = fit_detector(found, Settings(), method)
        alone = DETECTORS[method]().fit(found.held_out, head=study.head)
        assert described(made) == described(alone)
    made = fit_detector(found, Settings(), "mahalanobis")
    assert made.n_reference_ == 150


# ------------------------------------------------------------------- detection


@pytest.fixture(scope="module")
def detection() -> Any:
    settings = Settings(**FEW, threshold_target=0.9)
    return detect(study_of("two roles"), settings, methods=("msp", "knn", "mds"))


def test_results_are_those_of_the_parts(detection: Any) -> None:
    assert list(detection.results) == ["max-softmax", "knn", "mahalanobis"]
    found = detection.results["knn"]
    made = DETECTORS["knn"]().fit(detection.rows.reference)
    test = made.score(detection.rows.test)
    np.testing.assert_array_equal(found.scores.test, test)
    odd = made.score(detection.rows.ood["far_b"])
    expected = evaluate_ood(test, odd, n_resamples=100)
    assert found.evaluation.sets["far_b"].auroc == expected.auroc
    assert set(found.evaluation.means) == {"near", "far", "all"}
    threshold = choose_threshold(made.score(detection.rows.threshold), target=0.9)
    assert found.threshold == threshold
    assert found.rates[INSIDE].value == (test <= threshold.value).mean()
    assert found.rates["far_b"].value == (odd <= threshold.value).mean()
    json.dumps(detection.to_dict(), allow_nan=False)


def test_differences_are_paired(detection: Any) -> None:
    found = detection.against("max-softmax")
    assert set(found) == {"knn", "mahalanobis"}
    for name, item in found["knn"].items():
        one, two = (
            detection.results[m].evaluation.sets[name].auroc.value
            for m in ("knn", "max-softmax")
        )
        assert item.value == pytest.approx(one - two)
        assert item.low <= item.value <= item.high
        assert 0 <= item.p_value <= 1


def test_what_cannot_be_used_is_named_with_the_reason() -> None:
    study = study_of("nothing", head=None)
    found = detect(study, Settings(**FEW))
    assert "last layer" in found.skipped["vim"]
    assert "max-softmax" in found.results
    bare = replace(study.evaluation, features=None)
    reasons = unusable_reasons(divide(Study(bare, ood=study.ood), Settings()))
    assert "no features" in reasons["knn"]
    assert "energy" not in reasons
    # An OOD set without features cannot be scored either.
    ood = {"a": replace(strangers(), features=None)}
    reasons = unusable_reasons(divide(Study(study.evaluation, ood=ood), Settings()))
    assert "strangers has no features" in reasons["knn"]
    p = Predictions.from_arrays(
        np.full((60, 2), 0.5), np.arange(60) % 2, input_kind="probabilities"
    )
    assert "scale" in unusable_reasons(divide(Study(p), Settings()))["energy"]


def test_a_set_with_features_of_another_width_is_named() -> None:
    wide = Predictions.from_arrays(
        strangers(9).logits, features=np.ones((9, 7)), name="wide"
    )
    study = study_of("nothing", ood={"wide": wide})
    found = detect(study, Settings(**FEW), methods=("knn", "energy"))
    assert found.skipped["knn"].startswith("wide: The layer 'features' has 7 features")
    assert list(found.results) == ["energy"]


def test_a_fit_that_fails_is_skipped_with_the_reason() -> None:
    settings = Settings(**FEW, options=(("residual", "dimension", 12),))
    found = detect(study_of("nothing"), settings, methods=("residual", "energy"))
    assert "leaves nothing" in found.skipped["residual"]
    assert list(found.results) == ["energy"]
    with pytest.raises(FitError, match="no option"):
        fit_detector(found.rows, Settings(options=(("knn", "x", 1),)), "knn")


def test_without_an_ood_set_there_is_a_threshold_all_the_same() -> None:
    found = detect(study_of("nothing", ood={}), Settings(**FEW), methods=("energy",))
    item = found.results["energy"]
    assert item.evaluation is None
    assert set(item.rates) == {INSIDE}
    assert 0.8 <= item.rates[INSIDE].value <= 1


def test_tuning_says_what_it_saw() -> None:
    methods = ("logistic-combination",)
    options = {"methods": methods}
    study = study_of("two roles")
    plain = detect(study, Settings(**FEW), **options)
    assert plain.rows.validation == {}
    assert len(plain.rows.ood["near_a"]) == 50
    aside = detect(study, Settings(**FEW, ood_tuning="validation"), **options)
    assert len(aside.rows.validation["near_a"]) == 10
    assert not file_rows(aside.rows.validation["near_a"]) & file_rows(
        aside.rows.ood["near_a"]
    )
    assert "18 OOD rows set aside" in aside.rows.sentence
    crossed = detect(study, Settings(**FEW, ood_tuning="cross-fit"), **options)
    codes = [
        [n.code for n in d.results[methods[0]].notes if "ood" in n.code]
        for d in (plain, aside, crossed)
    ]
    assert codes == [
        ["not-tuned-on-ood"],
        ["tuned-on-ood"],
        ["tuned-on-ood", "cross-fitted-on-ood"],
    ]
    scores = [d.results[methods[0]].scores.ood["far_b"] for d in (plain, crossed)]
    assert not np.allclose(*scores)
    assert np.isfinite(scores[1]).all()


def test_rules_that_need_strangers_set_some_aside() -> None:
    for rule, target in (("fpr", 0.2), ("cost", 0.95)):
        settings = Settings(**FEW, threshold_rule=rule, threshold_target=target)
        found = detect(study_of("two roles"), settings, methods=("mahalanobis",))
        item = found.results["mahalanobis"]
        assert item.threshold.miss.n == 18
        assert len(found.rows.ood["near_a"]) == 40
        if rule == "fpr":
            assert item.threshold.miss.value <= 0.2
    with pytest.raises(FitError, match="needs out-of-distribution rows"):
        detect(study_of("nothing", ood={}), settings, methods=("energy",))


def test_near_and_far_may_be_chosen() -> None:
    settings = Settings(**FEW, near_sets=("far_b",), far_sets=("near_a",))
    found = detect(study_of("nothing"), settings, methods=("energy",))
    members = found.results["energy"].evaluation.members
    assert members["near"] == ("far_b",)
    assert members["far"] == ("near_a",)


# ------------------------------------------------------------------ thresholds


def test_the_threshold_is_an_order_statistic_with_exact_bounds() -> None:
    score = np.random.default_rng(0).normal(size=199)
    found = choose_threshold(score)
    assert found.value == np.sort(score)[189]  # ceil(0.95 * 200) = 190
    acceptance = found.acceptance
    assert acceptance.value == 0.95
    assert acceptance.low == pytest.approx(stats.beta.ppf(0.025, 190, 10))
    assert acceptance.high == pytest.approx(stats.beta.ppf(0.975, 190, 10))
    assert (acceptance.n, acceptance.rows) == (199, "threshold")
    assert found.accepts(score).sum() == 190
    assert Threshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_few_rows_promise_little() -> None:
    found = choose_threshold([3.0, 1.0, 2.0])
    assert found.value == 3
    (note,) = found.notes
    assert "19 rows would" in note.text
    assert found.acceptance.value == 0.75
    assert choose_threshold([1.0] * 50).accepts([1.0]).all()
    grouped = choose_threshold(np.arange(100.0), is_grouped=True)
    assert [n.code for n in grouped.notes] == ["grouped-threshold"]
    assert "no number" in choose_threshold([1.0], target=1.0).notes[0].text


def test_a_wanted_share_of_strangers() -> None:
    inside, outside = np.arange(100.0), np.arange(50.0, 150)
    found = choose_threshold(inside, outside, rule="fpr", target=0.1)
    assert found.value == 59  # 10 of 100
    assert found.miss.value == 0.1
    assert found.acceptance.value == 0.6
    none = choose_threshold(inside, outside, rule="fpr", target=0.0)
    assert none.miss.value == 0
    assert none.acceptance.value == 0.5
    tied = choose_threshold(inside, np.full(20, 60.0), rule="fpr", target=0.5)
    assert tied.miss.value == 0


def test_the_least_cost() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=300), rng.normal(2, 1, size=200)
    for cost, share in ((1, 0.5), (10, 0.1), (0.1, 0.5)):
        found = choose_threshold(
            inside, outside, rule="cost", cost=cost, ood_share=share
        )

        def total(cut: float, cost: float = cost, share: float = share) -> float:
            return (1 - share) * (inside > cut).mean() + share * cost * (
                outside <= cut
            ).mean()

        best = min(total(c) for c in (-99, *inside, *outside))
        assert total(found.value) == pytest.approx(best)
    with pytest.raises(ValueError, match="rule"):
        choose_threshold(inside, rule="best")


@pytest.mark.slow
def test_false_alarms_on_fresh_rows_stay_within_the_bound() -> None:
    rng, inside, shares = np.random.default_rng(0), 0, []
    for _ in range(500):
        found = choose_threshold(rng.standard_t(3, size=400))
        share = stats.t.cdf(found.value, 3)  # of infinitely many fresh rows
        inside += found.acceptance.low <= share <= found.acceptance.high
        shares.append(share)
    assert 0.925 <= inside / 500 <= 0.975
    assert np.mean(shares) == pytest.approx(0.95, abs=0.003)


@pytest.mark.slow
def test_a_threshold_from_the_fit_rows_would_reject_far_too_much() -> None:
    rng = np.random.default_rng(0)

    def of(n: int) -> Predictions:
        return Predictions.from_arrays(
            None,
            np.zeros(n, int),
            input_kind="features",
            features=rng.normal(size=(n, 256)),
        )

    reference, fresh = of(2000), of(20_000)
    made = DETECTORS["mahalanobis"]().fit(reference)
    assert "few-reference-rows" not in [n.code for n in made.notes_]
    cut = np.quantile(made.score(reference), 0.95)
    assert (made.score(fresh) > cut).mean() > 0.3
    own = choose_threshold(made.score(of(2000)))
    rejected = (made.score(fresh) > own.value).mean()
    assert 1 - own.acceptance.high - 0.01 <= rejected <= 1 - own.acceptance.low + 0.01


# --------------------------------------------------------- what figures show


def test_curves_hold_their_areas() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=900), rng.normal(1, 1, size=800)
    found = evaluate_ood(inside, outside, n_resamples=100)
    for most in (50, 5000):
        fpr, tpr, cut = roc_points(inside, outside, most)
        assert (fpr[0], tpr[0], cut[0]) == (0, 0, -np.inf)
        assert (fpr[-1], tpr[-1]) == (1, 1)
        assert len(fpr) <= most + 3 or most == 5000
        area = np.trapezoid(tpr, fpr)
        assert area == pytest.approx(found.auroc.value, abs=1 / most + 1e-9)
    for positive, name in (("ood", "aupr_out"), ("in-distribution", "aupr_in")):
        recall, precision, _ = precision_recall_points(
            inside, outside, positive=positive, most=5000
        )
        area = np.sum(np.diff(recall, prepend=0) * precision)
        assert area == pytest.approx(found.estimates[name].value)


def test_densities_have_one_area_each() -> None:
    rng = np.random.default_rng(0)
    sets = {
        "a": rng.normal(size=500),
        "b": rng.normal(5, 1, size=30),
        "c": np.array([np.inf]),
    }
    found = densities(sets)
    for values in found.density.values():
        assert np.sum(values * np.diff(found.edges)) == pytest.approx(1)
    assert np.isfinite(densities({"a": [1.0, 1.0]}).edges).all()


def test_rows_to_look_at(detection: Any) -> None:
    hard = hardest_rows(detection, "mahalanobis", 5)
    scores = np.concatenate(list(detection.results["mahalanobis"].scores.ood.values()))
    np.testing.assert_allclose(hard["score"], np.sort(scores)[:5])
    assert set(hard["set"]) <= {"near_a", "far_b"}
    assert hard["accepted"].all()
    rejected = rejected_rows(detection, "mahalanobis", 5)
    own = detection.results["mahalanobis"].scores.test
    np.testing.assert_allclose(rejected["score"], np.sort(own)[::-1][:5])
    assert set(rejected["set"]) == {INSIDE}
    assert rejected["share_above"].iloc[0] == 0
    assert {"id", "prediction", "confidence", "file_row"} <= set(rejected.columns)
    drawn = scatter(detection, "knn", most=20)
    assert drawn.groupby("set").size().max() == 20
    assert drawn["confidence"].between(0, 1).all()
    alone = detect(study_of("nothing", ood={}), Settings(**FEW), methods=("knn",))
    assert hardest_rows(alone, "knn").empty


def test_what_strangers_do_to_calibration(detection: Any) -> None:
    own, odd = detection.rows.test, detection.rows.ood["far_b"]
    item = detection.results["mahalanobis"]
    accepted = (
        item.threshold.accepts(item.scores.test),
        item.threshold.accepts(item.scores.ood["far_b"]),
    )
    found = mixtures(own, odd, accepted, Settings())
    plain, rejecting = found[: len(found) // 2], found[len(found) // 2 :]
    confidence = np.exp(
        own.logits - np.logaddexp.reduce(own.logits, axis=1)[:, None]
    ).max(axis=1)
    right = own.logits.argmax(axis=1) == own.labels
    strange = np.exp(odd.logits - np.logaddexp.reduce(odd.logits, axis=1)[:, None]).max(
        axis=1
    )
    for point in plain:
        s = point.share
        assert point.coverage == pytest.approx(1)
        assert point.ood_share == pytest.approx(s)
        assert point.accuracy == pytest.approx((1 - s) * right.mean())
        mean = (1 - s) * confidence.mean() + s * strange.mean()
        assert point.confidence == pytest.approx(mean)
    gaps = [point.gap for point in plain]
    assert gaps == sorted(gaps)  # strangers make the network overconfident
    for point in rejecting:
        s, kept = point.share, [a.mean() for a in accepted]
        assert point.coverage == pytest.approx((1 - s) * kept[0] + s * kept[1])
        if s:
            assert point.ood_share < s
            assert point.bins.count.sum() == accepted[0].sum() + accepted[1].sum()
    assert plain[0].bins.count.sum() == len(own)
    nobody = mixtures(
        own, odd, (np.zeros(len(own), bool), np.zeros(40, bool)), Settings()
    )
    assert nobody[-1].bins is None
    assert math.isnan(nobody[-1].gap)


def test_in_turn_ends_where_detect_does_and_reuses_what_is_known() -> None:
    study, settings = study_of("reference"), Settings(**FEW)
    methods = ("vim", "energy", "max-softmax", "temperature-softmax", "openmax")
    whole = detect(study, settings, methods=methods)
    divided = divide(study, settings)
    said: list[float] = []
    found = list(
        detect_in_turn(divided, settings, methods, lambda share, _: said.append(share))
    )
    assert [list(item.results) for item in found[:2]] == [
        ["energy"],
        ["energy", "max-softmax"],
    ]
    assert [len(item.results) for item in found] == [1, 2, 3, 4, 5]
    assert said == sorted(said)
    assert list(found[-1].results) == list(whole.results)
    for name, item in whole.results.items():
        assert found[-1].results[name].to_dict() == item.to_dict()
    (again,) = detect_in_turn(divided, settings, methods, known=found[-1].results)
    assert again.results == found[-1].results
    (none,) = detect_in_turn(
        replace(divided, head=None), settings, ("vim",), known=whole.results
    )
    assert not none.results
    assert "last layer" in none.skipped["vim"]


def test_another_threshold_needs_no_new_scores() -> None:
    study, settings = study_of("reference"), Settings(**FEW)
    found = detect(study, settings, methods=("energy",))
    changed = settings.replace(threshold_target=0.8)
    expected = detect(study, changed, methods=("energy",)).results["energy"]
    made = with_threshold(found.results["energy"], changed, found.rows)
    assert made.to_dict() == expected.to_dict()
    assert made.scores is found.results["energy"].scores
