"""What people do on each page, in a real browser."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator
from functools import partial

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import safetensors.numpy
from browser_server import Server, Visitor, run_alone, visit
from onnx_models import classifier
from playwright.sync_api import Browser, TimeoutError, expect
from prediction_files import Sample, predictions

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

CLASSES = ("cat", "dog", "newt", "owl")
N = 900
ROWS = Sample.draw(N, CLASSES, 2.0, 5)
CONTENT = predictions(N, colour=np.array(["red", "blue", "green"])[np.arange(N) % 3])


@pytest.fixture(scope="module")
def owner(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who has a study open already."""
    with visit(browser, server) as somebody:
        somebody.upload("mine.csv", CONTENT)
        yield somebody


def given(visitor: Visitor, key: str, label: str = "") -> pd.DataFrame:
    """Return the table of a download."""
    button = visitor.key(key).get_by_role("button", name=label or None)
    name, content = visitor.download(button.first)
    assert name.endswith(".csv")
    return pd.read_csv(io.BytesIO(content))


def answers(visitor: Visitor, name: str) -> None:
    """Choose among a few named answers that stand beside each other."""
    visitor.page.get_by_role("radio", name=name).click(force=True)
    visitor.page.wait_for_timeout(200)
    visitor.settle()


def pick(visitor: Visitor, label: str, name: str) -> None:
    """Choose from a list by its arrow key; a redraw of the page may close the list."""
    field = visitor.page.get_by_role("combobox", name=label, exact=True)
    option = visitor.page.get_by_role("option", name=name, exact=True)
    for _ in range(10):
        field.press("ArrowDown")
        with contextlib.suppress(TimeoutError):
            option.click(timeout=3000)
            return
        field.press("Escape")
    pytest.fail(f"{label} does not offer {name}")


# ------------------------------------------------------------------------ Overview


def test_the_overview_names_what_is_worth_a_look(owner: Visitor) -> None:
    v = owner.go("Overview")
    words = v.words()
    assert "Worth a look" in words
    assert "Worst predicted class" in words
    assert "Worst slice" in words
    rows = given(v, "get_review")
    assert (rows["prediction"] != rows["label"]).all()
    assert rows["probability_of_label"].is_monotonic_increasing
    wrong = (ROWS.logits.argmax(axis=1) != ROWS.labels).sum()
    assert f"({wrong} wrong rows)" in words
    v.page.get_by_role("button", name="Why this number?").last.click()
    expect(v.page.get_by_text("Inside").first).to_be_visible()
    v.page.keyboard.press("Escape")
    v.page.get_by_role("link", name="See the rows of each bin").click()
    expect(v.page).to_have_title(re.compile("^Reliability"))
    v.settle().no_complaints()


# ---------------------------------------------------------------------- Reliability


def test_the_diagram_follows_bins_and_repair(owner: Visitor) -> None:
    v = owner.go("Reliability")
    chart = v.page.get_by_test_id("stPlotlyChart").first
    before = chart.get_attribute("aria-label")
    answers(v, "After")
    expect(chart).to_have_attribute("aria-label", re.compile("After"))
    assert chart.get_attribute("aria-label") != before
    pick(v, "Bin edges", "Equal counts")
    expect(v.page).to_have_url(re.compile("binning=quantile|binning=Equal"))
    v.settle()
    v.charts()
    undo = v.key("undo").get_by_role("button")
    undo.click()
    expect(undo).to_have_count(0)
    v.settle().no_complaints()


# ------------------------------------------------------------------------ Decisions


def test_decisions_count_what_the_rows_say(owner: Visitor) -> None:
    v = owner.go("Decisions")
    v.charts()
    said = ROWS.logits.argmax(axis=1)
    right = int((said == ROWS.labels).sum())
    chart = v.key("figure_confusion").get_by_test_id("stPlotlyChart")
    expect(chart).to_have_attribute("aria-label", re.compile(f"{right} of {N} rows"))
    matrix = given(v, "get_figure_confusion", "Numbers in this figure")
    counts = matrix.set_index("label").to_numpy()
    assert counts.sum() == N
    assert np.trace(counts) == right
    for row, name in enumerate(CLASSES):
        assert counts[row, 1] == ((ROWS.labels == row) & (said == 1)).sum(), name
    table = v.page.get_by_role("table", name="Operating points by wanted accuracy")
    before = table.inner_text()
    assert [line[:3] for line in before.splitlines() if line.startswith(("8", "9"))]
    answers(v, "After")
    expect(table).not_to_have_text(before)
    points = given(v, "get_points_accuracy")
    assert list(points["target"]) == [0.8, 0.9, 0.95, 0.99]
    reached = points.dropna(subset="threshold")
    assert reached["threshold"].is_monotonic_increasing
    answers(v, "Before")
    v.no_complaints()


