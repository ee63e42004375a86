"""Files without a header: ids and row numbers are no scores."""

from __future__ import annotations

import numpy as np
import pytest

from core.loading import DataError, read_predictions

RNG = np.random.default_rng(8)
P = RNG.uniform(0.05, 0.95, size=12).round(3)
Y = np.arange(12) % 2
IDS = {
    "counted": np.arange(12),
    "counted from 101": np.arange(101, 113),
    "shuffled": RNG.permutation(12) + 1,
    "with gaps": np.arange(12) * 2 - np.arange(12) // 3,
    "far": RNG.choice(10**8, size=12, replace=False) + 10**6,
}


def text(*columns: object) -> bytes:
    rows = zip(*columns, strict=True)  # type: ignore[call-overload]
    return "\n".join([*(",".join(map(str, row)) for row in rows), ""]).encode()


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_an_id_in_front_is_no_score(ids: object) -> None:
    logits = RNG.normal(size=(12, 3)).round(3)
    for scores in ([P], [P, 1 - P], list(logits.T)):
        rows = read_predictions(text(ids, *scores, Y))
        assert rows.n_classes == max(2, len(scores))
        np.testing.assert_array_equal(rows.labels, Y)
        assert rows.roles.id == "column 1"
        assert any(note.code == "id-without-name" for note in rows.notes)
        assert rows.metadata["column 1"].tolist() == list(ids)  # type: ignore[index]
    chosen = ("column 1", "column 2")
    rows = read_predictions(text(ids, P, Y), score_columns=chosen)
    np.testing.assert_array_equal(rows.logits[:, 0], ids)


def test_an_id_in_front_of_scores_without_a_label() -> None:
    rows = read_predictions(text(np.arange(12), P, 1 - P))
    assert rows.labels is None
    np.testing.assert_allclose(np.exp(rows.logits), np.c_[P, 1 - P])


def test_a_few_rows_with_an_id() -> None:
    rows = read_predictions(b"101,0.93,1\n102,0.25,0\n")
    np.testing.assert_allclose(np.exp(rows.logits[:, 1]), [0.93, 0.25])
    rows = read_predictions(b"90817,0.93,1\n40102,0.25,0\n")
    np.testing.assert_allclose(np.exp(rows.logits[:, 1]), [0.93, 0.25])


def test_an_id_before_whole_percent() -> None:
    percent = np.round(P * 100).astype(int)
    rows = read_predictions(text(np.arange(12), percent, 100 - percent, Y))
    np.testing.assert_allclose(np.exp(rows.logits[:, 1]), 1 - percent / 100)


def test_labels_first_stay_labels() -> None:
    rows = read_predictions(text(Y, P, 1 - P))
    np.testing.assert_array_equal(rows.labels, Y)
    rows = read_predictions(b"0,0.9,0.1\n1,0.25,0.75\n")
    np.testing.assert_array_equal(rows.labels, [0, 1])


def test_a_class_that_never_was_is_a_score() -> None:
    data = text(np.zeros(12, int), P, 1 - P, Y + 1)
    rows = read_predictions(data, label_base="0")
    assert rows.n_classes == 3


def test_whole_numbers_among_decimals_are_refused() -> None:
    logits = RNG.normal(size=(12, 2)).round(3)
    with pytest.raises(DataError, match="predicted class or a score") as caught:
        read_predictions(text(logits.argmax(axis=1), *logits.T, Y))
    assert "column 2, column 3" in caught.value.how_to_fix
    rows = read_predictions(
        text(logits.argmax(axis=1), *logits.T, Y),
        score_columns=("column 2", "column 3"),
        label_column="column 4",
    )
    np.testing.assert_array_equal(rows.logits, logits)
