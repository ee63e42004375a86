"""Worst class, worst slice and rows to review: right, and silent without a cause."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from prediction_files import Sample, csv, hollance
from scipy import stats
from test_app import SAMPLES, opened, upload, words

from app import cli
from core.analysis import measure
from core.findings import MOST_REVIEWED, find
from core.loading import open_study, read_predictions
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.slices import part_gaps, shared_correlation

PLAIN = Settings(n_resamples=100)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def exact_interval(right: int, n: int, level: float) -> tuple[float, float]:
    """Clopper-Pearson by SciPy's own test, which shares no code with core."""
    found = stats.binomtest(right, n).proportion_ci(level, method="exact")
    return found.low, found.high


def naive_gap(confidence, outcome, level):
    """Gap and interval of some rows, in plain Python."""
    n = len(confidence)
    centre = math.fsum(confidence) / n
    low, high = exact_interval(round(sum(outcome)), n, level)
    return centre - sum(outcome) / n, centre - high, centre - low


def naive_correlation(residual, part, groups):
    """Mean product of pairs of one group and part over the mean square."""
    centre = {
        k: float(np.mean([r for r, p in zip(residual, part, strict=True) if p == k]))
        for k in set(part)
    }
    e = [r - centre[p] for r, p in zip(residual, part, strict=True)]
    n = len(e)
    products = [
        e[i] * e[j]
        for i in range(n)
        for j in range(n)
        if i != j and part[i] == part[j] and groups[i] == groups[j]
    ]
    square = math.fsum(item**2 for item in e) / n
    return min(max(math.fsum(products) / len(products) / square, 0.0), 1.0)


def rows(n=1200, k=4, seed=0, design="calibrated", groups=0, n_slices=6):
    """Return a study in which no class and no slice differs from the others."""
    rng = np.random.default_rng(seed)
    z = {"sure": 6.0}.get(design, 2.0) * rng.normal(size=(n, k))
    noise = rng.gumbel(size=z.shape)
    metadata = pd.DataFrame({"place": rng.integers(0, n_slices, n).astype(str)})
    roles = ColumnRoles(slices=("place",))
    if groups:
        unit = np.repeat(np.arange(groups), n // groups)
        # Rows of a group share how well the scores work.
        hard = rng.random(groups) < 0.3
        noise = noise * np.where(hard, 3.0, 1.0)[unit][:, None]
        place = rng.integers(0, n_slices, groups).astype(str)[unit]
        metadata = pd.DataFrame({"place": place, "unit": unit})
        roles = ColumnRoles(slices=("place",), group="unit")
    labels = (z + noise).argmax(axis=1)
    if design == "overconfident":
        z = 2 * z
    return z, labels, metadata, roles


def study_of(z, labels, metadata, roles, **more) -> Study:
    return Study(
        Predictions.from_arrays(z, labels, metadata=metadata, roles=roles, **more)
    )


def found_in(study: Study, settings: Settings = PLAIN):
    return find(study, settings, measure(study, settings))


def test_part_gaps_agree_with_a_loop_and_an_exact_test() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.3, 1, 300)
    outcome = (rng.random(300) < confidence - 0.1).astype(float)
    part = rng.integers(0, 5, 300)
    found = part_gaps(confidence, outcome, part, 6, level=0.9)
    for k in range(5):
        inside = naive_gap(confidence[part == k], outcome[part == k], 0.9)
        outside = naive_gap(confidence[part != k], outcome[part != k], 0.9)
        sides = ((found.part, inside), (found.rest, outside))
        for gaps, (value, low, high) in sides:
            assert gaps.value[k] == pytest.approx(value, abs=1e-12)
            assert gaps.low[k] == pytest.approx(low, abs=1e-9)
            assert gaps.high[k] == pytest.approx(high, abs=1e-9)
        value = inside[0] - outside[0]
        low = value - math.hypot(inside[0] - inside[1], outside[2] - outside[0])
        high = value + math.hypot(inside[2] - inside[0], outside[0] - outside[1])
        assert found.difference.value[k] == pytest.approx(value, abs=1e-12)
        assert found.difference.low[k] == pytest.approx(low, abs=1e-9)
        assert found.difference.high[k] == pytest.approx(high, abs=1e-9)
    assert found.count[5] == 0
    assert np.isnan(found.part.value[5])
    assert found.excess[5] == -np.inf


