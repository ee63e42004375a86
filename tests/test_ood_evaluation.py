"""The numbers of two sets of scores: twins, scikit-learn, intervals, edges."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from core.messages import DataError
from core.ood import compare_aurocs, evaluate_ood, evaluate_sets
from core.ood.evaluation import shift_of
from core.ood.separation import LABELS


def sets(n: int = 60, m: int = 40, seed: int = 0, digits: int | None = None) -> Any:
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(size=n), rng.normal(1.2, 1.3, size=m)
    if digits is not None:  # many ties
        inside, outside = inside.round(digits), outside.round(digits)
    return inside, outside


def slowly(inside: Any, outside: Any) -> dict[str, float]:
    """Every number by its definition."""
    n, m = len(inside), len(outside)
    wins = sum((o > i) + (o == i) / 2 for i in inside for o in outside)
    cuts = sorted({*inside, *outside})

    def accepted(values: Any, cut: float) -> int:
        return sum(v <= cut for v in values)

    def rejected(values: Any, cut: float) -> int:
        return sum(v >= cut for v in values)

    enough = min(c for c in cuts if accepted(inside, c) >= 0.95 * n - 1e-9)
    caught = max(c for c in cuts if rejected(outside, c) >= 0.95 * m - 1e-9)
    right = [accepted(inside, c) / n + 1 - accepted(outside, c) / m for c in cuts]
    return {
        "auroc": wins / (n * m),
        "aupr_in": average_precision_score(
            np.repeat([1, 0], [n, m]), -np.r_[inside, outside]
        ),
        "aupr_out": average_precision_score(
            np.repeat([0, 1], [n, m]), np.r_[inside, outside]
        ),
        "fpr95": accepted(outside, enough) / m,
        "fpr95_ood_positive": rejected(inside, caught) / n,
        "detection_accuracy": max(0.5, max(right) / 2),
    }


@pytest.mark.parametrize("digits", [None, 0, 1])
@pytest.mark.parametrize(("n", "m"), [(60, 40), (40, 60), (20, 1), (1, 20), (1, 1)])
def test_values_are_those_of_the_definitions(
    n: int, m: int, digits: int | None
) -> None:
    inside, outside = sets(n, m, digits=digits)
    found = evaluate_ood(inside, outside, n_resamples=100)
    expected = slowly(inside, outside)
    assert set(expected) == set(LABELS) == set(found.estimates)
    for name, value in expected.items():
        assert found.estimates[name].value == pytest.approx(value, abs=1e-12), name
        assert found.estimates[name].n == n + m
    area = roc_auc_score(np.repeat([0, 1], [n, m]), np.r_[inside, outside])
    assert found.auroc.value == pytest.approx(area)
    assert found.prevalence == m / (n + m)
    json.dumps(found.to_dict(), allow_nan=False)


def test_infinite_scores_are_ranks_and_nan_is_refused() -> None:
    inside, outside = sets()
    outside[3], inside[2] = np.inf, -np.inf
    found = evaluate_ood(inside, outside, n_resamples=100)
    big = evaluate_ood(
        *(np.clip(x, -99, 99) for x in (inside, outside)), n_resamples=100
    )
    assert found.auroc == big.auroc
    inside[5] = np.nan
    with pytest.raises(DataError, match="row 6"):
        evaluate_ood(inside, outside)
    with pytest.raises(DataError, match="at least one row"):
        evaluate_ood([], outside)


def test_turned_scores_give_one_minus_the_area_and_are_named() -> None:
    inside, outside = sets()
    plain, turned = (
        evaluate_ood(s * inside, s * outside, n_resamples=100) for s in (1, -1)
    )
    assert turned.auroc.value == pytest.approx(1 - plain.auroc.value)
    assert turned.is_below_chance
    assert not plain.is_below_chance
    assert [note.code for note in turned.notes] == ["below-chance"]
    assert plain.notes == ()
    # With the sets swapped as well, the two conventions change places.
    swapped = evaluate_ood(-outside, -inside, n_resamples=100)
    assert swapped.fpr95.value == plain.fpr95_ood_positive.value
    assert swapped.aupr_in.value == pytest.approx(plain.aupr_out.value)


def test_one_row_has_no_interval_and_sets_apart_have_an_exact_one() -> None:
    alone = evaluate_ood(sets()[0], [3.0], n_resamples=100)
    assert [note.code for note in alone.notes] == ["one-ood-row"]
    assert all(item.low is None for item in alone.estimates.values())
    apart = evaluate_ood(np.arange(50), np.arange(50, 80), n_resamples=100).auroc
    assert (apart.value, apart.high) == (1, 1)
    assert apart.low == pytest.approx(0.025 ** (1 / 30))
    assert (
        evaluate_ood(np.arange(50) + 99, np.arange(30), n_resamples=100).auroc.low == 0
    )
    same = evaluate_ood(np.zeros(9), np.zeros(7), n_resamples=100)
    assert same.auroc.value == same.auroc.low == same.auroc.high == 0.5
    assert same.fpr95.value == 1


def test_delongs_variance_is_that_of_the_definition() -> None:
    inside, outside = sets(30, 20, digits=1)
    v10 = [np.mean([(o > i) + (o == i) / 2 for o in outside]) for i in inside]
    v01 = [np.mean([(o > i) + (o == i) / 2 for i in inside]) for o in outside]
    area = np.mean(v01)
    variance = np.var(v10, ddof=1) / 30 + np.var(v01, ddof=1) / 20
    half = stats.norm.ppf(0.975) * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    found = evaluate_ood(inside, outside, n_resamples=100).auroc
    assert found.low == pytest.approx(1 / (1 + math.exp(half - logit)))
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - logit)))
    assert "DeLong" in found.method


def test_groups_widen_intervals() -> None:
    inside, outside = sets(200, 100)
    twice = [np.repeat(x, 2) for x in (inside, outside)]
    groups = [np.repeat(np.arange(len(x)), 2) for x in (inside, outside)]
    single = evaluate_ood(inside, outside)
    naive = evaluate_ood(*twice)
    grouped = evaluate_ood(*twice, id_groups=groups[0], ood_groups=groups[1])
    for name in LABELS:
        one, two, three = (r.estimates[name] for r in (single, naive, grouped))
        assert two.half_width < 0.85 * one.half_width, name
        assert three.half_width == pytest.approx(one.half_width, rel=0.25), name
    assert grouped.auroc.low == pytest.approx(single.auroc.low, abs=1e-3)
    assert "group" in grouped.auroc.method
    assert "group" in grouped.fpr95.method


def test_bins_change_intervals_little() -> None:
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(size=6000), rng.normal(1, 1, size=3000)
    found = evaluate_ood(inside, outside, n_resamples=400)
    draws: dict[str, list[float]] = {name: [] for name in LABELS}
    for _ in range(100):
        again = evaluate_ood(
            rng.choice(inside, 6000), rng.choice(outside, 3000), n_resamples=2
        )
        for name, item in again.estimates.items():
            draws[name].append(item.value)
    for name, item in found.estimates.items():
        spread = np.std(draws[name])
        assert item.half_width == pytest.approx(1.96 * spread, rel=0.3), name


def test_several_sets_share_their_in_distribution_rows() -> None:
    inside, outside = sets(100, 60)
    parts = {"near_a": outside, "far b": outside + 1, "far_c": outside + 2}
    found = evaluate_sets(inside, parts, n_resamples=200)
    assert list(found.means) == ["near", "far", "all"]
    assert found.members["far"] == ("far b", "far_c")
    alone = evaluate_ood(inside, parts["far b"], n_resamples=200)
    assert found.sets["far b"].auroc == alone.auroc
    for group, names in found.members.items():
        for name, item in found.means[group].items():
            values = [found.sets[n].estimates[name].value for n in names]
            assert item.value == pytest.approx(np.mean(values))
            assert item.low <= item.value <= item.high
    assert found.means["near"]["auroc"].low == found.sets["near_a"].auroc.low
    # The same set three times knows no more than once.
    same = evaluate_sets(inside, dict.fromkeys("abc", outside), n_resamples=100)
    assert set(same.means) == {"all"}
    single, mean = same.sets["a"].auroc, same.means["all"]["auroc"]
    assert single.low <= mean.low <= mean.value == pytest.approx(single.value)
    assert evaluate_sets(inside, {"a": outside}, n_resamples=100).means == {}
    chosen = evaluate_sets(
        inside, {"a": outside, "b": outside}, n_resamples=100, shifts={"a": "near"}
    )
    assert chosen.members == {"near": ("a",), "all": ("a", "b")}
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_kind_of_shift_is_the_first_word_of_a_name() -> None:
    names = ("near", "Near_x", "near-x", "nearby", "far/x", "farm", "x near")
    assert [shift_of(n) for n in names] == ["near", "near", "near", "", "far", "", ""]


def test_results_are_seeded_and_do_not_depend_on_threads() -> None:
    from core.parallel import configure

    inside, outside = sets(300, 200)
    found = []
    for n in (1, 3, None):
        configure(n)
        found.append(evaluate_ood(inside, outside, n_resamples=200).to_dict())
    assert found[0] == found[1] == found[2]
    other = evaluate_ood(inside, outside, n_resamples=200, seed=1).to_dict()
    assert other["fpr95"]["low"] != found[0]["fpr95"]["low"]
    assert other["auroc"] == found[0]["auroc"]


# ----------------------------------------------------------------- paired tests


def test_the_paired_difference_is_that_of_the_definition() -> None:
    inside, outside = sets(40, 30)
    rng = np.random.default_rng(5)
    other = inside + rng.normal(size=40), outside + rng.normal(size=30)

    def parts(a: Any, b: Any) -> Any:
        below = [[(o > i) + (o == i) / 2 for o in b] for i in a]
        return np.mean(below, axis=1), np.mean(below, axis=0)

    one, two = parts(inside, outside), parts(*other)
    variance = sum(
        np.var(x - y, ddof=1) / len(x) for x, y in zip(one, two, strict=True)
    )
    difference = one[1].mean() - two[1].mean()
    found = compare_aurocs((inside, outside), other)
    assert found.value == pytest.approx(difference)
    assert found.high - found.low == pytest.approx(
        2 * stats.norm.ppf(0.975) * math.sqrt(variance)
    )
    p_value = 2 * stats.norm.sf(abs(difference) / math.sqrt(variance))
    assert found.p_value == pytest.approx(p_value)
    assert found.n == 70


def test_a_score_differs_from_itself_by_nothing() -> None:
    found = compare_aurocs(sets(), sets())
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    with pytest.raises(DataError, match="different rows"):
        compare_aurocs(sets(), sets(61))
    alone = compare_aurocs(sets(60, 1), sets(60, 1, seed=1))
    assert alone.low is None


# ------------------------------------------------------------- simulated truth


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    delta, runs = 1.5, 400
    cut = stats.norm.ppf(0.95)
    truth = {
        "auroc": stats.norm.cdf(delta / math.sqrt(2)),
        "fpr95": stats.norm.cdf(cut - delta),
        "fpr95_ood_positive": stats.norm.sf(delta - cut),
        "detection_accuracy": stats.norm.cdf(delta / 2),
    }
    hits = dict.fromkeys(truth, 0)
    for _ in range(runs):
        inside, outside = rng.normal(size=400), rng.normal(delta, 1, size=300)
        found = evaluate_ood(inside, outside, n_resamples=300).estimates
        for name, value in truth.items():
            hits[name] += found[name].low <= value <= found[name].high
    for name in ("auroc", "fpr95", "fpr95_ood_positive"):
        assert 0.91 <= hits[name] / runs <= 0.985, (name, hits)
    # A best threshold is chosen on the rows it is measured on: a little optimistic.
    assert hits["detection_accuracy"] / runs >= 0.8, hits


@pytest.mark.slow
def test_paired_tests_hold_their_level() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(500):
        inside, outside = rng.normal(size=100), rng.normal(1, 1, size=100)
        pairs = [
            (inside + rng.normal(size=100), outside + rng.normal(size=100))
            for _ in range(2)
        ]
        rejected += compare_aurocs(*pairs).p_value < 0.05
    assert 0.03 <= rejected / 500 <= 0.075
