"""Calibrated rows to take home: new files, the user's own file, and safe CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import cli
from core.analysis import Analysis, analyze
from core.calibrators import Calibrator, TemperatureScaling
from core.export import (
    FLAGS,
    annotate,
    apply_calibrator,
    export_metadata,
    exported_calibrator,
    from_json,
    tables,
    to_json,
    write_csv,
    writing,
)
from core.loading import read_predictions
from core.messages import DataError
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings

CLASSES = ("cat", "dog", "emu")
QUICK = Settings(calibrators=("temperature", "isotonic"), n_resamples=100)


def scores(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 4
    return logits, (logits / 2 + rng.gumbel(size=(n, 3))).argmax(axis=1)


def rows(
    table: dict[str, Any] | None = None, n: int = 120, seed: int = 0, **more: Any
) -> Predictions:
    logits, labels = scores(n, seed)
    more = {"labels": labels, "classes": CLASSES, **more}
    metadata = None if table is None else pd.DataFrame(table)
    return Predictions.from_arrays(logits, metadata=metadata, **more)


def of_row(frame: pd.DataFrame, calibrator: Calibrator, own: Predictions) -> Any:
    """Return the largest difference of each row from one calibrator's probabilities."""
    assert own.logits is not None
    found = frame[[f"prob_{name}" for name in own.classes]].to_numpy()
    return np.abs(found - calibrator.predict_proba(own.logits)).max(axis=1)


