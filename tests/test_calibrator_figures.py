"""Calibrators side by side: tables, sentences and the curve over temperatures."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest

from components import calibrators, changed_rows, contrasts, learning, methods
from components.calibrators import FittedTemperature
from core import contrasts as contrast
from core.analysis import Analysis, analyze
from core.calibrators import CALIBRATORS
from core.changed_rows import changed_rows as rows_that_changed
from core.export import annotate, write_csv
from core.export.readback import verify_rows
from core.learning_curve import learning_curves
from core.messages import Cancelled, FitError
from core.metrics import METRICS
from core.predictions import Predictions, Study
from core.registry import Param
from core.settings import Settings
from core.standings import Arrival
from core.sweep import sweep_temperature

CHOSEN = Settings(calibrators=("temperature", "isotonic"), n_resamples=100)


def made_study(n: int = 400, *, names: tuple[str, ...] = ("a", "b", "c")) -> Study:
    rng = np.random.default_rng(3)
    logits = 3 * rng.normal(size=(n, len(names)))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    own = Predictions.from_arrays(logits, labels, classes=names, name="own.csv")
    return Study(evaluation=own)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(made_study(), CHOSEN)


@pytest.fixture(scope="module")
def sweep(analysis):
    return sweep_temperature(
        analysis.study, analysis.overview.split, fitted_t(analysis)
    )


def fitted_t(analysis: Analysis) -> float:
    return FittedTemperature.of(analysis.fitted["temperature"], 0.95).value


def test_the_curve_is_lowest_at_the_fitted_temperature(analysis, sweep) -> None:
    t = fitted_t(analysis)
    place = int(sweep.nll.argmin())
    assert sweep.temperature[place] == pytest.approx(t)
    assert sweep.temperature[[0, -1]] == pytest.approx([t / 10, 10 * t])
    assert sweep.nll[place] == pytest.approx(
        analysis.fitted["temperature"].calibrator.nll_after_, rel=1e-12
    )
    assert sweep.n_rows == sweep.n_total == 400


def test_the_curve_is_that_of_a_plain_sum(analysis, sweep) -> None:
    own = analysis.study.evaluation
    z = own.logits / sweep.temperature[7]
    loss = np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), own.labels]
    assert sweep.nll[7] == pytest.approx(loss.mean(), rel=1e-12)


def test_the_curve_stops_when_asked_to(analysis) -> None:
    def stop(fraction: float, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        sweep_temperature(analysis.study, analysis.overview.split, 1.0, progress=stop)


def test_the_curve_needs_class_scores(analysis) -> None:
    own = Predictions.from_arrays(
        input_kind="confidence",
        confidence=np.full(9, 0.5),
        correct=np.arange(9) % 2 > 0,
    )
    with pytest.raises(FitError, match="class scores"):
        sweep_temperature(Study(evaluation=own), analysis.overview.split, 1.0)


def test_the_axes_do_not_move_with_the_slider(analysis, sweep) -> None:
    fitted = FittedTemperature.of(analysis.fitted["temperature"], 0.95)
    still = calibrators.sweep_figure(sweep, fitted)
    moved = calibrators.sweep_figure(sweep, fitted, 3 * fitted.value)
    for axis in ("xaxis", "yaxis"):
        assert still.layout[axis].range == moved.layout[axis].range
    assert len(moved.layout.shapes) == len(still.layout.shapes) + 1
    assert {note.text for note in moved.layout.annotations} == {"fitted", "tried"}
    assert still.layout.height == calibrators.SWEEP_HEIGHT


def test_the_folds_are_drawn_under_the_curve(analysis, sweep) -> None:
    fitted = FittedTemperature.of(analysis.fitted["temperature"], 0.95)
    fig = calibrators.sweep_figure(sweep, fitted)
    assert len(fitted.folds) == 5
    assert list(fig.data[1].x) == list(fitted.folds)
    assert max(fig.data[1].y) < sweep.nll.min()


def test_a_temperature_at_its_bound_has_no_band(sweep) -> None:
    bound = FittedTemperature(1e-3, float("nan"), float("nan"), 0.95, ())
    assert len(calibrators.sweep_figure(sweep, bound).layout.shapes) == 1


def test_the_curve_says_itself_in_words_and_numbers(analysis, sweep) -> None:
    fitted = FittedTemperature.of(analysis.fitted["temperature"], 0.95)
    assert f"{fitted.value:.3g}" in calibrators.sweep_alt(fitted)
    table = calibrators.sweep_table(sweep)
    assert list(table.columns) == ["temperature", "nll", "n_rows"]
    assert len(table) == len(sweep.nll)


def test_the_ranking_is_that_of_the_analysis(analysis) -> None:
    frame = calibrators.ranking_frame(analysis)
    assert list(frame[""]) == ["1", "2", "3"]
    best, second = analysis.comparison.ranking[:2]
    assert f"**{CALIBRATORS[best[0]].label}**" == frame["Calibrator"][0]
    assert f"{best[1].value:.3f}" in frame["NLL, cross-validated"][0]
    is_tied = second[2].low <= 0 <= second[2].high
    assert ("difference" in frame["Behind the best"][1]) == is_tied


def test_the_sentence_says_which_rows_ranked(analysis) -> None:
    assert "slightly better than it is" in calibrators.ranking_sentence(analysis)
    held = analyze(made_study(), CHOSEN.replace(split="holdout"))
    assert "the test rows had no say" in calibrators.ranking_sentence(held)
    assert "other random splits" in calibrators.refits_sentence(held)


def test_cells_hold_the_estimates(analysis) -> None:
    frame = calibrators.measured_frame(analysis, "top-label")
    results = analysis.comparison.views["top-label"]
    order = [name for name, _, _ in analysis.comparison.ranking]
    for place, name in enumerate(order):
        nll = results[name].estimates["nll"]
        assert frame["NLL, nats"][place].startswith(f"{nll.value:.3f}")
        assert "null" in frame["ECE, points"][place]
    some = calibrators.measured_frame(analysis, "top-label", order[:1], ("gap",))
    assert some.shape == (1, 2)


def test_changes_leave_the_scores_out_and_refits_are_ranges(analysis) -> None:
    changes = contrasts.contrasts_frame(analysis, "top-label")
    assert "Uncalibrated" not in set(changes["Calibrator"])
    fits = calibrators.fits_frame(analysis)
    assert set(fits["Fit rows"]) == {"400"}
    assert fits["NLL over refits"].str.contains("to").all()


def test_differences_are_coloured_by_the_adjusted_p_value(analysis) -> None:
    frame = contrasts.contrasts_frame(analysis, "top-label", "temperature")
    tested = contrast.contrasts(analysis.comparison, "temperature")
    assert set(frame["Calibrator"]) == {"Uncalibrated", "Isotonic, one-vs-rest"}
    for place, name in enumerate(frame["Calibrator"]):
        method = next(m for m in CALIBRATORS if CALIBRATORS[m].label == name)
        cell, one = frame["NLL, nats"][place], tested["nll"][method]
        assert ("orange" in cell or "green" in cell) == one.is_detected
        assert "p" in cell
    data = contrasts.contrasts_data(analysis, "top-label", "temperature")
    row = data[(data["of"] == "uncalibrated") & (data["metric"] == "nll")].iloc[0]
    assert row["p_holm"] == tested["nll"]["uncalibrated"].adjusted_p
    assert row["value"] == tested["nll"]["uncalibrated"].change.value


def test_what_arrived_stands_beside_what_is_awaited() -> None:
    frame = contrasts.arrivals_frame(
        ("temperature", "isotonic", "vector", "beta"),
        {"temperature": Arrival(0.51234, 0.031), "isotonic": None},
    )
    assert list(frame[""]) == [
        "fitted in 0.03 s",
        "could not be fitted",
        "being fitted",
        "waiting",
    ]
    assert frame["NLL, cross-validated"][0] == "0.512"


def test_rows_before_and_after_are_drawn_and_listed(analysis) -> None:
    before = analysis.overview.rows.take(analysis.overview.split.test)
    after = analysis.fitted["isotonic"].rows
    found = changed_rows.scatter_table(before, after)
    moved = rows_that_changed(analysis, "isotonic")
    assert (found["prediction"] == "another class").sum() == len(moved) > 0
    fig = changed_rows.scatter_figure(found)
    assert sum(len(trace.x) for trace in fig.data) == len(found)
    many = pd.concat([found] * 20)
    drawn = changed_rows.scatter_figure(many)
    assert sum(len(trace.x) for trace in drawn.data) == changed_rows.MOST_POINTS
    assert f"{len(moved):,} changed" in changed_rows.scatter_alt(found)
    assert (moved["prediction"] != moved["prediction_after"]).all()
    assert (moved["confidence_after"].diff().dropna() <= 0).all()
    n_right = int((moved["became"] == "right").sum())
    assert n_right == contrasts.flips_of(analysis, "isotonic").gained
    frame = changed_rows.rows_frame(moved, 3)
    assert len(frame) == 3
    assert f"{n_right:,} became" in contrasts.flips_cell(analysis, "isotonic").replace(
        "\u00a0", " "
    )
    assert contrasts.flips_cell(analysis, "temperature") == "kept"


def test_more_labels_are_drawn_over_the_number_of_rows(analysis) -> None:
    found = learning_curves(analysis.study, CHOSEN, ("temperature",))
    fig = learning.figure(found, {"temperature": "Temperature"}, 1.0)
    assert list(fig.data[1].x) == list(found["temperature"].sizes)
    table = learning.table(found, {"temperature": "Temperature"})
    assert list(table["nll"]) == list(found["temperature"].nll)
    assert "doubling" in learning.alt(found)


def test_the_download_holds_every_number(analysis) -> None:
    frame = calibrators.comparison_frame(analysis)
    again = pd.read_csv(io.BytesIO(write_csv(frame)))
    assert list(again["method"]) == [name for name, _, _ in analysis.comparison.ranking]
    for column in ("cv_nll_low", "behind_best_high", "top-label_ece_null_high"):
        assert again[column].notna().all()
    row = again.set_index("method").loc["temperature"]
    change = analysis.comparison.changes["top-label"]["temperature"]["nll"]
    assert row["top-label_nll_change"] == pytest.approx(change.value, rel=1e-12)
    assert row["refit_nll_min"] <= row["refit_nll_max"]


def test_nothing_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was compared"):
        calibrators.ranking_frame(analyze(made_study(), CHOSEN.replace(calibrators=())))


def test_calibrated_rows_are_read_back_exactly(analysis) -> None:
    found = verify_rows(analysis, "isotonic")
    assert found.ok
    assert found.max_difference == 0
    assert found.n_rows == found.n_total == 400


def test_hostile_names_survive_the_trip_through_a_file() -> None:
    study = made_study(60, names=("=1+1", 'say "x", y', "line\nend"))
    found = verify_rows(analyze(study, CHOSEN), "temperature")
    assert found.ok, found.problem


def test_rows_that_come_back_changed_are_not_offered(analysis, monkeypatch) -> None:
    import core.export.readback as readback

    def spoiled(frame):
        frame = frame.copy()
        place = frame.columns.get_loc("prob_a")
        frame.iloc[5, place] = 0.123
        return write_csv(frame)

    monkeypatch.setattr(readback, "write_csv", spoiled)
    found = readback.verify_rows(analysis, "temperature")
    assert not found.ok
    assert "differ by up to" in found.problem
    monkeypatch.setattr(
        readback,
        "write_csv",
        lambda frame: write_csv(annotate(analysis, "isotonic")[:9]),
    )
    assert not readback.verify_rows(analysis, "temperature").ok


def test_methods_are_found_by_any_word_they_are_known_by() -> None:
    families = (METRICS, CALIBRATORS)
    assert len(methods.found_methods(families, "")) == len(METRICS) + len(CALIBRATORS)
    ids = {method.id for _, method in methods.found_methods(families, "LOGLOSS")}
    assert ids == {"nll"}
    ids = {method.id for _, method in methods.found_methods(families, "guo 1706.04599")}
    assert {"temperature", "ece"} <= ids


def test_methods_read_simplest_first() -> None:
    order = sorted(CALIBRATORS.values(), key=methods.reading_order)
    first = [method.id for method in order][:3]
    assert first == ["uncalibrated", "auto", "temperature"]
    assert min(METRICS.values(), key=methods.reading_order).id == "gap"


def test_methods_table_has_a_line_for_each() -> None:
    found = methods.found_methods((METRICS, CALIBRATORS), "")
    frame = methods.methods_frame(found)
    assert len(frame) == len(found)
    assert frame["summary"].str.len().min() > 0


def test_options_and_references_in_words() -> None:
    assert methods.option_words(Param("n", "N", "int", 3, 1, 9)) == "n = 3 (1 to 9)"
    assert methods.option_words(Param("n", "N", "int", 3, 1)) == "n = 3 (at least 1)"
    assert methods.option_words(Param("n", "N", "int", 3, None, 9)).endswith("9)")
    assert methods.option_words(Param("b", "B", "bool", False)) == "b = False"
    assert methods.reference_markdown("-") == ""
    linked = methods.reference_markdown("Guo 2017, arXiv:1706.04599")
    assert linked.endswith("[arXiv:1706.04599](https://arxiv.org/abs/1706.04599)")


def test_numbers_that_are_few_are_written_out() -> None:
    z = 3 * np.random.default_rng(0).normal(size=(100, 4))
    y = z.argmax(axis=1)
    y[:40] = 0
    words = {
        name: calibrators.fitted_words(CALIBRATORS[name]().fit(z, y))
        for name in ("ensemble-temperature", "structured-matrix", "vector", "isotonic")
    }
    assert re.fullmatch(
        r"temperature [0-9.]+  \nweights [0-9.]+, [0-9.]+, [0-9.]+",
        words["ensemble-temperature"],
    )
    assert "largest off diagonal 0." in words["structured-matrix"]
    assert "bias" not in words["structured-matrix"]
    assert words["vector"] == "\N{EN DASH}"
