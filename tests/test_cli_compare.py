"""The command `compare`: its files, its numbers, several data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import FEW, run, small_csv  # noqa: F401 - a fixture

from core.analysis import analyze
from core.loading import read_study
from core.settings import Settings
from core.standings import standings

METHODS = ("--methods", "temperature,vector", *FEW, "--n-folds", "3")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compare")
    return [small_csv(folder / f"set{n}.csv", n=n) for n in (60, 90)]


def test_one_file_is_compared_as_the_core_does(run, files, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    got = run("compare", files[0], *METHODS, "--out", out, "--json")
    assert got.code == 0, got.err
    assert got.json == json.loads((out / "comparison.json").read_text("utf-8"))
    settings = Settings(calibrators=("temperature", "vector"), n_folds=3)
    analysis = analyze(
        read_study(files[0], settings), settings.replace(n_resamples=100)
    )
    wanted = standings(analysis)
    made = got.json["data_sets"][0]["methods"]
    assert [item["method"] for item in made] == [item.method for item in wanted]
    for item, same in zip(made, wanted, strict=True):
        direct = json.loads(json.dumps(same.to_dict()))
        assert item | {"fit_seconds": 0} == direct | {"fit_seconds": 0}
    table = pd.read_csv(out / "comparison.csv")
    assert list(table["method"]) == [item.method for item in wanted]
    assert {"cv_nll", "change_nll_p_holm", "fit_seconds"} <= set(table)
    text = (out / "comparison.txt").read_text("utf-8")
    assert "for these fitted calibrators" in text
    assert "Not by the ECE" in text
    assert "overall" not in got.json


def test_several_files_are_ranked_together(run, files):  # noqa: F811
    got = run("compare", *files, *METHODS, "--json")
    assert got.code == 0, got.err
    overall = got.json["overall"]
    assert overall["n_data_sets"] == 2
    assert sorted(overall["kemeny"]) == ["temperature", "uncalibrated", "vector"]
    ranks = []
    for item in got.json["data_sets"]:
        order = [row["method"] for row in item["methods"]]
        ranks.append([order.index(name) + 1 for name in sorted(order)])
    mean = dict(zip(sorted(order), np.mean(ranks, axis=0), strict=True))
    assert overall["mean_rank"] == pytest.approx(mean)
    assert overall["critical_difference"] is None
    said = run("compare", *files, *METHODS, "--rank-by", "nll,brier")
    assert "Over 2 data sets by nll, brier: Kemeny's consensus" in said.out
    assert "At" not in said.err


def test_another_baseline_is_fitted_too(run, files):  # noqa: F811
    got = run(
        *("compare", files[0], "--methods", "vector", *FEW, "--n-folds", "3"),
        *("--baseline", "ts"),
    )
    assert got.code == 0, got.err
    assert "Change from temperature on 60 cross-fitted rows" in got.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--methods", "magic"), "no calibrator called 'magic'"),
        (("--baseline", "magic"), "no calibrator called 'magic'"),
        (("--rank-by", "accuracy"), "cannot be ranked by 'accuracy'"),
        (("--label-column", ""), "Nothing could be compared"),
    ],
)
def test_what_cannot_be_compared_is_refused(run, files, flags, words):  # noqa: F811
    got = run("compare", files[0], *FEW, *flags)
    assert got.code == 2
    assert words in " ".join(got.err.split())


def test_files_that_belong_together_are_one_data_set(run, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 3))
    np.save(tmp_path / "logits.npy", logits)
    np.save(tmp_path / "labels.npy", logits.argmax(1))
    both = (tmp_path / "logits.npy", tmp_path / "labels.npy")
    apart = run("compare", *both, *METHODS)
    assert apart.code == 2
    assert "--together" in apart.err
    joined = run("compare", *both, *METHODS, "--together", "--json")
    assert joined.code == 0, joined.err
    assert len(joined.json["data_sets"]) == 1