@pytest.fixture(scope="module")
def cross_fitted() -> Analysis:
    n = 120
    _, labels = scores(n)
    labels = labels.copy()
    labels[100:110] = -1
    table = {"patient": np.arange(n) // 2, "note": ["=1+1", "ok"] * (n // 2)}
    roles = ColumnRoles(group="patient")
    own = rows(table, labels=labels, roles=roles)
    return analyze(Study(own), QUICK)


@pytest.fixture(scope="module")
def taken_home() -> tuple[Calibrator, dict[str, Any]]:
    analysis = analyze(Study(rows()), QUICK)
    metadata = export_metadata(analysis, "temperature")
    return from_json(to_json(exported_calibrator(analysis, "temperature"), metadata))


# ------------------------------------------------------------------ new rows


def test_new_rows_get_probabilities(taken_home: Any) -> None:
    calibrator, metadata = taken_home
    table = {"scan": [f"s{i}" for i in range(120)], "ward": 3}
    new = rows(table, seed=5, labels=None, roles=ColumnRoles(id="scan"))
    frame = apply_calibrator(calibrator, metadata, new)
    names = ["scan", "prediction", "confidence", "prob_cat", "prob_dog", "prob_emu"]
    assert list(frame) == names
    assert list(frame["scan"]) == table["scan"]
    assert (of_row(frame, calibrator, new) == 0).all()
    best = np.array(CLASSES)[frame.iloc[:, 3:].to_numpy().argmax(axis=1)]
    assert (frame["prediction"] == best).all()
    assert (frame["confidence"] == frame.iloc[:, 3:].max(axis=1)).all()


def test_columns_are_matched_by_name(taken_home: Any) -> None:
    calibrator, metadata = taken_home
    logits, _ = scores(seed=6)
    order = [2, 0, 1]
    shuffled = Predictions.from_arrays(
        logits[:, order], classes=tuple(CLASSES[i] for i in order)
    )
    straight = Predictions.from_arrays(logits, classes=CLASSES)
    pd.testing.assert_frame_equal(
        apply_calibrator(calibrator, metadata, shuffled),
        apply_calibrator(calibrator, metadata, straight),
    )


@pytest.mark.parametrize("classes", [None, ("0", "1", "2")])
def test_unnamed_columns_are_matched_by_place(taken_home: Any, classes: Any) -> None:
    calibrator, metadata = taken_home
    new = Predictions.from_arrays(scores()[0], classes=classes)
    assert list(apply_calibrator(calibrator, metadata, new))[-1] == "prob_emu"
    unnamed = {**metadata, "classes": ["0", "1", "2"]}
    named = Predictions.from_arrays(scores()[0], classes=CLASSES)
    assert list(apply_calibrator(calibrator, unnamed, named))[-1] == "prob_2"


def test_other_classes_are_refused(taken_home: Any) -> None:
    calibrator, metadata = taken_home
    new = rows(classes=("cat", "dog", "yak"))
    with pytest.raises(DataError, match="'emu' is not in the file"):
        apply_calibrator(calibrator, metadata, new)
    for k in (2, 4):
        with pytest.raises(DataError, match=f"{k} classes, the calibrator"):
            apply_calibrator(calibrator, metadata, Predictions.from_arrays(np.eye(k)))
    with pytest.raises(DataError, match="3 classes and names 2"):
        apply_calibrator(calibrator, {"classes": ["a", "b"]}, new)
    only = Predictions.from_arrays(
        confidence=[0.5, 0.6], correct=[0, 1], input_kind="confidence"
    )
    with pytest.raises(DataError, match="every class"):
        apply_calibrator(calibrator, metadata, only)


def binary_csv(header: str, labels: tuple[str, str] | None) -> bytes:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.02, 0.98, 80)
    lines = [header + (",label" if labels else "")]
    for value, is_one in zip(p, rng.uniform(size=80) < p, strict=True):
        lines.append(f"{value}" + (f",{labels[int(is_one)]}" if labels else ""))
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("fitted_on", "labels"),
    [
        ("prob_malignant", ("benign", "malignant")),
        ("prob_Malignant", ("benign", "malignant")),
        ("prob_malignant", ("0", "1")),
        ("prob", ("benign", "malignant")),
    ],
)
@pytest.mark.parametrize("new", ["prob_malignant", "logit_malignant", "prob"])
def test_one_score_without_labels(
    fitted_on: str, labels: tuple[str, str], new: str
) -> None:
    positive = "malignant" if fitted_on == "prob" else None
    own = read_predictions(binary_csv(fitted_on, labels), positive_class=positive)
    analysis = analyze(Study(own), QUICK)
    metadata = export_metadata(analysis, "temperature")
    calibrator = exported_calibrator(analysis, "temperature")
    assert own.classes[1].casefold() == "malignant"
    rows = read_predictions(binary_csv(new, None), input_kind="probabilities")
    frame = apply_calibrator(calibrator, metadata, rows)
    expected = apply_calibrator(calibrator, metadata, own)
    pd.testing.assert_frame_equal(frame, expected)
    assert list(frame)[-2:] == [f"prob_{name}" for name in own.classes]
    # The score of one of two columns keeps its class, wherever that stands.
    swapped = {**metadata, "classes": list(own.classes[::-1])}
    if new != "prob":
        turned = apply_calibrator(calibrator, swapped, rows)
        made = calibrator.predict_proba(rows.logits[:, ::-1])
        np.testing.assert_allclose(turned[f"prob_{own.classes[0]}"], made[:, 1])
    other = {**metadata, "classes": ["benign", "cyst"]}
    strange = read_predictions(binary_csv("prob_malignant", None))
    with pytest.raises(DataError, match="'benign' is not in the file"):
        apply_calibrator(calibrator, other, strange)


@pytest.mark.parametrize("labels", [("0", "1"), ("benign", "malignant")])
def test_one_score_stays_that_of_the_chosen_positive_class(
    labels: tuple[str, str],
) -> None:
    own = read_predictions(binary_csv("prob", labels), positive_class=labels[0])
    assert own.classes == labels[::-1]
    analysis = analyze(Study(own), QUICK)
    metadata = export_metadata(analysis, "temperature")
    calibrator = exported_calibrator(analysis, "temperature")
    rows = read_predictions(binary_csv("prob", None), label_column="")
    expected = apply_calibrator(calibrator, metadata, own)
    found = apply_calibrator(calibrator, metadata, rows)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("labels", [None, ("benign", "malignant"), ("ben", "cow")])
