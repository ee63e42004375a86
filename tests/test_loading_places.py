"""Arrays and labels that only their places match: asked, or read with a note."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from core.loading import DataError, read_predictions

RNG = np.random.default_rng(11)
Z = RNG.normal(size=(30, 3))
Y = np.arange(30) % 3


def npz(*args: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *args, **arrays)
    return buffer.getvalue()


def read(data: bytes, name: str = "a.npz", **more: Any) -> Any:
    return read_predictions(data, name=name, **more)


def flags(data: bytes, name: str = "a.npz") -> list[str]:
    with pytest.raises(DataError) as caught:
        read(data, name)
    return [answer.flag for answer in caught.value.answers]


def codes(rows: Any) -> list[str]:
    return [note.code for note in rows.notes]


def test_labels_without_the_first_class_are_asked_about() -> None:
    y = Y % 2 + 1
    data = npz(logits=Z, labels=y)
    assert flags(data) == ["--label-base 1", "--label-base 0"]
    np.testing.assert_array_equal(read(data, label_base="0").labels, y)
    np.testing.assert_array_equal(read(data, label_base="1").labels, y - 1)
    np.testing.assert_array_equal(read(npz(logits=Z, labels=Y)).labels, Y)
    assert flags(npz(logits=Z, labels=Y + 1)) == ["--label-base 1"]
    lines = [",".join(map(str, (*row, k))) for row, k in zip(Z, y, strict=True)]
    assert flags("\n".join(lines).encode(), "a.csv") == [
        "--label-base 1",
        "--label-base 0",
    ]
    named = npz(logits=Z, labels=y, classes=np.array(["0", "1", "2"]))
    np.testing.assert_array_equal(read(named).labels, y)


@pytest.mark.parametrize("pair", [(1, 2), (3, 7), (10, 9)])
def test_two_numbers_under_one_score_are_asked_about(pair: tuple[int, int]) -> None:
    cells = [f"{z},{pair[i % 2]}" for i, z in enumerate(Z[:, 0])]
    data = "\n".join(["logit,label", *cells]).encode()
    low, high = (str(x) for x in sorted(pair))
    rows = read(data, "a.csv")
    assert rows.classes == (low, high)
    (note,) = (note for note in rows.notes if note.code == "labels-by-meaning")
    assert note.severity == "question"
    assert f"--positive-class {low}" in note.text
    rows = read(data, "a.csv", positive_class=low)
    assert rows.classes == (high, low)
    assert "labels-by-meaning" not in codes(rows)
    usual = b"logit,label\n0.5,-1\n1.5,1\n"
    assert "labels-by-meaning" not in codes(read(usual, "a.csv"))


@pytest.mark.parametrize("order", [("predictions", "probs"), ("probs", "predictions")])
def test_hard_predictions_are_not_chosen_beside_scores(order: tuple[str, str]) -> None:
    p = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    hard = np.eye(3)[p.argmax(axis=1)]
    arrays = {"predictions": hard, "probs": p}
    rows = read(npz(**{name: arrays[name] for name in order}, labels=Y))
    np.testing.assert_allclose(np.exp(rows.logits), p)
    assert "hard-predictions" in codes(rows)


def test_transposed_scores_are_turned() -> None:
    rows = read(npz(logits=Z.T, labels=Y))
    np.testing.assert_array_equal(rows.logits, Z)
    np.testing.assert_array_equal(rows.labels, Y)
    assert "transposed" in codes(rows)
    rows = read(npz(logits=Z[:3], labels=Y[:3]))
    assert "transposed" not in codes(rows)


@pytest.mark.parametrize(
    "scores", [Z, Z.astype(np.float32), 1 / (1 + np.exp(-Z[:, 0]))]
)
def test_labels_saved_first(scores: Any) -> None:
    y = Y if scores.ndim == 2 else Y % 2
    rows = read(npz(y, scores))
    np.testing.assert_array_equal(rows.labels, y)
    if scores.ndim == 2:
        np.testing.assert_array_equal(rows.logits, scores)
    assert "labels-first" in codes(rows)
    assert "labels-first" not in codes(read(npz(scores, y)))


@pytest.mark.parametrize("header", ["prob_{}", "{}"])
def test_accents_in_either_form_are_one_class(header: str) -> None:
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    for column, label in ((nfc, nfd), (nfd, nfc)):
        names = f"{header.format(column)},{header.format('tea')},label"
        data = f"{names}\n0.9,0.1,{label}\n0.25,0.75,tea\n".encode()
        rows = read(data, "a.csv")
        assert rows.n_classes == 2
        assert rows.labels.tolist() == [0, 1]


def test_labels_called_class_1() -> None:
    data = b"prob_class_1,prob_class_2,label\n0.9,0.1,class_1\n0.25,0.75,class_2\n"
    np.testing.assert_array_equal(read(data, "a.csv").labels, [0, 1])
    data = b"prob_1,prob_2,label\n0.9,0.1,class 1\n0.25,0.75,Class=2\n"
    np.testing.assert_array_equal(read(data, "a.csv").labels, [0, 1])
