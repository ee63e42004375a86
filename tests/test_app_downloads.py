"""Beside every table and figure: CSV and JSON with the same numbers, PNG or SVG."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from test_app import SAMPLES, opened, settle, table, try_step, upload
from test_app_apply import exported, give, go

from core.export import write_csv, write_json

SHOWN = {"table", "arrow_table", "arrow_data_frame", "dataframe", "plotly_chart"}
PAGES = ("overview", "reliability", "calibrators", "decisions", "data", "export")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def offered(monkeypatch):
    """Return file name -> what makes it, of every download that was drawn."""
    made = {}
    original = st.download_button

    def noticed(label, data, file_name=None, **options):
        made[file_name] = data
        return original(label, data, file_name, **options)

    monkeypatch.setattr(st, "download_button", noticed)
    return made


def shown(at) -> list:
    """Return tables, figures and downloads in the order of the page."""
    return [item for item in at.main if item.type in SHOWN | {"download_button"}]


def check(at, offered) -> int:
    """Assert that each table and figure has its downloads; return their number."""
    assert not at.exception
    found = shown(at)
    places = [i for i, item in enumerate(found) if item.type in SHOWN]
    for place, stop in itertools.pairwise([*places, len(found)]):
        own = found[place].proto
        names = [item.proto.help for item in found[place + 1 : stop]]
        for suffix in (".csv", ".json"):
            ours = [name for name in names if name.endswith(suffix)]
            assert ours, (own.alt, suffix)
        if found[place].type == "plotly_chart":
            picture = json.loads(own.config)["toImageButtonOptions"]
            assert picture["format"] in {"png", "svg"}
            assert picture["filename"]
        same_numbers(offered, names)
    return len(places)


def same_numbers(offered, names) -> None:
    """Assert that the CSV and the JSON of a table hold the same."""
    for name in names:
        if not name.endswith(".csv") or f"{name[:-4]}.json" not in names:
            continue
        text = pd.read_csv(io.BytesIO(offered[name]()))
        data = json.loads(offered[f"{name[:-4]}.json"]())
        assert len(text) == len(data), name
        for line, (_, cells) in zip(data, text.iterrows(), strict=True):
            assert list(line) == list(text.columns)
            for column, value in line.items():
                if isinstance(value, float):
                    assert value == pytest.approx(cells[column], rel=1e-7), name


def confidences() -> bytes:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 400)
    frame = pd.DataFrame({"confidence": sure, "correct": rng.random(400) < sure})
    return frame.astype(float).to_csv(index=False).encode()


BINARY = (SAMPLES / "breast_cancer_binary.csv").read_bytes()


@pytest.mark.parametrize("content", [None, BINARY, confidences()])
def test_every_page(content: bytes | None, offered) -> None:
    at = opened()
    if content is not None:
        at = upload(at, "own.csv", content)
    found = {page: check(go(at, page), offered) for page in PAGES}
    assert found["overview"] >= 3
    assert found["decisions"] >= 1


def test_rows_of_a_bin_and_a_tried_temperature(offered) -> None:
    at = go(opened(), "reliability")
    before = check(at, offered)
    next(b for b in at.selectbox if b.key.startswith("bin_")).set_value(14).run()
    assert check(settle(at), offered) == before + 1
    at = go(at, "calibrators")
    try_step(at, 10)
    check(settle(at), offered)


def test_applied_rows_rows_left_out_snapshots_and_methods(offered) -> None:
    at = go(opened(), "export")
    at.segmented_control(key="apply_with").set_value("saved").run()
    give(at, "upload_saved", "t.json", exported(table(600)).encode())
    give(at, "upload_new", "new.csv", table(50, labelled=False))
    assert check(at, offered) == 1
    lines = table(300).splitlines(keepends=True)
    broken = b"".join([*lines[:40], b"x,1,2,cat\n", *lines[40:]])
    at = upload(go(at, "overview"), "broken.csv", broken)
    at.button(key="problem-answer-0").click().run()
    at = go(settle(at), "data")
    at.button(key="keep_snapshot").click().run()
    assert check(settle(at), offered) == 2
    at = go(at, "methods")
    same_numbers(offered, [item.proto.help for item in shown(at)])
    assert {"plumbline-methods.csv", "plumbline-methods.json"} <= set(offered)


def test_a_matrix_too_large_to_draw_is_still_there(offered) -> None:
    rng = np.random.default_rng(0)
    logits = pd.DataFrame(rng.normal(size=(400, 40))).add_prefix("logit_")
    frame = logits.assign(label=rng.integers(0, 40, 400))
    at = upload(opened(), "m.csv", frame.to_csv(index=False).encode())
    at = go(at, "decisions")
    assert {"m-confusion.csv", "m-confusion.json"} <= set(offered)
    assert not at.get("plotly_chart")
    check(at, offered)


def test_json_keeps_every_digit_and_says_null() -> None:
    frame = pd.DataFrame(
        {
            "x": [1.2345678901234567e-10, np.inf, np.nan],
            "n": pd.array([2**53 + 1, None, -1], dtype="Int64"),
            "is": pd.array([True, None, False], dtype="boolean"),
            "text": ["=1+1", None, "\N{EURO SIGN}\n"],
            "time": pd.to_datetime(
                ["2024-05-06", None, "2024-05-06 07:08"], format="ISO8601"
            ),
        }
    )
    lines = json.loads(write_json(frame))
    assert [line["x"] for line in lines] == [1.2345678901234567e-10, None, None]
    assert [line["n"] for line in lines] == [2**53 + 1, None, -1]
    assert [line["is"] for line in lines] == [True, None, False]
    assert [line["text"] for line in lines] == ["=1+1", None, "\N{EURO SIGN}\n"]
    assert [line["time"] for line in lines][1:] == [None, "2024-05-06T07:08:00"]
    assert json.loads(write_json(frame[:0])) == []
    numbers = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    again = json.loads(write_json(pd.DataFrame({"x": numbers})))
    assert [line["x"] for line in again] == numbers.tolist()
    assert write_csv(frame[:0])