def test_one_score_on_the_command_line(
    labels: tuple[str, str] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, new = tmp_path / "own.csv", tmp_path / "new.csv"
    own.write_bytes(binary_csv("prob_malignant", ("benign", "malignant")))
    new.write_bytes(binary_csv("prob_malignant", labels))
    folder, out = tmp_path / "made", tmp_path / "out.csv"
    quick = ("--calibrators", "temperature", "--n-resamples", "100")
    assert cli.main(["calibrate", str(own), "--out", str(folder), *quick]) == 0
    argv = ["apply", str(folder / "calibrator.json"), str(new), "--out", str(out)]
    capsys.readouterr()
    assert cli.main(argv) == 0
    assert "label" not in capsys.readouterr().out
    found = pd.read_csv(out)
    assert list(found)[-2:] == ["prob_benign", "prob_malignant"]
    given = pd.read_csv(new)["prob_malignant"]
    assert np.corrcoef(found["prob_malignant"], given)[0, 1] > 0.9
    if labels is not None and "cow" in labels:  # a chosen label is read
        assert cli.main([*argv, "--label-column", "label"]) == 2


def test_scores_of_another_kind_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, new = tmp_path / "own.csv", tmp_path / "new.csv"
    own.write_bytes(binary_csv("prob_malignant", ("benign", "malignant")))
    folder, out = tmp_path / "made", tmp_path / "out.csv"
    quick = ("--calibrators", "temperature", "--n-resamples", "100")
    assert cli.main(["calibrate", str(own), "--out", str(folder), *quick]) == 0
    argv = ["apply", str(folder / "calibrator.json"), str(new), "--out", str(out)]
    new.write_text("score_benign,score_malignant\n2.5,-1\n-0.5,0.25\n")
    assert cli.main(argv) == 2
    assert "fitted on probabilities; these scores look like" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*argv, "--input-kind", "logits"]) == 0
    new.write_text("score_benign,score_malignant\n1,-2e-16\n0.75,0.25\n")
    assert cli.main(argv) == 0
    assert pd.read_csv(out)["prediction"].tolist() == ["benign", "benign"]


def test_rows_left_out_do_not_shift_the_others(taken_home: Any) -> None:
    calibrator, metadata = taken_home
    text = "logit_cat,logit_dog,logit_emu\n1,2,3\nnan,0,0\n3,2,1\n"
    new = read_predictions(text.encode(), invalid_rows="leave-out")
    frame = apply_calibrator(calibrator, metadata, new)
    assert list(frame["file_row"]) == [1, 3]
    assert list(frame["prediction"]) == ["emu", "cat"]


def test_binary_files_of_one_column(taken_home: Any) -> None:
    z = np.linspace(-4, 4, 60)
    labels = (np.arange(60) % 3 > 0).astype(int)
    new = Predictions.from_arrays(z, classes=("no", "yes"))
    for calibrator, fed in (
        (TemperatureScaling().fit(z[:, None], labels), z[:, None]),
        (
            TemperatureScaling(input="probabilities").fit(
                1 / (1 + np.exp(-z[:, None])), labels
            ),
            1 / (1 + np.exp(-z[:, None])),
        ),
    ):
        given_scores = new
        if calibrator.input == "probabilities":
            given_scores = Predictions.from_arrays(
                fed, classes=("no", "yes"), input_kind="probabilities"
            )
        frame = apply_calibrator(calibrator, {}, given_scores)
        expected = calibrator.predict_proba(fed)
        np.testing.assert_allclose(frame[["prob_no", "prob_yes"]], expected, atol=1e-12)


