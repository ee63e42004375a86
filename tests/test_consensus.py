"""Consensus of rankings: brute force, cycles, ties, and the tables of the papers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from core.consensus import consensus, critical_difference


def brute_force(scores):
    """Return the fewest pairs that any order has the other way round."""
    m, t = scores.shape

    def disagreements(order):
        return sum(
            scores[order[j], c] < scores[order[i], c]
            for i in range(m)
            for j in range(i + 1, m)
            for c in range(t)
        )

    return min(disagreements(order) for order in itertools.permutations(range(m)))


def disagreements_of(order, names, scores):
    place = [names.index(name) for name in order]
    m, t = scores.shape
    return sum(
        scores[place[j], c] < scores[place[i], c]
        for i in range(m)
        for j in range(i + 1, m)
        for c in range(t)
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_order_is_kemenys(seed):
    rng = np.random.default_rng(seed)
    m, t = 5, int(rng.integers(1, 6))
    # few distinct values: ties
    scores = rng.integers(0, 4 if seed % 2 else 100, (m, t)).astype(float)
    names = list("abcde")
    found = consensus(names, scores)
    assert sorted(found.order) == names
    assert found.is_exact
    least = brute_force(scores)
    assert disagreements_of(found.order, names, scores) == least
    n_pairs = t * m * (m - 1) / 2
    ties = sum(
        scores[i, c] == scores[j, c]
        for i in range(m)
        for j in range(i + 1, m)
        for c in range(t)
    )
    assert found.agreement == pytest.approx(1 - (least + ties / 2) / n_pairs)


def test_a_cycle_of_majorities_is_said():
    # a before b before c before a
    scores = np.array([[1.0, 3, 2], [2, 1, 3], [3, 2, 1]])
    found = consensus(["a", "b", "c"], scores)
    assert not found.is_condorcet
    assert found.is_exact
    assert found.agreement == pytest.approx(5 / 9)
    assert set(found.mean_rank.values()) == {2.0}
    clear = consensus(["a", "b", "c"], np.array([[1.0, 1], [2, 3], [3, 2]]))
    assert clear.is_condorcet
    assert clear.order[0] == "a"
    assert math.isnan(clear.stability)


def test_scales_do_not_matter_and_ties_share_their_rank():
    scores = np.array([[0.1, 100.0], [0.1, 300.0], [0.5, 200.0]])
    found = consensus(["a", "b", "c"], scores)
    assert found.mean_rank == {"a": 1.25, "b": 2.25, "c": 2.5}
    assert found.borda_order == ("a", "b", "c")
    again = consensus(["a", "b", "c"], scores * [[1e6, 1e-6]])
    assert again == found
    assert consensus(["a"], [[math.inf]]).order == ("a",)


def test_a_large_cycle_is_searched_and_says_so():
    rng = np.random.default_rng(0)
    m = 20
    scores = rng.random((m, 3))
    found = consensus([str(i) for i in range(m)], scores)
    assert sorted(found.order, key=int) == [str(i) for i in range(m)]
    if not found.is_exact:
        names = [str(i) for i in range(m)]
        borda = disagreements_of(found.borda_order, names, scores)
        assert disagreements_of(found.order, names, scores) <= borda


def test_missing_scores_are_refused():
    with pytest.raises(ValueError, match="missing"):
        consensus(["a", "b"], [[1.0, math.nan], [2.0, 3.0]])
    with pytest.raises(ValueError, match="shape"):
        consensus(["a", "b"], [[1.0, 2.0]])


def test_critical_differences_are_those_of_demsar():
    rng = np.random.default_rng(1)
    m, t = 5, 12
    scores = rng.random((m, t)) + np.arange(m)[:, None] * 0.4
    names = list("abcde")
    found = critical_difference(names, scores)
    assert found.n_data_sets == t
    # table 5a of the paper: q of five classifiers at 5 % is 2.728
    assert found.distance == pytest.approx(2.728 * np.sqrt(m * (m + 1) / 6 / t), 1e-3)
    chi2 = stats.friedmanchisquare(*scores).statistic
    f = (t - 1) * chi2 / (t * (m - 1) - chi2)
    assert found.p_value == pytest.approx(stats.f.sf(f, m - 1, (m - 1) * (t - 1)))
    mean = dict(zip(names, stats.rankdata(scores, axis=0).mean(1), strict=True))
    for group in found.groups:
        assert mean[group[-1]] - mean[group[0]] <= found.distance
    tied = critical_difference(names, np.round(scores * 2))
    chi2 = stats.friedmanchisquare(*np.round(scores * 2)).statistic
    f = (t - 1) * chi2 / (t * (m - 1) - chi2)
    assert tied.p_value == pytest.approx(stats.f.sf(f, m - 1, (m - 1) * (t - 1)))


def test_few_data_sets_have_no_critical_difference():
    assert critical_difference(["a", "b"], np.ones((2, 4))) is None
    same = critical_difference(["a", "b"], np.ones((2, 6)))
    assert same.p_value == 1
    assert same.groups == (("a", "b"),)
