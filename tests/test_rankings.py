"""Rankings over data sets and metrics: read back, put together, and on the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_app import opened, table, upload, widget, words
from test_app_apply import give, go

from components import rankings
from core.analysis import analyze
from core.consensus import consensus, critical_difference
from core.loading import open_study
from core.messages import DataError
from core.rankings import (
    DataSetScores,
    comparison_document,
    data_set_document,
    put_together,
    read_comparison,
    scores_of,
)
from core.settings import Settings
from core.standings import standings

NAMES = ("temperature", "uncalibrated", "vector")
NOISE = np.random.default_rng(0).normal(size=(3, 6))
VALUES = NOISE + np.array([0.0, 2.0, 1.0])[:, None]


def made(t: int) -> list[DataSetScores]:
    return [
        DataSetScores(
            f"set {j}",
            f"print {j}",
            {
                n: {"nll": VALUES[i, j], "ece": -VALUES[i, j]}
                for i, n in enumerate(NAMES)
            }
            | ({"only": {"nll": 1.0}} if j == 0 else {}),
        )
        for j in range(t)
    ]


def test_data_sets_are_put_together_by_their_ranks():
    found = put_together(made(6), ["nll"])
    assert found is not None
    assert found.agreed == consensus(NAMES, VALUES)
    assert found.tested == critical_difference(NAMES, VALUES)
    assert found.left_out == ("only",)
    assert "Friedman p" in found.difference_sentence
    frame = found.to_frame()
    assert len(frame) == 18
    for j in range(6):
        own = frame[frame["data_set"] == f"set {j}"].sort_values("rank")
        assert own["value"].is_monotonic_increasing
        assert list(own["rank"]) == [1, 2, 3]
    mean = frame.groupby("method")["rank"].mean()
    assert found.agreed.mean_rank == pytest.approx(mean.to_dict())
    shown = rankings.ranks_frame(found)
    assert shown.shape == (3, 9)
    assert list(shown["Calibrator"]) == [
        rankings.label_of(n) for n in found.agreed.order
    ]
    said = rankings.named(found.difference_sentence, found)
    assert ("Temperature scaling" in said) == (
        "temperature" in found.difference_sentence
    )


def test_metrics_of_one_data_set_have_no_critical_difference():
    assert put_together(made(1), ["nll"]) is None
    assert put_together([], ["nll", "ece"]) is None
    found = put_together(made(1), ["nll", "ece"])
    assert found is not None
    assert found.tested is None
    assert "not independent" in found.difference_sentence
    assert found.left_out == ("only",)
    few = put_together(made(2), ["nll"])
    assert few is not None
    assert few.difference_sentence.endswith("at least 5 data sets.")
    assert "first over 2 data sets by NLL" in rankings.title(few)


def test_a_tie_is_called_one():
    scores = [
        DataSetScores(str(j), "", {"beta": {"nll": j % 2}, "platt": {"nll": 0.5}})
        for j in range(6)
    ]
    found = put_together(scores, ["nll"])
    assert found is not None
    said = rankings.title(found)
    assert "tie and are first over 6 data sets" in said
    assert "one-vs-rest)" in said
    assert "\N{MINUS SIGN}1.00" in rankings.named(found.agreement_sentence, found)


def test_a_comparison_is_read_back():
    settings = Settings(n_resamples=100)
    study, _ = open_study(table(200), settings, name="mine.csv")
    analysis = analyze(study, settings)
    found = standings(analysis)
    document = comparison_document(settings, [data_set_document(analysis, found)])
    (again,) = read_comparison(json.dumps(document))
    assert again == scores_of(analysis, found)
    for text in ("", "[]", '{"data_sets": []}', '{"data_sets": [{"methods": 3}]}'):
        with pytest.raises(DataError, match="does not hold a comparison"):
            read_comparison(text, "x.json")


def test_the_page_ranks_over_files_that_are_added():
    at = go(upload(opened(), "mine.csv", table(300)), "calibrators")
    at.session_state["several"] = True
    at = go(at.run(), "calibrators")
    assert "One data set so far." in words(at)
    widget(at.pills, "several_metrics").set_value(["nll", "brier"]).run()
    assert "first over 1 data set by NLL, Brier score" in words(at)
    widget(at.pills, "several_metrics").set_value(["nll"]).run()
    sets = [
        {
            "file": item.name,
            "fingerprint": item.fingerprint,
            "methods": [
                {"method": m, "cross_validated": {"nll": {"value": v["nll"]}}}
                for m, v in item.scores.items()
            ],
        }
        for item in made(5)
    ]
    text = json.dumps({"data_sets": sets})
    give(at, "upload_rankings", "other.json", text.encode())
    assert "first over 6 data sets by NLL" in words(at)
    assert "Friedman p" in words(at)
    assert "Not in every ranking: only" in words(at).replace("Vector scaling, ", "")
    give(at, "upload_rankings", "again.csv", table(300))
    assert "Given twice, counted once" in words(at)
    give(at, "upload_rankings", "odd.json", b'{"data_sets": 1}')
    assert "does not hold a comparison" in at.error[0].proto.title
    at.button(key="drop_rankings").click().run()
    assert "One data set so far." in words(at)
