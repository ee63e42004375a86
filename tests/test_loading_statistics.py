"""Columns beside the scores: statistics, copies and versions are no classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.loading import DataError, read_predictions
from core.loading.sources import Raw
from core.messages import Answer

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(30, 2)).round(3)
LABEL = RNG.choice(["cat", "dog"], size=30)


def text(**columns: object) -> bytes:
    return pd.DataFrame(columns).to_csv(index=False).encode()


def codes(rows: object) -> list[str]:
    return [note.code for note in rows.notes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("more", ["max", "margin", "entropy", "std", "logsumexp"])
@pytest.mark.parametrize("label", [LABEL, (LABEL == "dog").astype(int), None])
def test_statistics_are_no_classes(more: str, label: object) -> None:
    columns = {"logit_cat": LOGITS[:, 0], "logit_dog": LOGITS[:, 1]}
    columns[f"logit_{more}"] = LOGITS.max(axis=1)
    if label is not None:
        columns["label"] = label
    rows = read_predictions(text(**columns))
    assert rows.classes == ("cat", "dog")
    assert "statistics-aside" in codes(rows)
    chosen = tuple(name for name in columns if name != "label")
    assert len(read_predictions(text(**columns), score_columns=chosen).classes) == 3


def test_a_class_that_a_label_names_is_one() -> None:
    labels = np.resize(["max", "ann", "eve"], 30)
    three = RNG.normal(size=(30, 3))
    rows = read_predictions(
        text(
            logit_ann=three[:, 0],
            logit_eve=three[:, 1],
            logit_max=three[:, 2],
            label=labels,
        )
    )
    assert rows.classes == ("ann", "eve", "max")
    p = RNG.dirichlet(np.ones(3), size=30)
    rows = read_predictions(text(prob_ann=p[:, 0], prob_eve=p[:, 1], prob_max=p[:, 2]))
    assert rows.classes == ("ann", "eve", "max")


@pytest.mark.parametrize(
    ("score", "more"),
    [
        ("logit", "logit_se"),
        ("score", "score_std"),
        ("score", "p_value"),
        ("score", "pvalue"),
        ("prediction", "prediction_std"),
        ("y_pred", "pred_time"),
        ("y_pred", "y_pred_std"),
        ("logit_1", "logit_margin"),
        ("prob", "prob_variance"),
        ("score", "loss"),
        ("score", "nll"),
        ("risk", "risk_std"),
    ],
)
def test_a_statistic_never_wins_over_the_score(score: str, more: str) -> None:
    p = RNG.uniform(0.01, 0.99, size=30)
    y = np.arange(30) % 2
    for names in ((score, more), (more, score)):
        values = {score: p, more: RNG.uniform(size=30)}
        data = text(**{name: values[name] for name in names}, label=y)
        kind = "probabilities"
        rows = read_predictions(data, input_kind=kind)
        np.testing.assert_allclose(np.exp(rows.logits[:, 1]), p)
        assert rows.metadata is not None
        assert more in rows.metadata


def test_bounds_of_an_interval_are_no_classes() -> None:
    p = RNG.uniform(0.2, 0.8, size=30)
    rows = read_predictions(
        text(prob=p, prob_low=p - 0.1, prob_high=p + 0.1, label=np.arange(30) % 2)
    )
    np.testing.assert_allclose(np.exp(rows.logits[:, 1]), p)
    low_high = text(prob_low=p, prob_high=1 - p, label=np.arange(30) % 2)
    assert read_predictions(low_high).classes == ("low", "high")


@pytest.mark.parametrize("name", ["loss", "entropy", "pvalue", "score_std", "nll"])
def test_a_statistic_alone_is_no_score(name: str) -> None:
    with pytest.raises(DataError, match="No score columns"):
        read_predictions(text(**{name: LOGITS[:, 0]}, label=np.arange(30) % 2))


def test_a_copy_that_pandas_counted() -> None:
    columns = {"logit_cat": LOGITS[:, 0], "logit_dog": LOGITS[:, 1]}
    rows = read_predictions(
        text(**columns, **{"logit_cat.1": LOGITS[:, 0]}, label=LABEL)
    )
    assert rows.classes == ("cat", "dog")
    assert "copied-column" in codes(rows)
    with pytest.raises(DataError, match="second column logit_cat"):
        read_predictions(text(**columns, **{"logit_cat.1": -LOGITS[:, 0]}, label=LABEL))


@pytest.mark.parametrize(
    "names", [("logit_raw", "logit_calibrated"), ("prob", "prob_cal")]
)
def test_versions_of_one_score_are_asked_about(names: tuple[str, str]) -> None:
    p = RNG.uniform(0.2, 0.8, size=30)
    data = text(**{names[0]: p, names[1]: p**2}, label=np.arange(30) % 2)
    with pytest.raises(DataError, match="versions of one score") as caught:
        read_predictions(data)
    wanted = [answer.change for answer in caught.value.answers]
    assert wanted == [{"score_columns": (name,)} for name in names]
    assert read_predictions(data, **wanted[1]).n_classes == 2
    assert Answer("", "label_base", "1").change == {"label_base": "1"}


def test_labels_are_not_read_again_for_every_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_calls = 0
    original = Raw.distinct

    def distinct(self: Raw, name: str) -> list[str]:
        nonlocal n_calls
        n_calls += 1
        return original(self, name)

    monkeypatch.setattr(Raw, "distinct", distinct)
    scores = {f"logit_c{i}": RNG.normal(size=30) for i in range(200)}
    rows = read_predictions(text(**scores, label=[f"c{i}" for i in range(30)]))
    assert rows.n_classes == 200
    assert n_calls < 20
