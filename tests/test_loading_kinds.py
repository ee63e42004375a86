"""Logits or probabilities: rows decide, and what is uncertain is asked."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from core.loading import DataError, inspect_file, read_predictions

RNG = np.random.default_rng(3)
GOOD = RNG.dirichlet(np.ones(3), size=40)


def text(rows: Any, header: str = "cat,dog,owl") -> bytes:
    lines = [",".join(map(str, row)) for row in np.asarray(rows).tolist()]
    names = header.split(",")[: len(lines[0].split(","))]
    labelled = [f"{line},{names[i % len(names)]}" for i, line in enumerate(lines)]
    return "\n".join([f"{header},label", *labelled, ""]).encode()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def changed(*row: float) -> Any:
    rows = GOOD.copy()
    rows[7] = row
    return rows


def question(data: bytes, name: str = "rows.csv", **more: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_predictions(data, name=name, **more)
    assert caught.value.answers
    return caught.value


# --- values outside 0..1 --------------------------------------------------------------


@pytest.mark.parametrize("beyond", [3e-16, 2e-7, 9e-7])
@pytest.mark.parametrize("header", ["cat,dog,owl", "prob_cat,prob_dog,prob_owl"])
def test_rounding_outside_0_and_1_is_no_logit(beyond: float, header: str) -> None:
    data = text(changed(1 + beyond, -beyond, 0.0), header)
    rows = read_predictions(data, label_column="")
    assert rows.input_kind == "probabilities"
    np.testing.assert_allclose(np.exp(rows.logits[7]), [1, 0, 0], atol=1e-11)
    (note,) = (note for note in rows.notes if note.code == "rounded-outside")
    assert f"column {header.split(',')[0]}, row 8" in note.text


def test_rounding_outside_0_and_1_of_single_precision() -> None:
    p = np.array([[1.0000001, 0], [0.25, 0.75]], dtype=np.float32)
    p[0, 1] = 1 - p[0, 0]
    rows = read_predictions(npz(predictions=p, labels=[0, 1]), name="a.npz")
    assert rows.input_kind == "probabilities"
    assert any("2 cells lie" in note.text for note in rows.notes)


@pytest.mark.parametrize("bad", [(-1, -1, -1), (99, 99, 99), (1.2, 0, 0)])
def test_one_bad_row_is_named(bad: tuple[float, ...]) -> None:
    error = question(text(changed(*bad)))
    assert error.where == "rows.csv, column cat, row 8"
    assert "1 row of 40" in error.what
    flags = [answer.flag for answer in error.answers]
    assert flags == ["--invalid-rows leave-out", "--input-kind logits"]
    assert len(read_predictions(text(changed(*bad)), invalid_rows="leave-out")) == 39
    kept = read_predictions(text(changed(*bad)), input_kind="logits")
    np.testing.assert_array_equal(kept.logits[7], bad)


@pytest.mark.parametrize("bad", ["1.0000012", "-1", "99"])
def test_one_bad_cell_of_a_binary_score_is_named(bad: str) -> None:
    cells = [f"{p},{i % 2}" for i, p in enumerate(GOOD[:, 0].tolist())]
    cells[7] = f"{bad},1"
    data = "\n".join(["score,label", *cells, ""]).encode()
    error = question(data)
    assert error.where == "rows.csv, column score, row 8"
    assert len(read_predictions(data, invalid_rows="leave-out")) == 39


def test_logits_stay_logits() -> None:
    logits = RNG.normal(size=(40, 3))
    assert inspect_file(text(logits)).input_kind == "logits"
    few = text(changed(1 + 1e-9, -1e-9, 0))
    assert read_predictions(few, input_kind="logits").logits.min() < 0


# --- percentages and bytes ------------------------------------------------------------


def note_of(rows: Any, code: str) -> str:
    (found,) = (note.text for note in rows.notes if note.code == code)
    return str(found)


@pytest.mark.parametrize("header", ["cat,dog,owl", "prob_cat,prob_dog,prob_owl"])
@pytest.mark.parametrize(("whole", "digits"), [(100, 6), (100, 0), (255, 0)])
def test_shares_of_100_and_255_are_divided(
    header: str, whole: int, digits: int
) -> None:
    shares = np.round(GOOD * whole, digits)
    data = text(shares, header)
    more: Any = {"label_column": ""}
    rows = read_predictions(data, **more)
    assert rows.input_kind == "probabilities"
    expected = shares / shares.sum(axis=1, keepdims=True)
    found = np.exp(rows.logits) / np.exp(rows.logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert f"divided by {whole}" in note_of(rows, "divided-scores")
    again = read_predictions(data, schema=inspect_file(data), **more)
    np.testing.assert_array_equal(again.logits, rows.logits)
    assert read_predictions(data, input_kind="logits", **more).logits.max() > 1


@pytest.mark.parametrize(("dtype", "whole"), [("float32", 100), ("uint8", 255)])
def test_shares_in_an_array_are_divided(dtype: str, whole: int) -> None:
    shares = np.round(GOOD[:, :2] / GOOD[:, :2].sum(axis=1, keepdims=True) * whole)
    data = npz(predictions=shares.astype(dtype), labels=np.arange(40) % 2)
    rows = read_predictions(data, name="a.npz")
    assert f"divided by {whole}" in note_of(rows, "divided-scores")


@pytest.mark.parametrize("row", [(33, 33, 33), (34, 34, 33), (0, 100, 0)])
def test_whole_percent_may_miss_100(row: tuple[float, ...]) -> None:
    shares = np.round(GOOD * 100)
    shares[7] = row
    rows = read_predictions(text(shares))
    np.testing.assert_allclose(
        np.exp(rows.logits[7]), np.array(row) / sum(row), atol=1e-9
    )


def test_a_bad_row_among_percentages_is_named_as_written() -> None:
    shares = GOOD * 100
    shares[7] = -1, -1, -1
    error = question(text(shares))
    assert "cell '-1' is not a probability" in error.what
    assert error.where == "rows.csv, column cat, row 8"


def test_infinities_are_no_percentages() -> None:
    logits = "cat,dog,label\n-inf,3,dog\n90,-inf,cat\n"
    assert read_predictions(logits.encode()).input_kind == "logits"


def one_score(name: str, values: Any) -> bytes:
    cells = [f"{value},{i % 2}" for i, value in enumerate(values)]
    return "\n".join([f"{name},label", *cells, ""]).encode()


def test_one_score_of_percentages_is_asked_about() -> None:
    data = one_score("score", GOOD[:, 0] * 100)
    error = question(data)
    assert "are they percentages or logits" in error.what
    assert f"column score, row {GOOD[:, 0].argmax() + 1}" in error.where
    flags = [answer.flag for answer in error.answers]
    assert flags == ["--input-kind probabilities", "--input-kind logits"]
    rows = read_predictions(data, input_kind="probabilities")
    np.testing.assert_allclose(np.exp(rows.logits)[:, 1], GOOD[:, 0])
    rows = read_predictions(data, input_kind="logits")
    np.testing.assert_allclose(rows.logits[:, 1], GOOD[:, 0] * 100)


def test_one_probability_of_percent_is_divided() -> None:
    rows = read_predictions(one_score("prob", GOOD[:, 0] * 100))
    np.testing.assert_allclose(np.exp(rows.logits)[:, 1], GOOD[:, 0])
    assert "divided by 100" in note_of(rows, "divided-scores")
    question(one_score("prob", GOOD[:, 0] * 10))


def test_one_score_beyond_percent_is_asked_about() -> None:
    error = question(one_score("score", 300 + GOOD[:, 0] * 550))
    assert [answer.flag for answer in error.answers] == ["--input-kind logits"]


@pytest.mark.parametrize(
    "data",
    [
        b"prob,label\n97.5%,1\n25 %,0\n",
        b"score,label\n97.5%,1\n25%,0\n",
        b"prob;label\n97,5%;1\n25,0%;0\n",
        b"neg,pos,label\n2.5%,97.5%,pos\n75%,25%,neg\n",
    ],
)
def test_percent_signs_are_read(data: bytes) -> None:
    rows = read_predictions(data)
    np.testing.assert_allclose(np.exp(rows.logits)[:, 1], [0.975, 0.25])
    assert "97.5%" in note_of(rows, "percent-signs").replace(",", ".") or data[:3] == (
        b"neg"
    )


def test_a_percent_sign_among_numbers_is_a_fault() -> None:
    with pytest.raises(DataError, match="percent sign or none"):
        read_predictions(b"prob,label\n97.3%,1\n0.2,0\n")


# --- logarithms of probabilities ------------------------------------------------------


@pytest.mark.parametrize("name", ["log_prob", "logprob_1", "log_proba"])
def test_one_logarithm_of_a_probability_is_no_logit(name: str) -> None:
    data = f"{name},label\n-0.1,1\n-2.5,0\n0,1\n".encode()
    rows = read_predictions(data)
    assert rows.input_kind == "probabilities"
    np.testing.assert_allclose(np.exp(rows.logits)[:2, 1], np.exp([-0.1, -2.5]))
    assert name in note_of(rows, "log-probability")
    again = read_predictions(data, schema=inspect_file(data))
    np.testing.assert_array_equal(again.logits, rows.logits)
    assert read_predictions(data, input_kind="logits").logits[1, 1] == -2.5
    assert "above 0" in question(data.replace(b"-2.5", b"2.5")).what


def test_negative_logarithms_change_sign() -> None:
    data = b"nll_cat,nll_dog,label\n0.1,2.4,cat\n1.5,0.25,dog\n"
    rows = read_predictions(data)
    np.testing.assert_array_equal(rows.logits, [[-0.1, -2.4], [-1.5, -0.25]])
    assert "the sign was changed" in note_of(rows, "negated-scores")
    again = read_predictions(data, schema=inspect_file(data))
    np.testing.assert_array_equal(again.logits, rows.logits)
    one = read_predictions(b"nll_1,label\n0.1,1\n2.5,0\n")
    np.testing.assert_allclose(np.exp(one.logits)[:, 1], np.exp([-0.1, -2.5]))
