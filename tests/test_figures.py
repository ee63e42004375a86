"""Figures as specs: what is drawn, how it is named, and whether it can be seen."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import plotly.graph_objects as go
import pytest

from components import (
    classes,
    curves,
    decisions,
    display,
    ood,
    reliability,
    tables,
    theme,
)
from core.binning import bin_statistics
from core.calibrators import CALIBRATORS
from core.metrics import CURVES, METRICS, Design, RowScores
from core.ood import Densities
from core.uncertainty import Estimate

NEW = [f"method_{number}" for number in range(40)]
"""Ids of calibrators that nobody has written yet."""


@pytest.fixture
def bins():
    rng = np.random.default_rng(0)
    confidence = rng.beta(5, 2, 2000)
    correct = rng.random(2000) < confidence
    plain = bin_statistics(confidence, correct, n_bins=10)
    cooled = bin_statistics(confidence**0.8, correct, n_bins=10)
    return {"uncalibrated": plain, "temperature": cooled}


def colors_of(fig: go.Figure) -> set[str]:
    """Return every opaque colour of markers, lines and bars."""
    text = json.dumps(fig.to_dict()["data"], default=lambda array: array.tolist())
    return {part[:7] for part in text.split('"') if part.startswith("#")}


def test_every_colour_can_be_seen_in_both_themes() -> None:
    styles = [*map(theme.style_of, (*CALIBRATORS, *NEW)), theme.TRIED]
    for color in (*(style.color for style in styles), theme.DIAGONAL, theme.THIN):
        for background in (theme.LIGHT_BACKGROUND, theme.DARK_BACKGROUND):
            assert theme.contrast(color, background) >= 3, (color, background)


def test_series_differ_in_more_than_colour() -> None:
    styles = [*map(theme.style_of, (*CALIBRATORS, "a_new_one")), theme.TRIED]
    for one, other in itertools.combinations(styles, 2):
        assert one.symbol != other.symbol
    known = ("uncalibrated", "temperature", "isotonic", "platt", "vector", "beta")
    assert len({theme.style_of(name).color for name in known}) == len(known)


def test_a_calibrator_looks_the_same_in_every_figure(bins) -> None:
    alone = reliability.reliability_figure({"temperature": bins["temperature"]})
    last = reliability.reliability_figure(
        dict.fromkeys(("beta", "vector", "temperature"), bins["temperature"])
    )
    for fig in (alone, last):
        trace = next(t for t in fig.data if t.legendgroup == "temperature")
        assert trace.marker.color == theme.AFTER.color
        assert trace.marker.symbol == "diamond"


def test_new_calibrators_keep_a_style_of_their_own() -> None:
    taken = {theme.style_of(name) for name in CALIBRATORS} | {theme.TRIED}
    assert len(taken) == len(CALIBRATORS) + 1
    assert taken.isdisjoint(map(theme.style_of, NEW))
    assert len(set(map(theme.style_of, NEW))) > 15
    expected = theme.Style("#8b6f9c", "diamond-open", "dash")  # in every process
    assert theme.style_of("method_7") == expected


def test_words_on_cells_can_be_read_in_both_themes() -> None:
    matrix = np.array([[9, 0], [3, 6]])
    fig = decisions.confusion_figure(matrix, ["cat", "dog"])
    cells, words = fig.data
    assert words.textfont.color == theme.TEXT
    darkest = cells.colorscale[-1][1]
    *channels, alpha = map(float, darkest.removeprefix("rgba(")[:-1].split(","))
    # what Streamlit writes for theme.TEXT (the browser test sees it)
    for back, text in (
        (theme.LIGHT_BACKGROUND, "#262730"),
        (theme.DARK_BACKGROUND, "#fafafa"),
    ):
        under = [int(back[i : i + 2], 16) for i in (1, 3, 5)]
        mixed = [
            round(alpha * c + (1 - alpha) * u)
            for c, u in zip(channels, under, strict=True)
        ]
        cell = "#" + "".join(f"{value:02x}" for value in mixed)
        assert theme.contrast(cell, text) >= 4.5


def test_contrast_is_that_of_wcag() -> None:
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_the_theme_of_the_page_has_the_backgrounds_of_the_palette(root) -> None:
    text = (root / "app" / ".streamlit" / "config.toml").read_text(encoding="utf-8")
    assert f'backgroundColor = "{theme.LIGHT_BACKGROUND}"' in text
    assert f'backgroundColor = "{theme.DARK_BACKGROUND}"' in text


def test_reliability_figure_shows_the_bins_and_their_counts(bins) -> None:
    fig = reliability.reliability_figure(
        bins, labels={"uncalibrated": "Before", "temperature": "After"}
    )
    points = [t for t in fig.data if t.type == "scatter" and t.name == "Before"]
    bars = [t for t in fig.data if t.type == "bar"]
    found = bins["uncalibrated"]
    assert sum(len(t.x) for t in points) == (found.count > 0).sum()
    assert [sum(t.y) for t in bars] == [2000, 2000]
    full = (found.count > 0) & ~found.is_thin
    solid = next(t for t in points if t.showlegend is not False)
    np.testing.assert_allclose(solid.x, found.confidence[full])
    np.testing.assert_allclose(solid.y + solid.error_y.array, found.high[full])
    np.testing.assert_allclose(solid.y - solid.error_y.arrayminus, found.low[full])
    assert fig.layout.xaxis.range == (-0.02, 1.02)
    assert fig.layout.yaxis.range == (-0.02, 1.02)
    assert fig.layout.xaxis.anchor == "y2"
    assert fig.layout.height
    assert fig.layout.yaxis.title.text == "Accuracy"


def test_the_diagonal_rises_by_45_degrees(bins) -> None:
    fig = reliability.reliability_figure(bins)
    small = classes.class_figure(bins["uncalibrated"], theme.BEFORE, "cat")
    for shown in (fig, small):
        assert shown.layout.yaxis.scaleanchor == "x"
        assert shown.layout.xaxis.constrain == shown.layout.yaxis.constrain == "domain"
    assert small.layout.margin.t >= 28  # room for the button that saves it


def test_long_names_are_cut_before_they_are_escaped() -> None:
    names = ["&" * 50, "<b>bold and long</b>", "cat"]
    fig = decisions.confusion_figure(np.eye(3, dtype=np.int64), names)
    assert fig.layout.xaxis.ticktext == (
        "&amp;" * 13 + "\N{HORIZONTAL ELLIPSIS}",
        "&lt;b&gt;bold and l\N{HORIZONTAL ELLIPSIS}",
        "cat",
    )


def test_thin_bins_are_grey_and_out_of_the_legend(bins) -> None:
    fig = reliability.reliability_figure(bins)
    for name, found in bins.items():
        thin = [
            t
            for t in fig.data
            if t.type == "scatter" and t.legendgroup == name and t.showlegend is False
        ]
        assert len(thin) == int(found.is_thin.any())
        for trace in thin:
            assert trace.marker.color == theme.THIN
            assert len(trace.x) == found.is_thin.sum()


def test_figures_use_the_palette_only(bins) -> None:
    styles = [theme.style_of(name) for name in CALIBRATORS]
    known = {*(style.color for style in styles), theme.DIAGONAL, theme.THIN}
    assert colors_of(reliability.reliability_figure(bins)) <= known


def test_bins_of_equal_counts_are_spans_not_bars_of_one_height() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.beta(5, 2, 500)
    found = bin_statistics(
        confidence, rng.random(500) < confidence, n_bins=8, strategy="quantile"
    )
    fig = reliability.reliability_figure({"uncalibrated": found})
    spans = next(t for t in fig.data if t.type == "bar")
    assert spans.orientation == "h"
    np.testing.assert_allclose(np.asarray(spans.base, float), found.edges[:-1])
    assert spans.customdata[:, 0].sum() == 500


@pytest.fixture(params=list(CURVES))
def curve(request):
    rng = np.random.default_rng(1)
    confidence = rng.beta(5, 2, 500)
    outcome = (rng.random(500) < confidence**2).astype(float)
    design = Design(n_resamples=100)
    scores = RowScores(confidence, outcome)
    return request.param, CURVES[request.param](scores, design, level=0.9)


def test_a_curve_lies_over_its_band_and_the_counts(curve, bins) -> None:
    kind, found = curve
    fig = curves.curve_figure(
        found, kind, theme.BEFORE, "<b>Before", bins=bins["uncalibrated"]
    )
    band = next(t for t in fig.data if t.fill == "toself")
    half = len(found.x)
    np.testing.assert_allclose(band.y[:half], found.low)
    np.testing.assert_allclose(band.y[half:][::-1], found.high)
    assert band.name == "Consistency band, 90%"
    line = next(t for t in fig.data if t.legendgroup == "curve" and t.type == "scatter")
    np.testing.assert_allclose(line.x, found.x)
    np.testing.assert_allclose(line.y, found.y)
    assert line.name == f"&lt;b&gt;Before: {CURVES[kind].label}"
    assert [t for t in fig.data if t.type == "bar"]
    styles = [theme.style_of(name) for name in CALIBRATORS]
    known = {*(style.color for style in styles), theme.DIAGONAL, theme.THIN}
    assert colors_of(fig) <= known
    said = curves.curve_alt(found, kind, "Before")
    assert "500 rows" in said
    assert "at 75%" in said


def test_the_table_of_a_curve_holds_line_and_band(curve) -> None:
    kind, found = curve
    table = curves.curve_table({"Before": found, "After": found}, kind)
    assert len(table) == 2 * len(found.x)
    assert set(table["scores"]) == {"Before", "After"}
    np.testing.assert_allclose(table["band_low"][: len(found.x)], found.low)
    assert set(table["n"]) == {500}
    assert table["method"].str.contains("consistency band").all()


def test_small_figures_of_rare_classes_show_their_corner(curve) -> None:
    kind, found = curve
    low = dataclasses.replace(found, x=found.x / 20, y=found.y / 20)
    for shown, top in ((found, 1.06), (low, 1.15 * max(low.x[-1], low.y.max()))):
        fig = curves.small_curve_figure(shown, kind, theme.AFTER, "cat", 230)
        assert fig.layout.xaxis.range[1] == pytest.approx(top)
        assert fig.layout.yaxis.range == fig.layout.xaxis.range
        assert not [t for t in fig.data if t.type == "bar"]


def test_the_numbers_beside_a_curve_have_interval_or_null() -> None:
    null = Estimate(0.02, null_low=0.001, null_high=0.004, p_value=0.001)
    ends = Estimate(0.04, 0.03, 0.05)
    found = {"brier-mcb": null, "brier-dsc": ends, "brier-unc": ends}
    frame = curves.parts_frame(found)
    assert list(frame.columns) == ["Part", "Brier score of the confidence"]
    assert "null 0.0010 to 0.0040" in frame["Brier score of the confidence"][0]
    assert "0.0300 to 0.0500" in frame["Brier score of the confidence"][1]
    frame = curves.parts_frame({"smooth-ece": null})
    assert frame["Value"][0].startswith("2.0")


def test_names_from_files_are_no_html_in_a_figure(bins) -> None:
    name = "<a href='x'>cat</a>"
    fig = reliability.reliability_figure(
        bins, labels={"uncalibrated": name}, x_title=name, y_title=name
    )
    assert "<a" not in fig.layout.xaxis.title.text
    assert "<a" not in json.dumps([t.name for t in fig.data])


def test_the_table_holds_every_bin(bins) -> None:
    table = reliability.reliability_table(bins)
    assert len(table) == 20
    assert table["rows"].sum() == 4000


def test_the_description_says_the_gap() -> None:
    gaps = {
        "uncalibrated": Estimate(0.122, n=1194),
        "temperature": Estimate(-0.004, n=1194),
    }
    text = reliability.reliability_alt(gaps, {"uncalibrated": "Before"})
    assert "1,194 rows" in text
    assert "Before: confidence lies 12.2 points above" in text
    assert "0.4 points below" in text


def test_the_saved_picture_is_named_and_nothing_is_sent_away() -> None:
    config = theme.chart_config("digits-reliability")
    assert config["toImageButtonOptions"]["filename"] == "digits-reliability"
    assert config["showSendToCloud"] is False


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("gap", 0.1224, "+12.2"),
        ("gap", -0.004, "−0.4"),
        ("accuracy", 0.79, "79.0"),
        ("nll", 0.6699, "0.670"),
        ("l2", -0.00001, "0.0000"),
        ("nll", float("nan"), "–"),
        ("nll", None, "–"),
    ],
)
def test_numbers_have_the_digits_they_deserve(metric, value, shown) -> None:
    assert tables.format_value(metric, value) == shown


def test_the_plug_in_distance_shows_its_null_and_no_interval() -> None:
    ece = Estimate(0.12, null_low=0.016, null_high=0.054, p_value=0.0002)
    frame = tables.before_after_frame({"ece": ece}, {"ece": ece}, {}, 10)
    cell = frame["Before"][0]
    assert "null 1.6 to 5.4" in cell
    assert "p < 0.001" in cell


def test_a_change_is_coloured_only_if_its_interval_excludes_zero() -> None:
    before = {"nll": Estimate(0.9)}
    after = {"nll": Estimate(0.7)}
    for low, high, color in ((-0.3, -0.1, ":green["), (-0.3, 0.1, None)):
        change = {"nll": Estimate(-0.2, low, high)}
        cell = tables.before_after_frame(before, after, change, 10)["Change"][0]
        assert (color in cell) if color else (":green[" not in cell)


@pytest.mark.parametrize(
    "text", ["*a*", "_b_", "$x$", ":red[x]", "[l](http://x)", "`c`", "<b>", "#h", "~s~"]
)
def test_markdown_from_files_is_escaped(text) -> None:
    escaped = display.escape_markdown(text)
    for position, char in enumerate(escaped):
        if char in "*_$[]<>`#~":
            assert escaped[position - 1] == "\\"
    assert display.escape_markdown("1. cat") == "1\\. cat"
    assert display.escape_markdown("- cat 1.5") == "\\- cat 1.5"
    assert ":material/home:" not in display.escape_markdown(":material/home:")


def test_code_spans_survive_backticks() -> None:
    assert display.code("a`b") == "``a`b``"
    assert display.code("`a`") == "`` `a` ``"
    assert display.code("") == "` `"


def test_how_a_number_was_computed_names_formula_bins_rows_and_seed() -> None:
    how = "null: 1,000 simulations, seed 7"
    before = Estimate(0.05, n=1234, rows="test", method=how)
    after = Estimate(0.01, n=1234, rows="test", method=how)
    change = Estimate(-0.04, n=1234, rows="test")
    columns = {"Before": {"ece": before}, "After": {"ece": after}}
    columns["Change"] = {"ece": change}
    said = display.made_words("ece", columns, "15 bins of equal widths")
    assert f"${METRICS['ece'].formula}$" in said
    assert "Before, After" in said  # what is the same is said once
    assert said.count("seed 7") == 1
    assert said.count("1,234 test rows") == 2
    assert said.count("15 bins of equal widths") == 1
    gap = display.made_words("gap", {"Before": {"gap": before}}, "15 bins")
    assert "15 bins" not in gap
    assert METRICS["gap"].formula in gap


def test_no_end_of_an_interval_looks_like_zero_but_is_not() -> None:
    assert tables.format_span("gap", -0.0003, 0.0021) == "\N{MINUS SIGN}0.03 to +0.21"
    assert tables.format_span("nll", 0.0, 0.25) == "0.000 to 0.250"
    assert tables.format_span("accuracy", 0.0, 0.0, signed=True) == "0.0 to 0.0"
    assert tables.format_span("nll", -0.01, 0.02, signed=True) == (
        "\N{MINUS SIGN}0.010 to +0.020"
    )
    assert tables.format_span("gap", None, 0.1) == ""


def test_a_change_that_overshoots_is_not_called_better() -> None:
    before = Estimate(0.05, 0.04, 0.06)
    change = Estimate(-0.07, -0.08, -0.06)
    within = Estimate(-0.02, -0.04, 0.01)
    beyond = Estimate(-0.02, -0.03, -0.01)
    assert ":green[" in tables.change_cell("gap", change, before, within)
    cell = tables.change_cell("gap", change, before, beyond)
    assert ":green[" not in cell
    assert ":orange[" not in cell


def test_metrics_of_one_family_say_what_differs() -> None:
    labels = [item.label for item in METRICS.values()]
    assert len(labels) == len(set(labels))
    assert METRICS["brier-mcb"].label == "CORP Brier: miscalibration"
    assert METRICS["brier-reliability"].label == "Binned Brier: reliability"


def test_a_bin_alone_among_empty_ones_is_drawn() -> None:
    found = Densities(np.arange(8.0), {"inside": np.array([90, 1, 1, 0, 1, 0, 1.0])})
    figure = ood.densities_figure(found, 2.0, label="Energy")
    assert list(figure.data[0].marker.size) == [0, 0, 0, 0, 5, 0, 5]
    flat = Densities(np.arange(4.0), {"inside": np.array([1, 2, 1.0])})
    figure = ood.densities_figure(flat, 2.0, label="Energy")
    assert figure.data[0].mode == "lines"
