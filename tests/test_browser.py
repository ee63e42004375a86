"""The app in a real browser, driven like a person would."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser_server import SECONDS, Visitor, run_alone, visit
from playwright.sync_api import expect
from prediction_files import predictions

from components.tables import format_p_value, format_value, metric_label
from core.analysis import analyze
from core.export import annotate, exported_calibrator, from_json
from core.loading import open_study
from core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("cat", "dog", "newt", "owl")

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]


# ---------------------------------------------------------------------- the main job


def table(visitor: Visitor, alt: str) -> dict[str, dict[str, list[str]]]:
    """Return the lines of the cells of a table: name of the row -> column -> lines."""
    found = visitor.page.locator(f'[data-testid="stTable"][aria-label*="{alt}"]').or_(
        visitor.page.get_by_role("table", name=alt)
    )
    rows = found.first.evaluate(
        "e => [...e.querySelectorAll('tr')].map("
        "row => [...row.querySelectorAll('th, td')].map(cell => cell.innerText))"
    )
    header = [re.sub("[●◆]", "", text).strip() for text in rows[0]]
    named = "Measure" if "Measure" in header else "Calibrator"
    lines = [dict(zip(header, map(str.splitlines, row), strict=True)) for row in rows]
    return {line.pop(named)[0]: line for line in lines[1:]}


def test_from_a_file_to_a_verdict_to_a_repair_that_runs(visitor, tmp_path) -> None:
    v, content = visitor, predictions()
    start, v.clicks = time.monotonic(), 0
    v.upload("mine.csv", content)
    expect(v.page.get_by_role("heading", name="Overconfident.")).to_be_visible()
    v.charts()
    assert time.monotonic() - start < 60
    assert v.clicks <= 2
    words = v.words()
    assert "1,500 rows" in words
    assert "4 classes" in words
    shown = re.search(r"Dividing the logits by T = (\d\.\d\d) removes the gap", words)
    assert shown is not None
    assert 1.8 < float(shown[1]) < 2.2

    v.go("Calibrators")
    v.page.get_by_text("Isotonic, one-vs-rest", exact=True).first.click()
    v.key("fit").get_by_role("button").click()
    ranking = v.page.get_by_role("table").first
    expect(ranking).to_contain_text("Isotonic")
    v.settle()
    expect(ranking).to_contain_text("Temperature scaling")
    v.charts(3)
    exact = re.search(r"T = (\d\.\d+) \(95% interval", v.words())
    assert exact is not None

    v.go("Export")
    v.key("prepare").get_by_role("button").click()
    v.key("get_export_json").wait_for()
    v.settle()
    kept = {}
    for kind in ("csv", "python", "json", "report"):
        button = v.key(f"get_export_{kind}").get_by_role("button")
        name, kept[kind] = v.download(button)
        (tmp_path / name).write_bytes(kept[kind])
    assert {path.name for path in tmp_path.iterdir()} == {
        "calibrator.json",
        "calibrator.py",
        "mine-calibrated.csv",
        "report.json",
    }

    # The module, alone, on the rows that were uploaded.
    given = pd.read_csv(io.BytesIO(content))
    names = [f"logit_{name}" for name in CLASSES]
    logits = given[names].to_numpy(copy=True)
    np.save(tmp_path / "in.npy", logits)
    module = tmp_path / "calibrator.py"
    assert run_alone(module).startswith("OK: self-test")
    run_alone(module, tmp_path / "in.npy", tmp_path / "out.npy")
    alone = np.load(tmp_path / "out.npy")

    # Every way to the same calibrator: page, JSON, core.
    chosen = Settings(calibrators=("temperature", "isotonic"))
    study, _ = open_study(content, chosen, name="mine.csv")
    analysis = analyze(study, chosen)
    mine = exported_calibrator(analysis, "temperature")
    restored, metadata = from_json(kept["json"])
    assert metadata["classes"] == list(CLASSES)
    assert metadata["n_fit_rows"] == 1500
    for calibrator in (mine, restored):
        again = calibrator.predict_proba(logits)
        np.testing.assert_allclose(alone, again, rtol=0, atol=1e-12)
    temperature = mine.temperature_
    assert shown[1] == f"{temperature:.2f}"
    assert exact[1] == f"{temperature:.{len(exact[1]) - 2}f}"

    # The user's own rows: each by a calibrator that never saw it.
    rows = pd.read_csv(io.BytesIO(kept["csv"]))
    expected = annotate(analysis, "temperature")
    assert list(rows["id"]) == list(given["id"])
    assert set(rows["flag"]) == {"cross-fitted"}
    assert rows["fold"].nunique() == 5
    columns = [f"prob_{name}" for name in CLASSES]
    np.testing.assert_allclose(rows[columns], expected[columns], rtol=0, atol=1e-12)
    assert np.abs(rows[columns].to_numpy() - alone).max() < 0.02
    assert (rows["prediction"] == np.array(CLASSES)[logits.argmax(axis=1)]).all()
    right = rows["prediction"] == given["label"]
    gap = rows["confidence"].mean() - right.mean()
    report = json.loads(kept["report"])
    found = {item["method"]: item for item in report["calibrators"]}
    estimates = found["temperature"]["estimates"]["top-label"]
    assert abs(estimates["gap"]["value"] - gap) < 1e-12
    assert estimates["gap"]["value"] == (
        analysis.comparison.views["top-label"]["temperature"].estimates["gap"].value
    )
    v.go("Overview")
    page = table(v, "Calibration measures")
    assert page["Gap, points"]["After"][0] == format_value("gap", gap)


# ------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("digits_noisy.csv", marks=pytest.mark.slow),
        "breast_cancer_binary.csv",
    ],
)
def test_the_page_shows_the_numbers_of_the_command_line(visitor, name) -> None:
    v, path = visitor, ROOT / "sample_data" / name
    done = subprocess.run(
        [sys.executable, "-m", "app", "evaluate", path, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = json.loads(done.stdout)
    v.upload(name, path.read_bytes())
    words = v.words()
    assert told["verdict"]["headline"] in words
    assert told["verdict"]["sentence"] in words
    assert told["repair"] in words
    calibrators = {item["method"]: item for item in told["calibrators"]}
    views = {"top-label": "Predicted class", "positive-class": "Positive class"}
    found = list(calibrators["temperature"]["estimates"])
    assert found == (["top-label"] if name.startswith("digits") else list(views))
    for view in found:
        if len(found) > 1:
            v.page.get_by_role("radio", name=views[view]).click(force=True)
        before = calibrators["uncalibrated"]["estimates"][view]
        after = calibrators["temperature"]["estimates"][view]
        change = calibrators["temperature"]["changes"][view]
        labels = {metric_label(key, len(told["classes"])): key for key in before}
        # where others have the cores, the run may begin only when all looks settled
        end = time.monotonic() + SECONDS
        while set(shown := table(v, "Calibration measures")) != set(labels):
            assert time.monotonic() < end, shown
            v.page.wait_for_timeout(100)
        for label, metric in labels.items():
            line = shown[label]
            for column, of in (("Before", before), ("After", after)):
                assert line[column] == cell(metric, of[metric]), (label, column)
            moved = format_value(metric, change[metric]["value"], signed=True)
            assert line["Change"][0] == moved, label


def cell(metric: str, item: dict[str, Any]) -> list[str]:
    """Return the lines of a cell, made of an estimate of the command line."""
    lines = [format_value(metric, item["value"])]
    kind = "null_" if item["null_low"] is not None else ""
    ends = [item[f"{kind}low"], item[f"{kind}high"]]
    if None not in ends:
        low, high = (format_value(metric, end) for end in ends)
        lines.append(f"{'null ' if kind else ''}{low} to {high}")
    if kind:
        lines.append(format_p_value(item["p_value"]))
    return lines


# ------------------------------------------------------------------------ the bins


def test_a_click_on_a_bin_lists_its_rows(visitor) -> None:
    v = visitor
    v.upload("mine.csv", predictions(colour=np.arange(1500) % 3))
    v.go("Reliability")
    v.charts()
    assert "No bin chosen" in v.page.content()
    figure = v.page.locator(".js-plotly-plot")
    bar = figure.locator(".barlayer .point").last
    box = bar.bounding_box()
    assert box is not None
    v.clicks = 0
    v.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    rows = v.page.get_by_test_id("stDataFrame")
    expect(rows).to_be_visible()
    v.settle()
    name, content = v.download(v.key("get_bin").get_by_role("button"))
    assert name == "mine-bin-15.csv"
    found = pd.read_csv(io.BytesIO(content))
    assert {"id", "colour", "label", "prediction", "correct"} <= set(found)
    assert (found["confidence"] > 14 / 15).all()
    assert list(found["correct"]) == sorted(found["correct"])
    v.page.get_by_role("radio", name="Each class").click(force=True)
    v.settle()
    v.charts(4)


# ------------------------------------------------------------------------ the keyboard


def test_the_temperature_moves_with_the_arrow_keys(visitor) -> None:
    v = visitor.go("Calibrators")
    slider = v.page.get_by_role("slider", name="Try a temperature")
    live = v.page.locator(".live")
    slider.focus()
    fitted = slider.get_attribute("aria-valuetext")
    sweep = v.key("figure_sweep").locator(".main-svg").first
    expect(sweep).to_be_visible()
    for _ in range(4):
        v.page.keyboard.press("ArrowRight")
    expect(v.page.get_by_text("tuned on test")).to_be_visible()
    v.settle()
    moved = slider.get_attribute("aria-valuetext")
    assert value_of(moved) > value_of(fitted)
    shown = v.page.get_by_role("table", name="at the tried temperature")
    expect(shown).to_contain_text("Tried")
    chart = v.page.get_by_role("img", name=re.compile(r"Tried, T = \d"))
    expect(chart).to_be_visible()
    for _ in range(8):
        v.page.keyboard.press("ArrowLeft")
    expect(live).to_have_attribute("aria-busy", "false")
    v.settle()
    assert value_of(slider.get_attribute("aria-valuetext")) < value_of(fitted)
    v.key("use_fitted").get_by_role("button").click()
    expect(v.page.get_by_text("tuned on test")).to_have_count(0)
    v.settle()
    assert slider.get_attribute("aria-valuetext") == fitted
    slider.focus()
    for _ in range(4):
        v.page.keyboard.press("ArrowLeft")
    expect(v.page.get_by_text("tuned on test")).to_be_visible()
    expect(live).to_have_attribute("aria-busy", "false")


def test_dragging_the_temperature_needs_no_server(visitor) -> None:
    v = visitor.go("Calibrators")
    v.settle()
    slider = v.page.get_by_role("slider", name="Try a temperature")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    v.page.mouse.move(x, y)
    v.page.mouse.down()
    seen = set()
    for part in (0.1, 0.2, 0.3):
        v.page.mouse.move(x + part * box["width"], y, steps=4)
        chart = v.page.get_by_role("img", name=re.compile(r"Tried, T = \d"))
        expect(chart).to_be_visible()
        seen.add(chart.get_attribute("aria-label"))
        assert v.page.get_by_text("tuned on test").count() == 0
    assert len(seen) == 3
    v.page.mouse.up()
    name, content = v.download(v.page.get_by_role("button", name="SVG", exact=True))
    assert name == "tried-temperature.svg"
    assert content.startswith(b"<svg")
    expect(v.page.get_by_text("tuned on test")).to_be_visible()
    v.settle()
    v.key("use_fitted").get_by_role("button").click()
    expect(v.page.get_by_text("tuned on test")).to_have_count(0)


def value_of(text: str | None) -> float:
    """Return the temperature that a slider says it has."""
    assert text is not None
    return float(text.removeprefix("T = "))


# ---------------------------------------------------------------- links and sessions


def test_a_deep_link_is_honoured(browser, server) -> None:
    path = "/?bins=30&binning=Equal+counts&level=0.9"
    with visit(browser, server, path=path) as v:
        assert "Small figures: 90% intervals" in v.words()
        v.page.get_by_role("button", name="Settings").click()
        expect(v.page.get_by_label("Bins", exact=True)).to_have_value("30")
        expect(v.page.get_by_label("Level of intervals")).to_have_value("0.9")
        v.page.keyboard.press("Escape")
        v.page.get_by_role("button", name="Why this number?").first.click()
        said = v.page.get_by_text("Bins: 30 of equal counts")
        expect(said.first).to_be_visible()
        v.page.keyboard.press("Escape")
        # the link stays one that can be passed on
        for title in ("Reliability", "Data", "Overview"):
            v.go(title)
            for part in ("bins=30", r"binning=Equal\+counts", r"level=0\.9"):
                expect(v.page).to_have_url(re.compile(part))
        v.page.reload()
        v.settle()
        assert "Small figures: 90% intervals" in v.words()


def test_the_back_button_keeps_the_settings(browser, server) -> None:
    with visit(browser, server, path="/?bins=30") as v:
        v.go("Calibrators")
        v.go("Data")
        for _ in range(2):
            v.page.go_back()
            v.page.wait_for_timeout(500)
            v.settle()
            v.page.get_by_role("button", name="Settings").click()
            expect(v.page.get_by_label("Bins", exact=True)).to_have_value("30")
            v.page.keyboard.press("Escape")


def test_nonsense_in_a_link_is_ignored(browser, server) -> None:
    with visit(browser, server, path="/?bins=-3&level=x&method=%3Cb%3E&view=1") as v:
        assert "Overconfident." in v.words()
        assert "Small figures: 95% intervals" in v.words()


def test_a_session_file_brings_the_settings_back(browser, server) -> None:
    with visit(browser, server, path="/?bins=22") as v:
        v.go("Data")
        folds = v.page.get_by_label("Seed")
        folds.fill("7")
        folds.press("Enter")
        v.settle()
        name, content = v.download(v.key("save_session").get_by_role("button"))
        assert name == "plumbline-session.json"
        saved = json.loads(content)["settings"]
        assert saved["n_bins"] == 22
        assert saved["seed"] == 7
    with visit(browser, server) as v:
        v.go("Data")
        v.upload("plumbline-session.json", content, to="session")
        expect(v.page.get_by_label("Seed")).to_have_value("7")
        assert "bins=22" in v.page.url
        v.go("Overview")
        v.page.get_by_role("button", name="Why this number?").first.click()
        expect(v.page.get_by_text("Bins: 22").first).to_be_visible()


def test_a_wrong_column_is_taken_back(visitor) -> None:
    v = visitor
    v.upload("mine.csv", predictions(other=np.arange(1500) % 3))
    before = v.words()
    assert "Overconfident." in before
    v.page.get_by_role("button", name="Change").click()
    v.page.get_by_role("combobox", name="Label").click()
    v.page.get_by_role("option", name="other").click()
    undo = v.key("undo").get_by_role("button")
    expect(undo).to_be_visible()
    v.settle()
    assert "label other" in v.words()
    v.page.keyboard.press("Escape")
    undo.click()
    expect(undo).to_have_count(0)
    v.settle()
    assert "label label" in v.words()
    assert "Overconfident." in v.words()
