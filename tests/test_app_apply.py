"""What the pages offer without labels, with confidences, and with a saved file."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from test_app import opened, settle, table, try_step, upload, widget, words

from core.analysis import analyze
from core.by_hand import temperature_by_hand
from core.export import export, from_json
from core.loading import open_study
from core.messages import DataError
from core.settings import Settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def exported(content: bytes, temperature: float | None = None) -> str:
    """Return the JSON file of the temperature fitted on a file, or set by hand."""
    study, _ = open_study(content, Settings(), name="fit.csv")
    analysis = analyze(study, Settings())
    if temperature is not None:
        analysis = temperature_by_hand(analysis, temperature)
    return export(analysis, "temperature", "json").text


def go(at, page: str):
    at.switch_page(f"views/{page}.py").run()
    settle(at)
    assert not at.exception
    return at


def give(at, name: str, file_name: str, content: bytes):
    next(u for u in at.file_uploader if name in u.key).upload(file_name, content)
    at.run()
    settle(at)
    assert not at.exception
    return at


def test_the_sample_is_marked_on_every_page_and_an_upload_is_not() -> None:
    at = opened()
    for page in ("overview", "calibrators", "data", "export", "methods"):
        go(at, page)
        assert ":violet-badge[Sample]" in words(at), page
    assert ":violet-badge" not in words(upload(go(at, "overview"), "x.csv", table(300)))
    assert "A reload of the page forgets uploads" in words(go(at, "data"))


def test_data_without_labels_asks_for_them_and_offers_to_apply() -> None:
    at = go(upload(opened(), "new.csv", table(300, labelled=False)), "data")
    assert not at.error
    assert "No labels, nothing to divide." in words(at)
    assert widget(at.selectbox, "ask_label")
    links = [item.proto.label for item in at.get("page_link")]
    assert "Apply a saved calibrator to these rows" in links


def test_a_saved_calibrator_is_applied_to_the_open_rows_and_to_others() -> None:
    text = exported(table(600))
    at = go(upload(opened(), "new.csv", table(300, labelled=False)), "export")
    assert "No labels, nothing to fit." in words(at)
    give(at, "upload_saved", "calibrator.json", text.encode())
    assert "fitted on 600 rows of `fit.csv`" in words(at)
    assert "**300 rows** of `new.csv` calibrated by Temperature scaling" in words(at)
    calibrator, _ = from_json(text)
    given = pd.read_csv(io.BytesIO(table(300, labelled=False)))
    expected = calibrator.predict_proba(given.to_numpy(copy=True))
    shown = at.dataframe[0].value.filter(like="prob_").to_numpy()
    np.testing.assert_allclose(shown, expected[:20], rtol=0, atol=1e-12)
    give(at, "upload_new", "more.csv", table(70, labelled=False))
    assert "**70 rows** of `more.csv`" in words(at)


def test_a_file_that_is_no_calibrator_is_refused() -> None:
    at = go(upload(opened(), "new.csv", table(300, labelled=False)), "export")
    give(at, "upload_saved", "odd.json", b'{"format": "other"}')
    assert "not a calibrator" in at.error[0].proto.title
    assert "odd" in at.error[0].value


def test_a_saved_calibrator_can_be_chosen_beside_a_fitted_one() -> None:
    at = go(upload(opened(), "mine.csv", table(600)), "export")
    at.segmented_control(key="apply_with").set_value("saved").run()
    give(at, "upload_saved", "calibrator.json", exported(table(600), 3.0).encode())
    said = words(at)
    assert "fitted on 0 rows" in said
    assert ":orange-badge[tuned on test]" in said
    assert "**600 rows** of `mine.csv`" in said


def test_a_temperature_set_by_hand_is_exported_with_its_mark() -> None:
    document = json.loads(exported(table(600), 3.0))
    assert document["parameters"] == {"temperature": 3.0}
    fit = document["fit"]
    assert fit["n_fit_rows"] == 0
    assert fit["split"] is None
    assert [note["code"] for note in fit["notes"]] == ["tuned-on-test"]
    assert fit["metrics"]["after"]["nll"]["rows"] == "in-sample"
    assert "low" not in fit["metrics"]["after"]["nll"]
    assert fit["metrics"]["before"]["nll"]["rows"] == "cross-fitted"


def test_the_slider_offers_what_it_tries() -> None:
    at = go(opened(), "calibrators")
    assert not [b for b in at.get("download_button") if "T =" in b.proto.label]
    try_step(at, 10)
    settle(at)
    offered = [b.proto.label for b in at.get("download_button")]
    assert len([label for label in offered if "T = 2.803" in label]) == 2


def test_confidences_say_what_works_on_every_page() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 600)
    frame = pd.DataFrame({"confidence": sure, "correct": rng.integers(0, 2, 600)})
    at = upload(opened(), "c.csv", frame.to_csv(index=False).encode())
    for page in ("overview", "calibrators", "data", "export"):
        said = words(go(at, page))
        assert "it can be measured" in said, page
        assert "this calibrator needs" not in said or page == "calibrators"
    assert "Fit rows" not in [item.label for item in go(at, "data").metric]
    go(at, "export")
    labels = [b.proto.label for b in at.get("download_button")]
    assert "Report as JSON" in labels
    assert [u for u in at.file_uploader if "upload_saved" in u.key]


def test_names_of_checkboxes_have_no_markup() -> None:
    at = go(opened(), "calibrators")
    assert all("*" not in box.label for box in at.checkbox)


def test_shares_that_leave_no_test_rows_are_explained_in_words() -> None:
    with pytest.raises(DataError) as caught:
        Settings(fit_fraction=0.8, threshold_fraction=0.3)
    assert "_fraction" not in str(caught.value)
    at = go(opened(), "data")
    widget(at.number_input, "set_threshold_fraction").set_value(0.6).run()
    assert "no test rows would be left" in at.error[0].proto.title
    assert "_fraction" not in at.error[0].proto.title + at.error[0].value


def test_a_bound_of_the_temperature_is_noted_once() -> None:
    frame = pd.read_csv(io.BytesIO(table(400)))
    scores = frame.filter(like="logit_")
    frame["label"] = scores.idxmax(axis=1).str.removeprefix("logit_")
    at = upload(opened(), "right.csv", frame.to_csv(index=False).encode())
    assert words(go(at, "calibrators")).count("T is at its bound") == 1


def test_redo_makes_the_change_again_and_a_new_change_ends_it() -> None:
    at = opened()
    for n_bins in (8, 9):
        at.number_input(key="bins").set_value(n_bins).run()
        settle(at)
    keys = {"undo": "alt+z", "redo": "alt+shift+z"}  # Ctrl+Z belongs to text fields
    for key, wanted in (("undo", 8), ("undo", 15), ("redo", 8), ("redo", 9)):
        button = at.button(key=key)
        assert button.proto.shortcut == keys[key]
        assert keys[key] in button.proto.help.casefold()
        button.click().run()
        settle(at)
        assert at.session_state["_settings"].n_bins == wanted
    assert "redo" not in {b.key for b in at.button}
    at.button(key="undo").click().run()
    at.number_input(key="bins").set_value(20).run()
    settle(at)
    assert "redo" not in {b.key for b in at.button}


def test_redo_reads_the_file_again_where_reading_changed() -> None:
    at = opened()
    widget(at.selectbox, "bar_group").set_value("").run()
    settle(at)
    for key, wanted in (("undo", None), ("redo", ""), ("undo", None)):
        at.button(key=key).click().run()
        settle(at)
        assert at.session_state["_settings"].group_column == wanted
        assert ("group `group`" in words(at)) == (wanted is None)


def test_forgetting_leaves_the_sample_and_no_choice() -> None:
    at = go(upload(opened(), "mine.csv", table(400)), "data")
    widget(at.number_input, "set_seed").set_value(7).run()
    at.button(key="forget").click().run()
    settle(at)
    at.run()
    assert not at.exception
    assert at.session_state["_source"].kind == "sample"
    assert at.session_state["_settings"] == Settings()
    assert "mine.csv" not in words(at)


def test_snapshots_are_kept_compared_and_gone_back_to() -> None:
    at = go(opened(), "data")
    at.text_input(key="snapshot_name").set_value("as it *was*")
    at.button(key="keep_snapshot").click().run()
    settle(at)
    widget(at.selectbox, "split_kind").set_value("holdout").run()
    settle(at)
    assert not at.exception
    frame = at.table[-1].value
    assert list(frame["Choices"]) == ["**Now**", r"**as it \*was\***"]
    assert list(frame["Split"]) == ["holdout", "auto"]
    assert frame["NLL, nats"][0] != frame["NLL, nats"][1]
    at.button(key="open_snapshot").click().run()
    settle(at)
    assert at.session_state["_settings"] == Settings()
    assert at.button(key="open_snapshot").disabled
    at.button(key="undo").click().run()
    settle(at)
    assert at.session_state["_settings"].split == "holdout"
    at.button(key="drop_snapshot").click().run()
    assert not at.session_state["_snapshots"]


def test_snapshots_without_a_repair_are_measured_on_the_test_rows_too() -> None:
    at = go(opened(), "data")
    at.button(key="keep_snapshot").click().run()
    settle(at)
    at.session_state["_settings"] = Settings(method="uncalibrated")
    settle(at.run())
    assert not at.exception
    frame = at.table[-1].value
    assert list(frame["Calibrator"]) == ["Uncalibrated", "Temperature scaling"]
    assert list(frame["Rows"]) == ["1,194 test rows"] * 2
    assert "+12.2" in frame["Gap, points"][0]


def test_a_snapshot_that_reads_the_file_otherwise_has_no_numbers() -> None:
    at = go(opened(), "data")
    at.button(key="keep_snapshot").click().run()
    settle(at)
    go(at, "overview")
    widget(at.selectbox, "bar_group").set_value("").run()
    settle(at)
    go(at, "data")
    assert "read the file in another way" in words(at)
    at.button(key="open_snapshot").click().run()
    settle(at)
    assert at.session_state["_settings"].group_column is None
    assert "group `group`" in words(at)
