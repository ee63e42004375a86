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