# ---------------------------------------------------------------------- Calibrators


def test_my_predictions_are_kept(owner: Visitor) -> None:
    v = owner.go("Calibrators")
    box = partial(v.page.get_by_role, "checkbox", exact=True)
    isotonic = box(name="Isotonic, one-vs-rest")
    expect(isotonic).to_be_enabled()
    toggle = v.key("keep_predictions")
    toggle.locator("label").first.click()
    expect(isotonic).to_be_disabled()
    v.settle()
    assert "It may change which class is predicted." in v.words()
    expect(box(name="Temperature scaling")).to_be_enabled()
    toggle.locator("label").first.click()
    expect(isotonic).to_be_enabled()
    v.settle().no_complaints()


def test_learned_maps_are_drawn_class_by_class(owner: Visitor) -> None:
    v = owner.go("Calibrators")
    v.page.get_by_text("Isotonic, one-vs-rest", exact=True).first.click()
    v.key("fit").get_by_role("button").click()
    curves = "Curves of the class"
    expect(v.page.get_by_role("figure", name=f"{curves} cat")).to_be_visible()
    v.settle()
    pick(v, "Class", "newt")
    expect(v.page.get_by_role("figure", name=f"{curves} newt")).to_be_visible()
    v.settle()
    changes = given(v, "get_changes")
    assert set(changes.iloc[:, 0]) == set(CLASSES)
    v.no_complaints()


# ----------------------------------------------------------------------------- Data


def seed_is(visitor: Visitor, value: int) -> None:
    """Wait until the field of the seed has a value; the one before it is gone then."""
    field = visitor.page.locator(f'input[aria-label="Seed"][value="{value}"]')
    expect(field).to_have_count(1)
    visitor.settle()
    expect(visitor.page.get_by_label("Seed")).to_have_value(str(value))


def test_snapshots_are_compared_and_opened(owner: Visitor) -> None:
    v = owner.go("Data")
    name = v.page.get_by_label("Keep the present choices as")
    keep = v.key("keep_snapshot").get_by_role("button")
    name.fill("first")
    name.press("Enter")
    keep.click()
    table = v.page.get_by_role("table", name="Numbers after the calibrator")
    expect(table).to_contain_text("first")
    v.settle()
    seed = v.page.get_by_label("Seed")
    seed.fill("7")
    seed.press("Enter")
    undo, redo = (v.key(key).get_by_role("button") for key in ("undo", "redo"))
    expect(undo).to_be_visible()
    v.settle()
    undo.click()
    seed_is(v, 0)
    redo.click()
    seed_is(v, 7)
    name.fill("second")
    name.press("Enter")
    keep.click()
    expect(table).to_contain_text("second")
    v.settle()
    pick(v, "Snapshot", "first")
    v.settle()
    v.key("open_snapshot").get_by_role("button").click()
    seed_is(v, 0)
    v.key("drop_snapshot").get_by_role("button").click()
    expect(table).not_to_contain_text("first")
    v.settle().no_complaints()


# --------------------------------------------------------------------------- Export


