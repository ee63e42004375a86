"""What deserves a look, and the doubts that rows raise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_app import opened, upload, words

from core.analysis import measure
from core.doubts import doubts
from core.findings import find
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings

PLAIN = Settings(n_resamples=100)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def made(n=1200, k=4, seed=0, spoil=None, **columns) -> Predictions:
    """Return calibrated rows; `spoil` changes logits after labels were drawn."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(n, k))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    metadata = pd.DataFrame({"place": rng.choice(list("abcdef"), n)}).assign(**columns)
    roles = ColumnRoles(slices=("place",), id="id" if "id" in metadata else None)
    if spoil is not None:
        spoil(logits, metadata)
    return Predictions.from_arrays(logits, labels, metadata=metadata, roles=roles)


def look(own: Predictions, settings: Settings = PLAIN):
    overview = measure(Study(own), settings)
    found = find(Study(own), settings, overview)
    return (
        found.worst_class,
        found.worst_slice,
        {note.code: note for note in overview.notes},
    )


def test_an_overconfident_slice_is_found_and_measured_on_other_rows() -> None:
    def spoil(logits, metadata):
        logits[(metadata["place"] == "c").to_numpy()] *= 4

    _, found, _ = look(made(4000, spoil=spoil))
    assert (found.column, found.value) == ("place", "c")
    assert found.is_detectable
    assert found.difference.value > 0
    assert found.n_candidates == 6
    assert 1900 < found.difference.n < 2100
    assert found.gap.n < 500


def test_a_class_that_is_said_too_often_is_found() -> None:
    def spoil(logits, _):
        logits[:, 2] += 1.0

    found, _, _ = look(made(4000, spoil=spoil))
    assert found.value == "class 2"
    assert found.is_detectable
    assert found.difference.value > 0


def test_calibrated_rows_seldom_have_a_worst_slice_or_class() -> None:
    hits = []
    for seed in range(60):
        by_class, by_slice, _ = look(made(800, seed=seed))
        hits += [by_class.is_detectable, by_slice.is_detectable]
    # 5 % by the level; searching on the rows themselves would give about 25 %.
    assert np.mean(hits) < 0.12


def test_confidences_and_files_without_slices_have_no_finding() -> None:
    own = Predictions.from_arrays(
        input_kind="confidence",
        confidence=np.linspace(0.5, 1, 200),
        correct=np.arange(200) % 2,
    )
    by_class, by_slice, _ = look(own)
    assert by_class is None
    assert by_slice is None


def codes(logits, labels=None, kind="logits", **more) -> set[str]:
    own = Predictions.from_arrays(logits, labels, input_kind=kind, **more)
    return {note.code for note in measure(Study(own), PLAIN).notes}


@pytest.fixture(scope="module")
def calibrated():
    rng = np.random.default_rng(7)
    logits = 2.5 * rng.normal(size=(900, 5))
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def test_honest_rows_raise_no_doubt(calibrated) -> None:
    own = Predictions.from_arrays(*calibrated)
    overview = measure(Study(own), PLAIN)
    assert not doubts(own, overview.rows, overview.used, overview.split)


def test_labels_in_another_order_than_the_columns_are_noticed(calibrated) -> None:
    logits, labels = calibrated
    order = np.array([3, 0, 4, 1, 2])
    assert "labels-permuted" in codes(logits, order[labels])
    rng = np.random.default_rng(0)
    assert "accuracy-at-chance" in codes(logits, rng.integers(0, 5, labels.size))


def softmax(values):
    found = np.exp(values - values.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def test_a_softmax_that_was_applied_twice_is_noticed(calibrated) -> None:
    logits, labels = calibrated
    once = softmax(2 * logits)
    assert "softmax-twice" in codes(softmax(once), labels, "probabilities")
    assert "softmax-twice" not in codes(once, labels, "probabilities")
    assert "softmax-twice" not in codes(softmax(logits / 9), labels, "probabilities")


def test_degenerate_predictors_are_noticed(calibrated) -> None:
    logits, labels = calibrated
    same = logits.copy()
    same[:, 1] = 50
    assert "one-prediction" in codes(same, labels)
    flat = np.eye(5)[labels] * 3.0
    assert "one-confidence" in codes(np.roll(flat, 0, axis=1), labels)


def test_copies_and_ids_in_two_roles_are_noticed(calibrated) -> None:
    logits, labels = (np.concatenate([part, part[:40]]) for part in calibrated)
    assert "duplicated-rows" in codes(logits, labels)
    ids = pd.DataFrame({"id": [*range(900), *range(40)]})
    roles = ColumnRoles(id="id")
    assert "id-in-two-roles" in codes(logits, labels, metadata=ids, roles=roles)
    assert "duplicated-rows" not in codes(*calibrated)


def test_the_overview_has_its_fold_line() -> None:
    at = opened()
    said = words(at)
    for part in (
        "Worst predicted class",
        "Worst slice",
        "Rows to review",
        "noise = high",
    ):
        assert part in said
    assert len(at.dataframe[0].value) == 5
    assert "Found among" in said


def test_warnings_are_on_overview_and_data(calibrated) -> None:
    logits, labels = calibrated
    frame = pd.DataFrame(logits, columns=[f"logit_{i}" for i in "abcde"])
    frame["label"] = np.array(list("bcdea"))[labels]
    at = upload(opened(), "odd.csv", frame.to_csv(index=False).encode())
    assert "Are labels and columns in the same order?" in words(at)
    at.switch_page("views/data.py").run()
    assert "Are labels and columns in the same order?" in words(at)


def test_scores_that_are_calibrated_already_are_told_so(calibrated) -> None:
    logits, labels = calibrated
    frame = pd.DataFrame(logits, columns=[f"logit_{i}" for i in "abcde"])
    frame["label"] = np.array(list("abcde"))[labels]
    at = upload(opened(), "fine.csv", frame.to_csv(index=False).encode())
    assert "Nothing to repair was found" in words(at)