def test_blocks_do_not_change_the_rows(
    taken_home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = apply_calibrator(*taken_home, rows())
    monkeypatch.setattr(tables, "_BLOCK", 21)
    pd.testing.assert_frame_equal(apply_calibrator(*taken_home, rows()), whole)


def test_single_precision_stays_single(taken_home: Any) -> None:
    new = Predictions.from_arrays(scores()[0].astype(np.float32), classes=CLASSES)
    frame = apply_calibrator(*taken_home, new)
    assert frame["prob_cat"].dtype == frame["confidence"].dtype == np.float32


# ------------------------------------------------------------------ the own file


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_cross_fitted_rows_come_from_a_stranger(
    cross_fitted: Analysis, method: str
) -> None:
    frame = annotate(cross_fitted, method)
    split, fitted = cross_fitted.overview.split, cross_fitted.fitted[method]
    own = cross_fitted.study.evaluation
    assert split is not None
    assert len(fitted.rounds) == len(split.rounds) == 5
    for number, calibrator in enumerate(fitted.rounds):
        mine = np.flatnonzero(split.fold == number)
        assert not np.isin(split.rounds[number].fit, mine).any()
        assert (of_row(frame, calibrator, own)[mine] == 0).all()
    assert (of_row(frame, fitted.calibrator, own)[split.fold < 0] == 0).all()
    tested = frame.loc[split.test]
    np.testing.assert_allclose(tested["confidence"], fitted.rows.confidence, atol=1e-9)
    assert (tested["correct"].to_numpy(bool) == fitted.rows.correct).mean() > 0.99


def test_columns_of_the_annotated_file(cross_fitted: Analysis) -> None:
    frame = annotate(cross_fitted, "temperature")
    own, split = cross_fitted.study.evaluation, cross_fitted.overview.split
    assert split is not None
    assert own.labels is not None
    assert list(frame) == [
        *("patient", "note", "logit_cat", "logit_dog", "logit_emu"),
        *("label", "prediction", "confidence"),
        *("confidence_uncalibrated", "correct", "fold", "role", "flag", "file_row"),
        *("prob_cat", "prob_dog", "prob_emu"),
    ]
    unlabelled = np.arange(120)[100:110]
    is_known = ~frame.index.isin(unlabelled)
    assert frame["flag"].value_counts().to_dict() == {
        "cross-fitted": 110,
        "unlabelled": 10,
    }
    assert (frame.loc[unlabelled, "flag"] == "unlabelled").all()
    assert frame.loc[unlabelled, ["label", "correct", "fold"]].isna().all().all()
    known = frame[is_known]
    assert (known["label"] == np.array(CLASSES)[own.labels[is_known]]).all()
    assert (known["fold"] == split.fold[is_known] + 1).all()
    assert set(known["fold"]) == {1, 2, 3, 4, 5}
    assert (known["correct"] == (known["label"] == known["prediction"])).all()
    assert (frame["confidence_uncalibrated"] >= frame["confidence"] - 0.2).all()
    assert list(frame["file_row"]) == list(range(1, 121))
    assert set(frame["flag"]) <= set(FLAGS)


def test_fixed_split_says_what_is_in_sample() -> None:
    part = ["calibration"] * 50 + ["test"] * 50 + ["threshold"] * 10 + ["train"] * 10
    own = rows({"part": part}, roles=ColumnRoles(split="part"))
    analysis = analyze(Study(own), QUICK)
    frame = annotate(analysis, "temperature")
    assert list(frame["flag"]) == (
        ["in-sample"] * 50 + ["test"] * 50 + ["threshold"] * 10 + ["not-used"] * 10
    )
    assert list(frame["role"]) == (
        ["fit"] * 50 + ["test"] * 50 + ["threshold"] * 10 + [""] * 10
    )
    assert list(frame["fold"].dropna().index) == list(range(50, 100))
    assert (of_row(frame, exported_calibrator(analysis, "ts"), own) == 0).all()


def test_a_calibration_file_leaves_no_row_in_sample() -> None:
    own, other = rows(), rows(seed=3, n=80)
    analysis = analyze(Study(own, fit=other), QUICK)
    frame = annotate(analysis, "temperature")
    assert set(frame["flag"]) == {"test"}
    assert export_metadata(analysis, "temperature")["n_fit_rows"] == 80


def test_uncalibrated_rows_say_so(cross_fitted: Analysis) -> None:
    frame = annotate(cross_fitted, "uncalibrated")
    assert set(frame["flag"]) == {"uncalibrated"}
    assert frame["fold"].notna().sum() == 110
    np.testing.assert_allclose(
        frame["confidence"], frame["confidence_uncalibrated"], atol=1e-12
    )


def test_rows_without_labels_can_be_annotated() -> None:
    own = rows(labels=None)
    frame = annotate(analyze(Study(own), QUICK), "uncalibrated")
    assert frame["label"].isna().all()
    assert frame["fold"].isna().all()
    with pytest.raises(DataError, match="not fitted"):
        annotate(analyze(Study(own), QUICK), "temperature")


def test_rows_left_out_are_in_their_place() -> None:
    logits, labels = scores(60)
    lines = ["id,prediction,logit_cat,logit_dog,logit_emu,label"]
    for i, (row, label) in enumerate(zip(logits, labels, strict=True)):
        cells = "x,1,2" if i in (3, 30) else ",".join(map(str, row))
        lines.append(f"r{i},mine,{cells},{CLASSES[label]}")
    own = read_predictions("\n".join(lines).encode(), invalid_rows="leave-out")
    assert len(own) == 58
    frame = annotate(analyze(Study(own), QUICK), "temperature")
    assert list(frame["file_row"]) == list(range(1, 61))
    assert list(np.flatnonzero(frame["flag"] == "left-out")) == [3, 30]
    assert frame.loc[3, "left_out_reason"] == "logit_cat: 'x' is not a number"
    assert frame.loc[[3, 30], ["prob_cat", "prediction", "fold"]].isna().all().all()
    assert frame["fold"].notna().sum() == 58
    assert frame["file_row"].dtype.kind == "i"
    assert (frame["prediction (file)"].dropna() == "mine").all()


# ------------------------------------------------------------------ CSV

HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
)


