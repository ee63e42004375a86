"""Confusions, operating points, and the page that shows them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from test_app import SAMPLES, opened, settle, upload, words

from components import decisions as drawn
from core.decisions import (
    class_rates,
    confusion_matrix,
    confusions,
    halves,
    proportion,
)
from core.operating_points import OperatingPoint
from core.uncertainty import Estimate, wilson_interval


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 900)
    prediction = np.where(rng.random(900) < 0.7, labels, rng.integers(0, 4, 900))
    return labels, prediction


def test_the_matrix_and_its_rates_are_those_of_scikit_learn(scored) -> None:
    labels, prediction = scored
    matrix = confusion_matrix(labels, prediction, 4)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, prediction))
    rates = class_rates(labels, prediction, 4)
    found = [item["recall"].value for item in rates]
    np.testing.assert_allclose(
        found, metrics.recall_score(labels, prediction, average=None)
    )
    found = [item["precision"].value for item in rates]
    wanted = metrics.precision_score(labels, prediction, average=None)
    np.testing.assert_allclose(found, wanted)
    item = rates[2]["recall"]
    low, high = wilson_interval(item.value, item.n, 0.95)
    assert (item.low, item.high) == pytest.approx((low, high))


def test_confusions_are_counted_without_the_diagonal(scored) -> None:
    matrix = confusion_matrix(*scored, 4)
    frame = confusions(matrix, "abcd", 3)
    assert (frame["label"] != frame["prediction"]).all()
    assert frame["rows"].iloc[0] == (matrix - np.diag(np.diag(matrix))).max()
    assert confusions(np.diag([3, 4]), "ab").empty


def test_groups_widen_the_interval_of_a_share() -> None:
    groups = np.repeat(np.arange(40), 20)
    outcome = np.repeat(np.random.default_rng(0).random(40) < 0.6, 20)
    alone, together = proportion(outcome), proportion(outcome, groups=groups)
    assert together.half_width > 2 * alone.half_width
    assert np.isnan(proportion(outcome[:0]).value)


def test_halves_keep_groups_whole() -> None:
    groups = np.repeat(np.arange(50), 4)
    found = halves(np.arange(200), groups, 0)
    assert (found.choose ^ found.measure).all()
    assert not set(groups[found.choose]) & set(groups[found.measure])
    assert found.choose.sum() == 100


def test_what_is_out_of_reach_says_so() -> None:
    high = Estimate(0.8, 0.7, 0.85, n=50)
    points = [
        OperatingPoint(0.9, None, {}),
        OperatingPoint(0.9, 0.6, {"accuracy": high}),
    ]
    frame = drawn.points_frame(points, "Wanted", "Threshold")
    assert frame["Threshold"][0] == "not reached"
    assert frame["Accuracy, %"][1].endswith(":orange[missed]]")


def test_the_figure_escapes_names_and_counts_rows(scored) -> None:
    matrix = confusion_matrix(*scored, 4)
    fig = drawn.confusion_figure(matrix, ["<i>a</i>", "b" * 200, "c", "d"])
    assert "&lt;i&gt;" in fig.layout.xaxis.ticktext[0]
    assert len(fig.layout.xaxis.ticktext[1]) < 20
    assert str(int(np.trace(matrix))) in drawn.confusion_alt(matrix)


def page(at):
    at.switch_page("views/decisions.py").run()
    settle(at)
    assert not at.exception
    return at


def test_the_page_on_many_classes_two_classes_and_confidences() -> None:
    at = page(opened())
    assert len(at.get("plotly_chart")) == 1
    assert list(at.table[0].value["Wanted accuracy"]) == ["80%", "90%", "95%", "99%"]
    assert "Chosen on the 1,200 fit rows" in words(at)
    assert "measured on the 1,194 test rows" in words(at)
    at.segmented_control(key="decision_scores").set_value("temperature").run()
    settle(at)
    assert not at.exception
    assert "measured on the 1,194 test rows" in words(at)
    at.switch_page("views/overview.py").run()
    name = "breast_cancer_binary.csv"
    at = page(upload(at, name, (SAMPLES / name).read_bytes()))
    assert len(at.table) == 2
    assert "Sensitivity, %" in at.table[1].value
    at.switch_page("views/overview.py").run()
    frame = pd.DataFrame({"confidence": np.linspace(0.5, 1, 300)}).assign(
        correct=[1, 0, 1] * 100
    )
    at = page(upload(at, "c.csv", frame.to_csv(index=False).encode()))
    assert "one confidence per row" in words(at)
    assert len(at.table) == 1