def test_weights_that_repeat_a_row_count_as_fewer_rows() -> None:
    rng = np.random.default_rng(4)
    confidence, part = rng.uniform(0.5, 1, 400), rng.integers(0, 3, 400)
    outcome = (rng.random(400) < confidence).astype(float)
    plain = part_gaps(confidence, outcome, part, 3)
    same = part_gaps(confidence, outcome, part, 3, sample_weight=np.full(400, 7.0))
    np.testing.assert_allclose(same.difference.low, plain.difference.low, rtol=1e-9)
    weight = rng.gamma(1.0, 1.0, 400)
    found = part_gaps(confidence, outcome, part, 3, sample_weight=weight)
    for k in range(3):
        here = part == k
        value = np.average((confidence - outcome)[here], weights=weight[here])
        assert found.part.value[k] == pytest.approx(value, abs=1e-12)
    width = found.part.high - found.part.low
    assert (width > plain.part.high - plain.part.low).all()


def test_groups_enter_by_the_correlation_that_their_rows_share() -> None:
    rng = np.random.default_rng(5)
    groups, part = rng.integers(0, 12, 90), rng.integers(0, 3, 90)
    residual = rng.normal(size=90) + rng.normal(size=12)[groups]
    wanted = naive_correlation(residual, part, groups)
    assert 0 < wanted < 1
    assert shared_correlation(residual, part, groups) == pytest.approx(wanted, rel=1e-9)
    alone = np.arange(90)
    assert shared_correlation(residual, part, alone) == 0
    confidence = rng.uniform(0.5, 1, 90)
    outcome = (rng.random(90) < confidence).astype(float)
    plain = part_gaps(confidence, outcome, part, 3)
    single = part_gaps(confidence, outcome, part, 3, groups=alone)
    np.testing.assert_allclose(single.difference.low, plain.difference.low, rtol=1e-9)


def test_rows_repeated_within_groups_are_no_news() -> None:
    rng = np.random.default_rng(6)
    confidence, part = rng.uniform(0.5, 1, 200), rng.integers(0, 2, 200)
    outcome = (rng.random(200) < confidence).astype(float)
    once = part_gaps(confidence, outcome, part, 2)
    copies = [np.repeat(item, 4) for item in (confidence, outcome, part)]
    groups = np.repeat(np.arange(200), 4)
    found = part_gaps(*copies, 2, groups=groups)
    np.testing.assert_allclose(found.difference.low, once.difference.low, rtol=1e-9)


def test_the_class_whose_confidence_is_inflated_is_named() -> None:
    z, labels, metadata, roles = rows(4000)
    is_predicted = z.argmax(axis=1) == 2
    z[is_predicted] *= 4
    found = found_in(study_of(z, labels, metadata, roles)).worst_class
    assert found.value == "class 2"
    assert found.is_detectable
    assert found.gap.n == is_predicted.sum()
    assert found.gap.n + found.rest.n == 4000
    assert found.gap.level == pytest.approx(1 - 0.05 / 4)
    assert found.gap.low <= found.gap.value <= found.gap.high
    assert found.sentence.startswith("class 2: gap +")


def test_a_slice_is_found_on_one_half_and_measured_on_the_other() -> None:
    z, labels, metadata, roles = rows(4000)
    z[(metadata["place"] == "3").to_numpy()] *= 4
    result = found_in(study_of(z, labels, metadata, roles))
    found = result.worst_slice
    assert (found.column, found.value) == ("place", "3")
    assert found.is_detectable
    assert found.n_searched == 2000
    assert found.gap.n + found.rest.n == 2000
    assert found.n_candidates == 6
    assert not result.worst_class.is_detectable
    assert result.worst_class.sentence == (
        "Nothing detectable among 4 predicted classes."
    )


def test_a_group_is_never_in_both_halves() -> None:
    z, labels, metadata, roles = rows(1200, groups=60)
    found = found_in(study_of(z, labels, metadata, roles)).worst_slice
    assert found.n_searched == 600  # 30 groups of 20 rows


def test_rows_to_review_are_wrong_and_the_most_surprising_first() -> None:
    z, labels, metadata, roles = rows(3000)
    study = study_of(z, labels, metadata, roles)
    found = found_in(study)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True))[np.arange(3000), labels]
    wrong = np.flatnonzero(z.argmax(axis=1) != labels)
    assert found.n_wrong == wrong.size
    wanted = wrong[np.argsort(p[wrong], kind="stable")][:MOST_REVIEWED]
    np.testing.assert_array_equal(found.rows, wanted)
    assert not found.review["correct"].any()
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(document["rows_to_review"]) == MOST_REVIEWED
    assert document["rows_to_review"][0]["file_row"] == wanted[0] + 1


