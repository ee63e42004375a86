"""The Reliability page, and each class against the rest."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_app import SAMPLES, opened, settle, table, upload, words

from components import classes, reliability, theme
from core.analysis import analyze
from core.binning import bin_statistics
from core.listing import most_surprising
from core.loading import open_study
from core.per_class import calibrated_scores, class_bins, class_gaps, class_scores
from core.predictions import Predictions, Study
from core.settings import Settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="module")
def analysis():
    study, _ = open_study(SAMPLES / "digits_noisy.csv", Settings())
    return analyze(study, Settings())


def page(at):
    at.switch_page("views/reliability.py").run()
    settle(at)
    assert not at.exception
    return at


def naive_softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_class_gaps_agree_with_a_loop_over_rows_and_groups(analysis) -> None:
    own = analysis.study.evaluation
    scores = class_scores(own, analysis.overview)
    found = class_gaps(scores, level=0.9)
    p = naive_softmax(own.logits[scores.rows].astype(float))
    for column in range(own.n_classes):
        y = (own.labels[scores.rows] == column).astype(float)
        residual = p[:, column] - y
        assert found.gap[column] == pytest.approx(residual.mean(), abs=1e-12)
        assert found.count[column] == y.sum()
        centred = pd.Series(residual - residual.mean())
        sums = centred.groupby(scores.groups).sum().to_numpy()
        error = np.sqrt((sums**2).sum() * sums.size / (sums.size - 1)) / p.shape[0]
        half = 1.6448536269514722 * error
        assert found.high[column] - found.gap[column] == pytest.approx(half, rel=1e-9)


def test_bins_of_a_class_are_the_bins_of_everything_else(analysis) -> None:
    own = analysis.study.evaluation
    scores = class_scores(own, analysis.overview)
    p = naive_softmax(own.logits[scores.rows].astype(float))[:, 3]
    for strategy in ("uniform", "quantile"):
        chosen = Settings(strategy=strategy)
        found = class_bins(scores, 3, chosen)
        wanted = bin_statistics(p, scores.labels == 3, strategy=strategy)
        assert found.count.sum() == len(p)
        np.testing.assert_allclose(found.accuracy, wanted.accuracy, atol=1e-12)
        np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-9)


def test_calibrated_classes_come_from_fits_that_never_saw_the_row() -> None:
    rng = np.random.default_rng(4)
    logits = 3 * rng.normal(size=(500, 3))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    study = Study(Predictions.from_arrays(logits, labels))
    found = analyze(study, Settings())
    fitted, split = found.fitted["temperature"], found.overview.split
    scores = calibrated_scores(study, split, fitted)
    assert scores.kind == "cross-fitted"
    for number, calibrator in enumerate(fitted.rounds):
        rows = np.flatnonzero(split.fold == number)
        expected = naive_softmax(logits[rows] / calibrator.temperature_)
        np.testing.assert_allclose(scores.probability(1)[rows], expected[:, 1])


def test_intervals_of_classes_cover_as_often_as_they_say() -> None:
    rng, hits = np.random.default_rng(0), []
    for _ in range(60):
        logits = rng.normal(size=(400, 4))
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        study = Study(Predictions.from_arrays(logits, labels))
        chosen = Settings(calibrators=(), n_resamples=100)
        scores = class_scores(study.evaluation, analyze(study, chosen).overview)
        found = class_gaps(scores, 0.95)
        hits += list((found.low <= 0) & (found.high >= 0))
    assert 0.90 <= np.mean(hits) <= 0.99


def test_intervals_of_rare_classes_cover_too_and_empty_ones_do_not_come_first() -> None:
    rng, hits, first = np.random.default_rng(0), [], []
    for _ in range(6):
        logits = 1.5 * rng.normal(size=(1500, 300))
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        logits[:, 7] += 1.5  # far too sure of this one
        study = Study(Predictions.from_arrays(logits, labels))
        chosen = Settings(calibrators=(), n_resamples=100)
        scores = class_scores(study.evaluation, analyze(study, chosen).overview)
        found = class_gaps(scores, 0.95)
        assert (found.count < 10).mean() > 0.9
        hits += list((found.low <= 0) & (found.high >= 0))
        first.append(classes.clearest_first(found)[0])
        assert np.all(found.low[found.count == 0] < found.high[found.count == 0])
    assert 0.94 <= np.mean(hits) <= 1.0
    assert first == [7] * 6


def test_a_click_anywhere_in_a_bin_finds_it(analysis) -> None:
    bins = analysis.overview.views["top-label"].bins
    for number in np.flatnonzero(bins.count):
        middle = (bins.edges[number] + bins.edges[number + 1]) / 2
        for x in (bins.confidence[number], middle, bins.edges[number + 1]):
            assert reliability.bin_at(bins, float(x)) == number


def test_surprising_rows_are_those_whose_label_was_least_likely(analysis) -> None:
    rows, used = analysis.overview.rows, analysis.overview.used
    found = most_surprising(rows, used, 5)
    p = naive_softmax(analysis.study.evaluation.logits.astype(float))
    chance = p[used, analysis.study.evaluation.labels[used]]
    assert set(found) == set(used[np.argsort(chance)[:5]])


def test_small_figures_have_no_counts_and_say_their_class(analysis) -> None:
    own = analysis.study.evaluation
    scores = class_scores(own, analysis.overview)
    gaps = class_gaps(scores)
    fig = classes.class_figure(class_bins(scores, 1, Settings()), theme.BEFORE, "<b>")
    assert {trace.type for trace in fig.data} == {"scatter"}
    assert "<b>" not in fig.to_json().replace("<b>%", "")
    assert "points" in classes.class_alt("one", gaps, 1)
    frame = classes.class_table(gaps, own.classes)
    assert set(frame["class"]) == set(own.classes)


def test_the_page_draws_the_predicted_class_and_lists_a_bin(analysis) -> None:
    at = page(opened())
    assert len(at.get("plotly_chart")) == 1
    box = next(item for item in at.selectbox if item.key.startswith("bin_top"))
    box.set_value(14).run()
    settle(at)
    assert not at.exception
    frame = at.dataframe[0].value
    tested = analyze(analysis.study, Settings(calibrators=("temperature",)))
    bins = tested.comparison.views["top-label"]["uncalibrated"].bins
    assert len(frame) == min(200, bins.count[14])
    assert list(frame.columns[:4]) == ["id", "file_row", "label", "prediction"]
    assert {"group", "noise", "stroke"} <= set(frame.columns)
    assert not frame["correct"].iloc[0]
    assert frame["confidence"].between(14 / 15, 1).all()


def test_the_page_shows_each_class_before_and_after(analysis) -> None:
    at = page(opened())
    at.segmented_control(key="reliability_of").set_value("each-class").run()
    settle(at)
    assert not at.exception
    assert len(at.get("plotly_chart")) == 6
    assert len(at.dataframe[0].value) == 10
    assert "1,194 test rows" in captions(at)
    rows = at.dataframe[0].value["rows_with_label"].sum()
    assert rows == 1194
    at.segmented_control(key="reliability_scores").set_value("temperature").run()
    settle(at)
    assert not at.exception
    assert "1,194 test rows" in captions(at)
    assert at.dataframe[0].value["rows_with_label"].sum() == rows


def captions(at) -> str:
    return " ".join(item.value for item in at.caption)


def test_before_and_after_are_of_the_same_rows() -> None:
    at = page(opened())
    for method in ("uncalibrated", "temperature"):
        at.segmented_control(key="reliability_scores").set_value(method).run()
        settle(at)
        assert not at.exception
        assert "1,194 test rows" in captions(at)
        assert "Before and after: the same rows." in captions(at)
    at.switch_page("views/overview.py").run()
    settle(at)
    assert "1,194 test rows" in captions(at)
    assert "The headline counts all 2,394." in captions(at)


def test_bins_of_equal_counts_are_one_choice_away() -> None:
    at = page(opened())
    box = next(item for item in at.selectbox if item.key.startswith("reliability_bins"))
    box.set_value("quantile").run()
    settle(at)
    assert not at.exception
    assert at.session_state["_settings"].strategy == "quantile"
    spec = json.loads(at.get("plotly_chart")[0].proto.spec)
    assert spec["layout"]["yaxis2"]["title"]["text"] == "Bins"


def test_binary_confidence_and_unlabelled_files_have_what_they_can() -> None:
    name = "breast_cancer_binary.csv"
    at = page(upload(opened(), name, (SAMPLES / name).read_bytes()))
    at.segmented_control(key="reliability_of").set_value("positive-class").run()
    settle(at)
    assert "Probability of" in at.get("plotly_chart")[0].proto.spec
    frame = pd.DataFrame(
        {"confidence": np.linspace(0.5, 1, 300), "correct": [1, 0, 1] * 100}
    )
    at.switch_page("views/overview.py").run()
    at = page(upload(at, "c.csv", frame.to_csv(index=False).encode()))
    assert len(at.get("plotly_chart")) == 1
    box = next(item for item in at.selectbox if item.key.startswith("bin_top"))
    box.set_value(14).run()
    assert not at.exception
    assert "confidence" in at.dataframe[0].value
    at.switch_page("views/overview.py").run()
    at = page(upload(at, "new.csv", table(300, labelled=False)))
    assert "No labels, no diagram." in words(at)


def test_pictures_can_be_saved_as_svg() -> None:
    at = page(opened())
    at.segmented_control(key="picture").set_value("SVG").run()
    settle(at)
    assert '"format": "svg"' in at.get("plotly_chart")[0].proto.config
