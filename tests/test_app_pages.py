"""Calibrators, Export and Methods, driven without a browser."""

from __future__ import annotations

import dataclasses
import re
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from test_app import try_step

import core.export
from app import compute
from core.calibrators import CALIBRATORS
from core.export import Verification
from core.metrics import METRICS
from core.registry import Param

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
SAMPLES = MAIN.parents[1] / "sample_data"
FITTABLE = (
    *("temperature", "ensemble-temperature", "bias-corrected-temperature", "vector"),
    *("isotonic", "platt", "beta", "histogram", "structured-matrix"),
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that has the app open a file of its own."""

    def write_file(frame: pd.DataFrame) -> None:
        path = tmp_path / "own.csv"
        frame.to_csv(path, index=False)
        monkeypatch.setenv("PLUMBLINE_FILE", str(path))

    return write_file


def settle(at: AppTest, seconds: float = 60) -> AppTest:
    """Run until no job is under way (the fragment that polls does not run here)."""
    end = time.monotonic() + seconds
    while any(b.key and b.key.startswith("cancel-") for b in at.button):
        assert time.monotonic() < end, "a job does not end"
        time.sleep(0.1)
        at.run()
    assert not at.exception
    return at


def page(name: str) -> AppTest:
    """Open one page without waiting for the first one."""
    at = AppTest.from_file(MAIN, default_timeout=30).run()
    at.switch_page(f"views/{name}.py").run()
    return settle(at)


def words(at: AppTest) -> str:
    """Return everything that is written on the page, without escapes."""
    parts = [item.value for item in (*at.title, *at.subheader, *at.markdown)]
    parts += [item.value for item in (*at.caption, *at.header)]
    return "\n".join(parts).replace("\\", "").replace("\u2060", "")


def tables(at: AppTest) -> list[pd.DataFrame]:
    return [item.value for item in at.table]


def table_with(at: AppTest, column: str) -> pd.DataFrame:
    return next(frame for frame in tables(at) if column in frame.columns)


def fit(at: AppTest, *methods: str) -> AppTest:
    for name in FITTABLE:
        box = at.checkbox(key=f"pick_{name}")
        if not box.disabled:
            box.set_value(name in methods)
    at.button(key="fit").click().run()
    return settle(at)


def rows(n: int = 300, *, confidence_only: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    logits = 3 * rng.normal(size=(n, 3))
    label = (logits / 2 + rng.gumbel(size=(n, 3))).argmax(axis=1)
    if confidence_only:
        chance = rng.beta(5, 2, n)
        return pd.DataFrame({"confidence": chance, "correct": rng.random(n) < chance})
    frame = pd.DataFrame(logits, columns=["logit_a", "logit_b", "logit_c"])
    return frame.assign(label=np.array(["a", "b", "c"])[label])


def test_calibrators_opens_with_temperature_ranked_against_the_scores() -> None:
    at = page("calibrators")
    frame = table_with(at, "NLL, cross-validated")
    assert list(frame["Calibrator"]) == ["**Temperature scaling**", "Uncalibrated"]
    assert "the test rows had no say" in words(at)
    assert "T = 2.10" in words(at)
    assert all(chart.proto.alt for chart in at.get("plotly_chart"))


@pytest.fixture(scope="module")
def comparing() -> AppTest:
    """Return somebody who stays on the page and fits one calibrator after the other."""
    return page("calibrators")


@pytest.mark.parametrize("method", FITTABLE)
def test_every_calibrator_can_be_chosen_and_fitted(
    method: str, comparing: AppTest
) -> None:
    at = fit(comparing, method)
    assert at.session_state["_settings"].calibrators == (method,)
    label = CALIBRATORS[method].label
    for column in ("NLL, cross-validated", "Squared error", "NLL over refits"):
        named = " ".join(table_with(at, column)["Calibrator"])
        assert label in named


def test_several_calibrators_are_ranked_and_drawn_together() -> None:
    at = fit(page("calibrators"), *FITTABLE)
    frame = table_with(at, "Behind the best")
    assert len(frame) == len(FITTABLE) + 1
    spec = at.get("plotly_chart")[0].proto.spec
    ranked = [name.strip("*") for name in frame["Calibrator"]]
    ranked.remove("Uncalibrated")
    for label in ("Uncalibrated", *ranked[:3]):  # the overlay starts with the best
        assert label in spec
    assert "5 more times" in words(at)


def test_nothing_chosen_says_so_and_undo_brings_it_back() -> None:
    at = fit(page("calibrators"))
    assert "Nothing is chosen" in words(at)
    at.button(key="undo").click().run()
    settle(at)
    assert at.checkbox(key="pick_temperature").value
    assert "Ranking" in words(at)


def test_the_slider_moves_the_preview_and_nothing_is_fitted_again(monkeypatch) -> None:
    at = page("calibrators")

    def refuse(*args, **kwargs):
        pytest.fail("the slider had something computed again")

    for name in ("fit_method", "analyze", "measure"):
        monkeypatch.setattr(compute, name, refuse)
    assert "tuned on test" not in words(at)
    assert at.button(key="use_fitted").disabled
    try_step(at, 80)
    settle(at)
    assert "tuned on test" in words(at)
    at.button(key="use_fitted").click().run()
    assert "tuned on test" not in words(at)
    assert at.session_state["try_temperature"] == 0


def test_a_binary_file_has_both_views_of_every_calibrator(monkeypatch) -> None:
    path = SAMPLES / "breast_cancer_binary.csv"
    monkeypatch.setenv("PLUMBLINE_FILE", str(path))
    at = fit(page("calibrators"), *FITTABLE)
    assert "Accuracy, %" in table_with(at, "Squared error").columns
    view = at.segmented_control(key="view")
    view.set_value("positive-class").run()
    settle(at)
    assert "Accuracy, %" not in table_with(at, "Squared error").columns
    assert "Probability of" in at.get("plotly_chart")[0].proto.spec
    if len(FITTABLE) > 1:
        cells = " ".join(table_with(at, "Behind the best")["Behind the best"])
        assert "No\u00a0detectable\u00a0difference" in cells


def test_cross_fitting_says_that_the_best_is_optimistic(write) -> None:
    write(rows())
    at = page("calibrators")
    assert "looks slightly better than it is" in words(at)
    assert "T of each fold" in words(at)
    assert at.tabs[0].label == "On cross-fitted rows"


def test_a_confidence_file_greys_out_with_the_reason(write) -> None:
    write(rows(confidence_only=True))
    at = page("calibrators")
    for name in FITTABLE:
        assert at.checkbox(key=f"pick_{name}").disabled
        assert not at.checkbox(key=f"pick_{name}").value
    assert at.button(key="fit").disabled
    assert "No calibrator can use this file" in words(at)
    assert "one confidence per row" in words(at)
    at.switch_page("views/export.py").run()
    assert "one confidence per row" in words(at)
    assert not any(button.key == "prepare" for button in at.button)


def test_rows_without_labels_ask_for_the_label(write) -> None:
    write(rows().drop(columns="label").assign(kind="x"))
    at = page("calibrators")
    assert "No labels, nothing to fit" in words(at)


def test_options_of_a_method_are_drawn_from_the_registry(monkeypatch) -> None:
    method = CALIBRATORS["isotonic"]
    param = Param("strength", "Strength", "float", 1.0, 0.0, 5.0)
    object.__setattr__(method, "params", (param,))
    try:
        at = page("calibrators")
        at.number_input(key="option_isotonic_strength").set_value(2.0)
        at.button(key="fit").click().run()
        found = at.session_state["_settings"].options
    finally:
        object.__setattr__(method, "params", ())
    assert found == (("isotonic", "strength", 2.0),)


def test_calibrators_that_may_change_predictions_can_be_left_out() -> None:
    at = fit(page("calibrators"), "temperature", "isotonic")
    at.toggle(key="keep_predictions").set_value(True)
    settle(at.run())
    assert at.session_state["_settings"].calibrators == ("temperature",)
    offered = {m for m in FITTABLE if not at.checkbox(key=f"pick_{m}").disabled}
    assert offered == {m for m in FITTABLE if CALIBRATORS[m].is_accuracy_preserving}
    assert "It may change which class is predicted." in words(at)
    assert len(table_with(at, "Behind the best")) == 2


def verified(at: AppTest) -> AppTest:
    at.button(key="prepare").click().run()
    return settle(at)


def downloads(at: AppTest) -> list[str]:
    keys = [button.proto.id for button in at.get("download_button")]
    return [key for key in keys if "get_export" in key]


@pytest.mark.parametrize("sample", ["digits_noisy.csv", "breast_cancer_binary.csv"])
def test_export_offers_files_only_once_they_are_verified(monkeypatch, sample) -> None:
    monkeypatch.setenv("PLUMBLINE_FILE", str(SAMPLES / sample))
    at = page("export")
    assert not downloads(at)
    assert words(at).count("Not verified yet") == 7
    verified(at)
    assert len(downloads(at)) == 7
    found = re.findall(r"largest difference ([\d.e+-]+) over", words(at))
    differences = sorted(float(value) for value in found)
    # Five files, of which one is in float32; without torch nothing is said of it.
    n_files = 6 if find_spec("torch") else 5
    assert len(differences) == n_files
    assert differences[-2] <= 1e-12
    assert differences[-1] <= 1e-5
    assert words(at).count("0 labels change") == n_files
    assert words(at).count("0 bins change") == n_files
    assert ("Not run here: torch is not installed" in words(at)) == (n_files == 5)


def test_another_calibrator_must_be_verified_of_its_own() -> None:
    at = verified(page("export"))
    chosen = next(s for s in at.selectbox if (s.key or "").startswith("export_method"))
    chosen.set_value("isotonic").run()
    settle(at)
    assert at.session_state["_settings"].method == "isotonic"
    assert not downloads(at)
    verified(at)
    assert len(downloads(at)) == 7
    assert "has the lowest cross-validated NLL" in words(at)


def test_a_file_that_fails_its_verification_is_not_offered(monkeypatch) -> None:
    real = core.export.export

    def spoiled(analysis, method, kind, **options):
        made = real(analysis, method, kind, **options)
        bad = Verification(
            0.5, 9, 9, ok=False, n_label_changes=3, seconds=0.1, interpreter="-",
            problem="probabilities differ by up to 5.0e-01",
        )  # fmt: skip
        return dataclasses.replace(made, verification=bad)

    monkeypatch.setattr(core.export, "export", spoiled)
    at = verified(page("export"))
    assert len(downloads(at)) == 1  # the rows, which were read back well
    assert "probabilities differ" in at.error[0].value.replace("\\", "")


def test_a_file_beyond_the_tolerance_is_offered_without_a_tick(monkeypatch) -> None:
    real = core.export.export

    def imprecise(analysis, method, kind, **options):
        made = real(analysis, method, kind, **options)
        if kind != "onnx":
            return made
        problem = "probabilities differ by up to 3.0e-09, in 2 rows by more than 1e-12"
        proof = dataclasses.replace(
            made.verification, ok=False, is_offered=True, problem=problem
        )
        return dataclasses.replace(made, verification=proof)

    monkeypatch.setattr(core.export, "export", imprecise)
    at = verified(page("export"))
    assert len(downloads(at)) == 7
    assert not at.error
    assert "in 2 rows by more than" in at.warning[0].value.replace("\\", "")
    assert words(at).count("0 labels change") == (5 if find_spec("torch") else 4)


def test_new_rows_without_labels_are_calibrated() -> None:
    at = page("export")
    whole = pd.read_csv(SAMPLES / "digits_noisy.csv").head(30)
    scores = whole[[name for name in whole if name.startswith("logit_")]]
    uploader = next(u for u in at.file_uploader if "upload_new" in u.key)
    uploader.upload("new.csv", scores.to_csv(index=False).encode())
    settle(at.run())
    assert "30 rows" in words(at)
    shown = at.dataframe[0].value
    assert len(shown) == 20
    logits = scores.to_numpy()[:20] / 2.1017008507560577
    expected = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(
        shown.filter(like="prob_").to_numpy(), expected, rtol=1e-4, atol=1e-7
    )


def test_new_rows_that_cannot_be_used_say_why_with_an_answer() -> None:
    at = page("export")
    whole = pd.read_csv(SAMPLES / "digits_noisy.csv").head(30)
    scores = whole[[name for name in whole if name.startswith("logit_")]].copy()
    scores.iloc[3, 2] = np.nan
    uploader = next(u for u in at.file_uploader if "upload_new" in u.key)
    uploader.upload("new.csv", scores.to_csv(index=False).encode())
    settle(at.run())
    assert at.error
    answer = next(b for b in at.button if "answer" in (b.key or ""))
    settle(answer.click().run())
    assert not at.error
    assert "29 rows" in words(at)
    assert "1 row left out" in words(at)


def test_new_rows_of_other_classes_are_refused() -> None:
    at = page("export")
    uploader = next(u for u in at.file_uploader if "upload_new" in u.key)
    uploader.upload("new.csv", rows().to_csv(index=False).encode())
    settle(at.run())
    assert "3 classes" in at.error[0].value + str(at.error[0].proto)


def test_methods_lists_every_member_of_the_registries() -> None:
    at = page("methods")
    assert METRICS["smooth-ece"].summary not in words(at)
    at.session_state["family"] = "All"
    text = words(at.run())
    for registry in (METRICS, CALIBRATORS):
        for method in registry.values():
            assert method.label in text
            assert method.summary in text
    assert len(at.get("latex")) + len(at.latex) >= len(CALIBRATORS)
    for word in ("cross-fitted", "in-sample", "null range"):
        assert word in text


def test_methods_can_be_searched() -> None:
    at = page("methods")
    at.text_input(key="search").set_value("guo temperature").run()
    assert "Temperature scaling" in words(at)
    assert "Brier" not in words(at)
    at.text_input(key="search").set_value("sharpness").run()
    assert "Nothing in Calibrators" in words(at)
    assert "Sharpness" in words(at)
    at.text_input(key="search").set_value("zzz").run()
    assert "Nothing found" in words(at)