def test_what_cannot_be_compared_says_why() -> None:
    z, labels, metadata, _ = rows(60, k=2)
    found = found_in(study_of(z, labels, metadata, ColumnRoles()))
    assert found.worst_slice is None
    assert found.slice_reason == "No column to slice by."
    one = np.tile([3.0, 0.0], (60, 1))
    found = found_in(study_of(one, labels, metadata, ColumnRoles()))
    assert found.worst_class is None
    assert "two classes" in found.class_reason
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 60)
    own = Predictions.from_arrays(
        input_kind="confidence", confidence=confidence, correct=rng.random(60) < 0.7
    )
    found = found_in(Study(own))
    assert found.class_reason == "Needs class scores."
    assert (np.diff(found.review["confidence"]) <= 0).all()
    unlabelled = Study(Predictions.from_arrays(z))
    assert found_in(unlabelled) is None


def test_right_rows_leave_nothing_to_review() -> None:
    z, _, metadata, roles = rows(200)
    found = found_in(study_of(z, z.argmax(axis=1), metadata, roles))
    assert found.n_wrong == 0
    assert found.review.empty
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_empty_value_is_a_slice_of_its_own() -> None:
    z, labels, metadata, roles = rows(4000)
    is_empty = (metadata["place"] == "3").to_numpy()
    z[is_empty] *= 4
    metadata.loc[is_empty, "place"] = None
    found = found_in(study_of(z, labels, metadata, roles)).worst_slice
    assert found.value == "(empty)"
    assert found.is_detectable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "k", "groups"),
    [
        ("calibrated", 4, 0),
        ("calibrated", 50, 0),
        ("overconfident", 10, 0),
        ("sure", 10, 0),
        ("calibrated", 4, 60),
        ("overconfident", 4, 24),
    ],
)
def test_without_a_difference_nothing_is_detectable(design, k, groups) -> None:
    n_repetitions = 200
    silent = np.zeros(2)
    for seed in range(n_repetitions):
        study = study_of(*rows(1200, k=k, seed=seed, design=design, groups=groups))
        found = found_in(study)
        silent += [
            not found.worst_class.is_detectable,
            not found.worst_slice.is_detectable,
        ]
    assert (silent >= 0.93 * n_repetitions).all(), silent / n_repetitions


@pytest.mark.slow
def test_a_difference_of_ten_points_is_mostly_seen() -> None:
    seen = np.zeros(2)
    for seed in range(60):
        z, labels, metadata, roles = rows(4000, k=5, seed=seed)
        rng = np.random.default_rng(1000 + seed)
        for here in (z.argmax(axis=1) == 2, (metadata["place"] == "3").to_numpy()):
            moved = here & (rng.random(len(z)) < 0.15)
            labels[moved] = (z[moved].argmax(axis=1) + 1) % 5
        found = found_in(study_of(z, labels, metadata, roles))
        seen += [found.worst_class.is_detectable, found.worst_slice.is_detectable]
    assert (seen >= 45).all(), seen / 60


def test_the_page_and_the_command_say_what_core_says(capsys) -> None:
    study, _ = open_study(SAMPLES / "digits_noisy.csv", Settings())
    wanted = found_in(study, Settings())
    at = opened()
    said = words(at)
    assert f"`{wanted.worst_class.value}`: gap **+22.7** points" in said
    assert "`noise = high`: gap" in said
    assert f"{wanted.n_wrong} wrong rows" in said
    listed = next(item.value for item in at.dataframe if "file_row" in item.value)
    assert list(listed["file_row"]) == list(wanted.review["file_row"].head(len(listed)))
    assert cli.main(["evaluate", str(SAMPLES / "digits_noisy.csv"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["findings"] == json.loads(json.dumps(wanted.to_dict()))
    assert cli.main(["evaluate", str(SAMPLES / "digits_noisy.csv")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Worst predicted class: {wanted.worst_class.sentence}" in said
    assert f"Worst slice: {wanted.worst_slice.sentence}" in said


def test_rows_of_a_file_of_confidences_show_its_own_columns() -> None:
    of = Sample.draw(200, ("cat", "dog", "owl"))
    table = hollance(of).assign(prediction=np.arange(200))
    own = read_predictions(csv(table))
    review = found_in(Study(own)).to_dict()["rows_to_review"]
    wrong = table[table["true_label"] != table["pred_label"]]
    wrong = wrong.sort_values("confidence", ascending=False, kind="stable")[:100]
    assert [row["file_row"] for row in review] == [i + 1 for i in wrong.index]
    for name in ("true_label", "pred_label", "prediction"):
        assert [row[name] for row in review] == list(wrong[name])
    at = upload(opened(), "top.csv", csv(table))
    assert "The wrong predictions that the model was surest of" in words(at)
    shown = next(item for item in at.dataframe if "file_row" in item.value)
    order = ["true_label", "pred_label", "prediction", "confidence", "file_row"]
    assert [name for name in shown.proto.column_order if name in shown.value] == order