def parsed(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))


def test_formulas_are_neutralised_everywhere() -> None:
    frame = pd.DataFrame({name: [name, "fine", None] for name in HOSTILE})
    found = parsed(write_csv(frame))
    assert found[0] == [f"'{name}" for name in HOSTILE]
    assert found[1] == found[0]
    assert found[2] == ["fine"] * len(HOSTILE)
    assert found[3] == [""] * len(HOSTILE)


@pytest.mark.parametrize("kind", ["category", "object", "str"])
def test_text_of_every_type_is_neutralised(kind: str) -> None:
    column = pd.Series(["=1", "'=1", "a", None], dtype=kind)
    found = parsed(write_csv(pd.DataFrame({"x": column, "y": 0})))
    assert [row[0] for row in found] == ["x", "'=1", "'=1", "a", ""]


def test_numbers_stay_numbers() -> None:
    frame = pd.DataFrame(
        {
            "float": [-1.5, 1e-300, np.nan],
            "single": np.array([0.1, -3.0, 2], dtype=np.float32),
            "whole": [-3, 0, 2**40],
            "maybe": pd.array([-1, None, 3], dtype="Int64"),
            "flag": [True, False, True],
            "text": ["-1.5e-3", "+2", "-x"],
            "mixed": [-1, "=a", None],
            "when": pd.to_datetime(["2026-01-31"] * 3),
        }
    )
    found = parsed(write_csv(frame))
    assert found[1][:6] == ["-1.5", "0.1", "-3", "-1", "true", "-1.5e-3"]
    assert found[2][:6] == ["1e-300", "-3", "0", "", "false", "+2"]
    assert found[3][:6] == ["", "2", "1099511627776", "3", "true", "'-x"]
    assert [row[6] for row in found[1:]] == ["-1", "'=a", ""]
    assert found[1][7].startswith("2026-01-31")


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
@settings(max_examples=30)
def test_floats_round_trip(values: list[float]) -> None:
    data = write_csv(pd.DataFrame({"x": np.array(values)}))
    assert [float(row[0]) for row in parsed(data)[1:]] == values


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=8))
@settings(max_examples=40)
def test_any_text_comes_back_but_for_the_apostrophe(values: list[str]) -> None:
    data = write_csv(pd.DataFrame({"x": values, "y": 0}))
    for text, row in zip(values, parsed(data)[1:], strict=True):
        assert row[0] in (text, f"'{text}")
        assert not row[0] or row[0][0] not in "=@\t\r\n"


def test_blocks_and_files_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"a": [None] * 9 + ["é"], "b": range(10), "c": 0.5})
    whole = write_csv(frame)
    monkeypatch.setattr(writing, "_CSV_CELLS", 6)
    assert write_csv(frame) == whole
    assert write_csv(frame, tmp_path / "rows.csv") == b""
    assert (tmp_path / "rows.csv").read_bytes() == whole


def test_empty_and_repeated_columns() -> None:
    assert parsed(write_csv(pd.DataFrame({"a": [], "b": []}))) == [["a", "b"]]
    twice = pd.DataFrame([[1, "x"]], columns=["a", "a"])
    assert parsed(write_csv(twice)) == [["a", "a"], ["1", "x"]]


def test_annotated_file_is_safe_to_open(cross_fitted: Analysis) -> None:
    found = parsed(write_csv(annotate(cross_fitted, "temperature")))
    assert found[1][1] == "'=1+1"
    assert len(found) == 121
    assert not any(cell.startswith(("=", "@", "+")) for row in found for cell in row)