def test_files_are_offered_after_their_verification_and_open(owner: Visitor) -> None:
    v = owner.go("Export")
    offered = v.page.locator('[class*="st-key-get_export_"]')
    expect(offered).to_have_count(0)
    assert v.words().count("Not verified yet") == 7
    v.key("prepare").get_by_role("button").click()
    expect(offered).to_have_count(7)
    v.settle()
    rows = given(v, "get_export_csv")
    assert len(rows) == N
    made = {}
    for kind in ("onnx", "onnx32", "torch", "python"):
        button = v.key(f"get_export_{kind}").get_by_role("button", name="Download")
        made[kind] = v.download(button)
    outputs = {}
    for kind, dtype in (("onnx", np.float64), ("onnx32", np.float32)):
        session = onnxruntime.InferenceSession(made[kind][1])
        logits = ROWS.logits.astype(dtype)
        outputs[kind], label = session.run(None, {"logits": logits})
        assert (label == ROWS.logits.argmax(axis=1)).all()
    np.testing.assert_allclose(outputs["onnx32"], outputs["onnx"], rtol=0, atol=1e-5)
    name, content = made["torch"]
    assert name == "calibrator_torch.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {item: archive.read(item) for item in archive.namelist()}
    source = next(data for item, data in files.items() if item.endswith(".py"))
    compile(source, "calibrator_torch.py", "exec")
    held = next(data for item, data in files.items() if item.endswith("tensors"))
    assert safetensors.numpy.load(held)
    expect(v.page.get_by_text("What goes along with the calibrator")).to_be_visible()
    v.no_complaints()


def test_the_own_model_comes_back_calibrated(owner: Visitor) -> None:
    v = owner.go("Export")
    button = v.key("get_fused").get_by_role("button", name="Download")
    expect(button).to_have_count(0)
    v.upload("odd.onnx", b"odd", to="model")
    box = v.key("model_problem-box")
    expect(box).to_contain_text("How to fix")
    expect(button).to_have_count(0)
    v.upload("net.onnx", classifier(len(CLASSES)).SerializeToString(), to="model")
    expect(box).to_have_count(0)
    expect(button).to_be_visible()
    name, content = v.download(button)
    assert name == "net_calibrated.onnx"
    session = onnxruntime.InferenceSession(content)
    assert [item.name for item in session.get_outputs()][:2] == [
        "probabilities",
        "label",
    ]
    v.settle().no_complaints()


# -------------------------------------------------------------------------- Methods


def test_methods_are_found_by_word_and_family(owner: Visitor) -> None:
    v = owner.go("Methods")
    entries = v.page.locator('[class*="st-key-method_"]')
    expect(v.key("method_temperature")).to_be_visible()
    expect(v.key("method_brier")).to_have_count(0)
    answers(v, "All")
    expect(v.key("method_brier")).to_be_visible()
    everything = entries.count()
    assert v.page.locator(".katex").count() > everything // 2
    search = v.page.get_by_role("textbox", name="Search")
    search.fill("temperature")
    search.press("Enter")
    expect(v.key("method_brier")).to_have_count(0)
    expect(v.key("method_temperature")).to_be_visible()
    v.settle()
    found = given(v, "get_methods")
    assert 0 < len(found) == entries.count() < everything
    search.fill("no such thing")
    search.press("Enter")
    expect(v.page.get_by_text("Nothing found.")).to_be_visible()
    search.fill("")
    search.press("Enter")
    expect(entries).to_have_count(everything)
    answers(v, "Metrics")
    expect(v.key("method_temperature")).to_have_count(0)
    assert 0 < entries.count() < everything
    v.no_complaints()


def test_maps_go_in_and_a_module_that_runs_comes_out(owner, tmp_path) -> None:
    v = owner.go("Segmentation")
    assert "mine.csv" not in v.words()
    rng = np.random.default_rng(0)
    z = 4 * rng.normal(size=(4, 3, 12, 16))
    packed = io.BytesIO()
    np.savez(packed, logits=z, labels=(z / 3 + rng.gumbel(size=z.shape)).argmax(1))
    v.upload("maps.npz", packed.getvalue(), to="maps")
    v.charts(3)
    assert "4 images" in v.words()
    assert v.overflow() <= 0
    name, module = v.download(v.key("get_maps_python").get_by_role("button"))
    (tmp_path / name).write_bytes(module)
    np.save(tmp_path / "in.npy", z)
    run_alone(tmp_path / name, tmp_path / "in.npy", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert (found.argmax(1) == z.argmax(1)).all()
    numbers = given(v, "get_map_numbers")
    assert set(numbers["metric"]) == {"nll", "brier", "gap", "ece", "accuracy"}
    v.no_complaints()
    owner.go("Overview")
    assert "mine.csv" in owner.words()
