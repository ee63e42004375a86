"""The Calibrators page compares: arrivals, baselines, single rows, more labels."""

from __future__ import annotations

import threading

import pytest
import streamlit as st
from test_app_pages import fit, page, settle, table_with, tables, words

from app import compute, jobs
from core import analysis as core_analysis
from core.fitting import fit_method

CHOSEN = ("temperature", "vector", "isotonic")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def test_differences_are_to_the_chosen_baseline_and_nothing_is_fitted_again(
    monkeypatch,
) -> None:
    at = fit(page("calibrators"), *CHOSEN)
    said = " ".join(table_with(at, "Brier score")["Predictions"])
    assert "became right" in said.replace("\u00a0", " ")
    monkeypatch.setattr(compute, "fit_method", pytest.fail)
    (box,) = [box for box in at.selectbox if box.key.startswith("baseline")]
    assert box.value == "uncalibrated"
    box.set_value("vector").run()
    settle(at)
    assert at.session_state["_settings"].baseline == "vector"
    moved = next(f for f in tables(at) if "NLL, nats" in f and "AUROC" in f)
    frames = [list(f["Calibrator"]) for f in tables(at) if "NLL, nats" in f]
    assert moved is not None
    assert any(
        "Uncalibrated" in names and "Vector scaling" not in names for names in frames
    )
    assert "(Holm)" in words(at)


def test_calibrators_arrive_one_by_one(monkeypatch) -> None:
    free = threading.Event()

    def slow(study, settings, method, progress):
        if method == "isotonic":
            free.wait(30)
        return fit_method(study, settings, method, progress)

    monkeypatch.setattr(compute, "fit_method", slow)
    monkeypatch.setattr(core_analysis, "fit_method", slow)
    monkeypatch.setattr(jobs, "GRACE", 0.2)
    at = page("calibrators")
    try:
        for name in CHOSEN:
            at.checkbox(key=f"pick_{name}").set_value(True)
        at.button(key="fit").click().run()
        for _ in range(100):
            shown = [frame for frame in tables(at) if "" in frame]
            if shown and "fitted in" in " ".join(shown[0][""]):
                break
            at.run()
        assert next(iter(shown[0]["Calibrator"])) == "Temperature scaling"
        assert "being fitted" in " ".join(shown[0][""])
        assert "cancel-calibrators" in [button.key for button in at.button]
    finally:
        free.set()
    assert len(table_with(settle(at), "Behind the best")) == 4


def test_rows_and_more_labels_wait_until_they_are_asked_for() -> None:
    at = fit(page("calibrators"), "vector")
    assert "Rows whose prediction changed" not in words(at)
    at.session_state["row_by_row"] = True
    at.session_state["learning"] = True
    at.run()
    settle(at)
    said = words(at)
    assert "Rows whose prediction changed" in said
    assert "the last doubling of the fit rows" in said
    changed = table_with(at, "Became")
    assert 0 < len(changed) <= 10
    assert all(chart.proto.alt for chart in at.get("plotly_chart"))
