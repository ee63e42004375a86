"""Files as people in the field have them: none is misread in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.loading import DataError, read_predictions

RNG = np.random.default_rng(1)
N = 40
Z = RNG.normal(size=(N, 3)) * 2
P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
NAMES = np.array(["cat", "dog", "owl"])
LABEL = NAMES[np.arange(N) % 3]
BINARY = np.arange(N) % 2


def text(**columns: Any) -> bytes:
    return pd.DataFrame(columns).to_csv(index=False).encode()


def classes(stem: str, matrix: Any) -> bytes:
    scores = {f"{stem}{name}": matrix[:, i] for i, name in enumerate(NAMES)}
    return text(**scores, label=LABEL)


def codes(rows: Any) -> list[str]:
    return [note.code for note in rows.notes]


@pytest.mark.parametrize("stem", ["", "votes_"])
@pytest.mark.parametrize("whole", [500, 1000])
def test_votes_of_trees_are_shares(stem: str, whole: int) -> None:
    votes = RNG.multinomial(whole, P)
    rows = read_predictions(classes(stem, votes))
    assert rows.input_kind == "probabilities"
    assert "divided-scores" in codes(rows)
    there = votes > 0
    np.testing.assert_allclose(np.exp(rows.logits)[there], (votes / whole)[there])


@pytest.mark.parametrize("stem", ["rank_", "cost_", "distance_"])
def test_scores_that_fall_are_doubted(stem: str) -> None:
    ranks = Z.argsort(axis=1).argsort(axis=1) + 1
    rows = read_predictions(classes(stem, ranks if stem == "rank_" else -Z))
    assert rows.input_kind == "logits"
    assert "reversed-scores" in codes(rows)


def test_a_mean_beside_its_deviation_is_the_score() -> None:
    rows = read_predictions(text(prob_mean=P[:, 0], prob_std=P[:, 1], label=BINARY))
    np.testing.assert_allclose(np.exp(rows.logits[:, 1]), P[:, 0])
    assert rows.classes == ("0", "1")


def test_percent_in_the_name_is_no_class() -> None:
    rows = read_predictions(text(prob_pct=P[:, 0] * 100, label=BINARY))
    np.testing.assert_allclose(np.exp(rows.logits[:, 1]), P[:, 0])
    assert rows.classes == ("0", "1")


def test_a_score_and_another_version_of_it() -> None:
    data = text(logit=Z[:, 0], logit_T=Z[:, 0] / 1.5, label=BINARY)
    with pytest.raises(DataError, match="versions of one score"):
        read_predictions(data)


def test_one_score_that_is_never_above_0() -> None:
    data = text(log10_prob=np.log10(P[:, 0]), label=BINARY)
    with pytest.raises(DataError, match="logarithms") as caught:
        read_predictions(data)
    assert read_predictions(data, **caught.value.answers[0].change).n_classes == 2


def test_truth_and_prediction_without_a_header() -> None:
    cells = zip(LABEL, NAMES[P.argmax(axis=1)], P.max(axis=1), strict=True)
    data = "\n".join(",".join(map(str, row)) for row in cells).encode()
    with pytest.raises(DataError, match="the other the prediction"):
        read_predictions(data)
