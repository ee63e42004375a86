"""Curves without bins, more metrics and other libraries' numbers, on the pages."""

from __future__ import annotations

import json
import threading

import numpy as np
import pandas as pd
import pytest
from test_app import SAMPLES, opened, settle, upload, words

from app import cli
from core.messages import Cancelled
from core.metrics import METRICS
from core.on_demand import MORE_METRICS

BINARY = "breast_cancer_binary.csv"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def page(at):
    at.switch_page("views/reliability.py").run()
    settle(at)
    assert not at.exception
    return at


def choose(at, **choices):
    for key, value in choices.items():
        at.segmented_control(key=f"reliability_{key}").set_value(value).run()
        settle(at)
        assert not at.exception
    return at


def specs(at):
    return [json.loads(item.proto.spec) for item in at.get("plotly_chart")]


def names_of(spec):
    return [trace.get("name") for trace in spec["data"]]


def printed(capsys, *argv):
    assert cli.main([str(item) for item in ("evaluate", *argv, "--json")]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("kind", "label"), [("corp", "CORP"), ("smooth", "Smooth")])
def test_a_curve_is_one_choice_beside_the_bins(kind, label) -> None:
    at = choose(page(opened()), curve=kind)
    (spec,) = specs(at)
    names = names_of(spec)
    assert f"Before: {label}" in names
    assert "Consistency band, 95%" in names
    assert spec["layout"]["yaxis2"]["title"]["text"] == "Rows"  # the counts stay
    assert not any(
        item.key and item.key.startswith("reliability_bins") for item in at.selectbox
    )
    shown = " ".join(str(item.value) for item in at.table)
    expected = "Miscalibration" if kind == "corp" else "Smooth ECE, points"
    assert expected in shown
    assert words(at).count("1,194 test rows") >= 2
    choose(at, scores="temperature")
    assert f"After: {label}" in names_of(specs(at)[0])
    assert "1,194 test rows" in words(at)


def test_each_class_has_a_curve_and_a_single_one_is_drawn_in_full() -> None:
    at = choose(page(opened()), of="each-class", curve="corp")
    drawn = specs(at)
    assert len(drawn) == 6
    assert all("Consistency band, 95%" in names_of(spec) for spec in drawn)
    assert "Classwise ECE, points" in str(at.table[0].value)
    box = at.multiselect[0]
    box.set_value(box.value[:1]).run()
    settle(at)
    (spec,) = specs(at)
    assert spec["layout"]["xaxis"]["title"]["text"].startswith("Probability of")
    assert "yaxis2" in spec["layout"]
    choose(at, curve="bins")
    assert len(specs(at)) == 1
    at.multiselect[0].set_value([]).run()
    settle(at)
    assert not at.exception
    assert not specs(at)


def test_binary_and_confidence_files_have_curves_too() -> None:
    at = page(upload(opened(), BINARY, (SAMPLES / BINARY).read_bytes()))
    choose(at, of="positive-class", curve="smooth")
    assert "Probability of" in specs(at)[0]["layout"]["xaxis"]["title"]["text"]
    frame = pd.DataFrame(
        {"confidence": np.linspace(0.5, 1, 300), "correct": [1, 0, 1] * 100}
    )
    at.switch_page("views/overview.py").run()
    at = page(upload(at, "c.csv", frame.to_csv(index=False).encode()))
    for kind in ("corp", "smooth"):
        choose(at, curve=kind)
        assert len(specs(at)) == 1
    at.session_state["more_metrics"] = True
    at.run()
    settle(at)
    assert not at.exception
    shown = " ".join(str(item.value) for item in at.table)
    assert "KS calibration error" in shown
    assert "Classwise" not in shown


def test_work_on_a_curve_can_be_cancelled(monkeypatch) -> None:
    from app import compute

    going, stopped = threading.Event(), threading.Event()

    def endless(*args):
        try:
            while not stopped.wait(0.05):
                args[-1](0.25, "Simulating")
                going.set()
        except Cancelled:
            stopped.set()
            raise

    monkeypatch.setattr(compute, "curve", endless)
    at = page(opened())
    at.segmented_control(key="reliability_curve").set_value("corp").run()
    assert going.wait(10)
    at.button(key="cancel-reliability").click().run()
    assert stopped.wait(10)
    at.run()
    assert "**Drawing the CORP curve** was stopped." in words(at)


def test_more_metrics_wait_until_they_are_asked_for(capsys) -> None:
    at = page(upload(opened(), BINARY, (SAMPLES / BINARY).read_bytes()))
    assert "RMSCE" not in " ".join(str(item.value) for item in at.table)
    at.session_state["more_metrics"] = True
    at.run()
    settle(at)
    assert not at.exception
    cells = "\n".join(at.table[-1].value["Measure"])
    for name in MORE_METRICS:
        assert METRICS[name].summary in cells
    document = printed(capsys, SAMPLES / BINARY, "--metrics", "all")
    for method in ("uncalibrated", "temperature"):
        choose(at, scores=method)
        frame = at.table[-1].value
        known = document["more"][method]["top-label"]
        assert len(frame) == len(known)
        frame.index = frame["Measure"].str.partition("  \n")[0]
        for name, label in (("ks", "KS calibration error"), ("ace", "ACE")):
            line, item = frame.loc[f"{label}, points"], known[name]
            assert line["Value"] == f"{100 * item['value']:.1f}"
            ends = (100 * item["null_low"], 100 * item["null_high"])
            assert "null {:.1f} to {:.1f}".format(*ends) in line.iloc[-1]


@pytest.mark.parametrize("name", ["digits_noisy.csv", BINARY])
def test_other_libraries_are_asked_once_somebody_looks(name, capsys) -> None:
    at = opened()
    if name == BINARY:
        upload(at, name, (SAMPLES / name).read_bytes())
    asked = "before any repair, as `evaluate --peers` has it"
    assert asked not in words(at)
    at.session_state["p-top-label-others"] = True
    at.run()
    settle(at)
    assert not at.exception
    assert asked in words(at)
    frame = at.table[-1].value
    known = printed(capsys, SAMPLES / name, "--peers", "--no-calibrators")["peers"]
    assert len(frame) == len(known)
    for cells, item in zip(frame.to_numpy(), known, strict=True):
        assert item["library"] in cells[0]
        assert f"**{item['value']:.6g}**" in cells[0]
        assert f"here {item['ours']:.6g}" in cells[0]
