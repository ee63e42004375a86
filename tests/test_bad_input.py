"""Bad input ends in one of three ways: refused, loaded with a note, or a question."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bad_input_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from app import cli
from core.loading import DataError, inspect_file, open_study, read_predictions
from core.loading import sources as sources_module
from core.predictions import Predictions
from core.settings import Settings

HEADER = "logit_cat,logit_dog,label\n"


def npz_bytes(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zip_bytes(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def refusal(data: bytes, name: str = "rows.csv", **overrides: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_predictions(data, name=name, **overrides)
    error = caught.value
    assert error.what
    assert error.how_to_fix
    assert name in error.where
    return error


NPZ = npz_bytes(logits=np.ones((50, 4)), labels=np.arange(50) % 4)
REFUSED = {
    # name: bytes, name of the file, part of `what`, part of `where`, part of the fix
    "empty": (b"", "rows.csv", "empty", "rows.csv", "one row per prediction"),
    "blank": (b"\n \r\n", "rows.csv", "empty", "rows.csv", "header"),
    "header only": (HEADER.encode(), "rows.csv", "no rows", "rows.csv", "under the"),
    "labels outside": (
        (HEADER + "1,2,cat\n3,4,cow\n5,6,cow\n").encode(),
        "rows.csv",
        "The label 'cow' is not one of the 2 classes (cat, dog); 2 rows",
        "column label, row 2",
        "class names",
    ),
    "duplicate columns": (
        b"logit_cat,logit_dog, logit_cat ,label\n1,2,3,cat\n",
        "rows.csv",
        "Two columns are called 'logit_cat' (columns 1 and 3)",
        "column logit_cat",
        "name of its own",
    ),
    "truncated npz": (NPZ[:-200], "a.npz", "damaged", "a.npz", "again"),
    "npz cut at the start": (NPZ[:40], "a.npz", "damaged", "a.npz", "again"),
    "pickle": (pickle.dumps([1]), "rows.csv", "pickle", "rows.csv", "np.savez"),
    "old pickle": (pickle.dumps({}, 0), "a.txt", "pickle", "a.txt", "np.savez"),
    "packed pickle": (
        gzip.compress(pickle.dumps([1])),
        "rows.csv.gz",
        "pickle",
        "rows.csv.gz",
        "np.savez",
    ),
    "torch name": (b"a,b\n1,2\n", "model.pt", "pickle", "model.pt", "torch.load"),
    "torch zip": (
        zip_bytes(archive__data_dot_pkl=b"x", archive__data__0=b"y"),
        "rows.npz",
        "pickle",
        "rows.npz",
        "np.savez",
    ),
    "joblib name": (b"x", "model.joblib", "not opened", "model.joblib", "joblib"),
    "packed joblib": (b"\x78\x9c\x01\x00\xff\xfe\x03", "x", "pickle", "x", "np.savez"),
    "object array": (
        npz_bytes(logits=np.array([[1.0], None], dtype=object)),
        "a.npz",
        "Python objects",
        "array logits",
        "numeric type",
    ),
    "complex array": (
        npz_bytes(logits=np.ones((2, 2), complex)),
        "a.npz",
        "complex128",
        "array logits",
        "numbers",
    ),
    "only a number": (npz_bytes(t=np.array(1.5)), "a.npz", "no rows", "a.npz", "Save"),
    "workbook": (
        zip_bytes(**{"[Content_Types]_dot_xml": b"1"}),
        "rows.xlsx",
        "workbook",
        "rows.xlsx",
        "CSV",
    ),
    "archive": (b"BZh91AY", "rows.csv.bz2", "bzip2", "rows.csv.bz2", "Unpack"),
    "packed parquet": (gzip.compress(b"PAR1"), "a.gz", "parquet", "a.gz", "Unpack"),
    "header of parquet only": (
        pd.DataFrame({"logit_a": [], "logit_b": []}).to_parquet(),
        "a.parquet",
        "no rows",
        "a.parquet",
        "one row",
    ),
    "no arrays": (zip_bytes(a_dot_csv=b"1"), "a.npz", "zip archive", "a.npz", "CSV"),
    "ragged": (
        (HEADER + "1,2,cat\n1,2\n").encode(),
        "rows.csv",
        "2 cells, the header 3",
        "rows.csv",
        "same number of cells",
    ),
    "truncated gzip": (
        gzip.compress((HEADER + "1,2,cat\n" * 99).encode())[:-12],
        "rows.csv.gz",
        "damaged",
        "rows.csv.gz",
        "again",
    ),
    "truncated parquet": (b"PAR1" + bytes(50), "a.parquet", "damaged", "a.", "again"),
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "probs.p",
        "Git LFS",
        "probs.p",
        "git lfs pull",
    ),
    "no scores": (b"name,label\na,0\nb,1\n", "a.csv", "No score", "a.csv", "logit_"),
    "binary bytes": (b"\x07\x00\x00\x01abc", "a.csv", "not a table", "a.csv", "CSV"),
    "three labels for one score": (
        b"prob,label\n0.1,a\n0.2,b\n0.3,c\n",
        "a.csv",
        "is not one of the 2 classes",
        "column label",
        "two labels",
    ),
    "one label without a name": (
        b"prob,label\n0.1,a\n0.2,a\n",
        "a.csv",
        "Every label is 'a'",
        "column label",
        "positive class",
    ),
    "text labels without class names": (
        npz_bytes(logits=np.ones((2, 3)), labels=np.array(["a", "b"])),
        "a.npz",
        "'a' is not one of the 3 classes",
        "column labels, row 1",
        "array classes",
    ),
    "too few labels": (
        npz_bytes(logits=np.ones((3, 2)), labels=np.arange(2)),
        "a.npz",
        "(2,), the scores 3 rows",
        "array labels",
        "one label per row",
    ),
    "three dimensions": (
        npz_bytes(logits=np.ones((3, 2, 2))),
        "a.npz",
        "logits (3, 2, 2)",
        "a.npz",
        "(rows, classes)",
    ),
    "other number of names": (
        npz_bytes(logits=np.ones((3, 2)), classes=np.array(["a", "b", "c"])),
        "a.npz",
        "3 class names for 2",
        "array classes",
        "one name per",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    data, name, what, where, fix = REFUSED[case]
    error = refusal(data, name)
    assert what in error.what
    assert where in error.where
    assert fix in error.how_to_fix
    assert not error.answers
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert caught.value.what == error.what


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for name in ("rows.csv", "rows.npz", "rows.parquet", "rows.pkl", "rows"):
            error = refusal(pickle.dumps(Trap(), protocol), name)
            assert "not opened" in error.what
    assert not (tmp_path / "ran").exists()


def test_no_such_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="folder"):
        inspect_file(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_predictions("a\0b")
    with pytest.raises(DataError, match="not from int"):
        read_predictions(3)  # type: ignore[arg-type]


# --- one row per case: core and command line ------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_case(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    files = case.make()
    paths = []
    for file, content in files:
        (tmp_path / file).write_bytes(content)
        paths.append(str(tmp_path / file))
    names, contents = zip(*files, strict=True)
    argv = ["check", *paths]
    if case.verdict == "note":
        study, _ = open_study(contents, Settings(), name=names)
        codes = [note.code for note in study.evaluation.notes]
        assert case.said in codes if case.said else not codes
        assert cli.main(argv) == 0
        return
    with pytest.raises(DataError) as caught:
        open_study(contents, Settings(), name=names)
    error = caught.value
    assert case.said in error.what
    assert case.where in error.where
    assert len(error.what) < 1000
    assert error.how_to_fix
    assert case.flag in [answer.flag for answer in error.answers] or not case.flag
    assert bool(error.answers) == (case.verdict == "ask")
    capsys.readouterr()
    assert cli.main(argv) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "How to fix" in told
    if case.verdict == "ask":
        assert case.flag in " ".join(told.split())
        assert cli.main([*argv, *case.flag.split()]) == 0


def wide_table(**columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    labels = np.array(list("abc"))[np.arange(200) % 3]
    return scores.add_prefix("logit_").assign(label=labels, **columns)


def test_a_class_without_a_fit_row_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = wide_table(split=["calibration"] * 100 + ["test"] * 100)
    table.loc[(table.index < 100) & (table["label"] == "c"), "label"] = "a"
    table.to_csv(tmp_path / "rows.csv", index=False)
    argv = ["evaluate", str(tmp_path / "rows.csv"), "--n-resamples", "100"]
    assert cli.main(argv) == 0
    assert "1 of 3 classes have no fit row" in capsys.readouterr().out


def test_a_calibrator_that_cannot_use_the_input_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("confidence,correct\n" + "0.75,1\n0.5,0\n" * 60)
    assert cli.main(["evaluate", str(file), "--n-resamples", "100"]) == 0
    why = "this calibrator needs the scores of every class"
    assert why in " ".join(capsys.readouterr().out.split())
    assert cli.main(["calibrate", str(file), "--out", str(tmp_path / "out")]) == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_one_row_is_measured_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide_table().head(1).to_csv(tmp_path / "rows.csv", index=False)
    argv = ["evaluate", str(tmp_path / "rows.csv"), "--n-resamples", "100"]
    assert cli.main(argv) == 0
    assert "Nothing can be held out" in capsys.readouterr().out


# --- questions ------------------------------------------------------------------------

CELLS = {
    "empty": ("", "", "is empty or NaN"),
    "NaN": ("NaN", "", "is empty or NaN"),
    "text": ("n.a.", "n.a.", "is not a number"),
    "decimal comma": ('"0,5"', "0,5", "is not a number"),
    "inf": ("inf", "inf", "is infinite"),
}


@pytest.mark.parametrize("cell", CELLS)
def test_rows_with_unusable_scores_are_a_question(cell: str) -> None:
    written, value, reason = CELLS[cell]
    text = f"{HEADER}1,2,cat\n3,{written},dog\n4,5,dog\n6,{written},cat\n"
    error = refusal(text.encode())
    assert error.where == "rows.csv, column logit_dog, row 2"
    assert reason in error.what
    assert repr(value) in error.what or not value
    assert "2 rows of 4" in error.what
    assert [answer.flag for answer in error.answers] == ["--invalid-rows leave-out"]
    rows = read_predictions(text.encode(), invalid_rows="leave-out")
    np.testing.assert_array_equal(rows.logits, [[1, 2], [4, 5]])
    np.testing.assert_array_equal(rows.file_rows, [1, 3])
    assert rows.left_out.to_dict("list") == {
        "row": [2, 4],
        "column": ["logit_dog"] * 2,
        "value": [value] * 2,
        "reason": [reason] * 2,
    }
    note = next(note for note in rows.notes if note.code == "rows-left-out")
    assert "2 rows of 4" in note.text


@pytest.mark.parametrize(
    ("header", "rows", "column"),
    [
        ("prob_a,prob_b,label", "0.5,0.5,a;x,0.5,b;0.5,0.7,b;0.5,0.5,a", ""),
        ("prob_a,prob_b,weight", "0.5,0.5,1;x,0.5,1;0.5,0.5,-1;0.5,0.5,1", "weight"),
        (
            "prob_a,prob_b,time",
            "0.5,0.5,2020;x,0.5,2020;0.5,0.5,no;0.5,0.5,2021",
            "time",
        ),
    ],
)
def test_rows_are_those_of_the_file_after_others_were_left_out(
    header: str, rows: str, column: str
) -> None:
    data = "\n".join([header, *rows.split(";")]).encode()
    chosen = {f"{column}_column": column} if column else {}
    error = refusal(data, invalid_rows="leave-out", **chosen)
    assert error.where.endswith(", row 3")


def test_rows_of_arrays_are_those_of_the_file() -> None:
    flat = np.full((3, 2), 0.5)
    for bad, kind in ((np.nan, "logits"), (7.0, "probabilities")):
        scores = flat.copy()
        scores[2, 1] = bad
        with pytest.raises(DataError, match="score column 2, row 9"):
            Predictions.from_arrays(scores, input_kind=kind, file_rows=[1, 4, 9])
    with pytest.raises(DataError, match="row 9"):
        Predictions.from_arrays(flat, labels=[0, 1, 2], file_rows=[1, 4, 9])
    zero = flat * [[1], [0], [1]]
    with pytest.raises(DataError, match="row 4"):
        Predictions.from_arrays(zero, input_kind="probabilities", file_rows=[1, 4, 9])
    for confidence, correct in (([0.5, 2, 0.5], [0, 1, 1]), ([0.5] * 3, [0, 7, 1])):
        with pytest.raises(DataError, match="row 4"):
            Predictions.from_arrays(
                confidence=confidence,
                correct=correct,
                input_kind="confidence",
                file_rows=[1, 4, 9],
            )


def test_every_row_unusable_is_refused() -> None:
    text = f"{HEADER}x,2,cat\n".encode()
    error = refusal(text, invalid_rows="leave-out")
    assert not error.answers
    assert "no row would be left" in error.how_to_fix


def test_minus_infinity_masks_a_class() -> None:
    text = f"{HEADER}1,-inf,cat\n-inf,-inf,dog\n".encode()
    assert refusal(text).where.endswith("row 2")
    rows = read_predictions(text, invalid_rows="leave-out")
    np.testing.assert_array_equal(rows.logits, [[1, -np.inf]])


@pytest.mark.parametrize("n_rows", [10, 100_000, 400_000])
@pytest.mark.parametrize("header", [HEADER.encode(), b""])
def test_a_ragged_row_is_named_in_every_block(n_rows: int, header: bytes) -> None:
    lines = [b"1.25,-2.5,0"] * n_rows
    lines[n_rows - 3] = b"1.25,-2.5,0,9"
    error = refusal(header + b"\n".join(lines))
    assert error.what.startswith("A row has 4 cells, the header 3")
    assert error.where == f"rows.csv, row {n_rows - 2}"


def test_not_probabilities() -> None:
    text = b"p_a,p_b,label\n0.5,0.5,a\n1.5,-0.5,b\n0,0,a\n"
    error = refusal(text)
    assert "'1.5' is not a probability" in error.what
    flags = [answer.flag for answer in error.answers]
    assert flags == ["--input-kind logits", "--invalid-rows leave-out"]
    assert len(read_predictions(text, input_kind="logits")) == 3
    rows = read_predictions(text, invalid_rows="leave-out")
    assert rows.left_out["reason"].tolist() == [
        "is not a probability (0 to 1)",
        "is 0 in every class",
    ]


def test_probabilities_that_do_not_sum_to_1() -> None:
    text = b"p_a,p_b,label\n0.5,0.6,a\n0.25,0.75,b\n"
    error = refusal(text)
    assert "do not sum to 1" in error.what
    assert "--renormalise yes" in [answer.flag for answer in error.answers]
    assert read_predictions(text, renormalise="yes").notes[0].code == "renormalised"


def test_confidences_that_do_not_say_the_outcome() -> None:
    text = b"confidence,correct\n0.9,1\n0.8,maybe\n0.7,0\n"
    error = refusal(text)
    assert error.where == "rows.csv, column correct, row 2"
    rows = read_predictions(text, invalid_rows="leave-out")
    np.testing.assert_array_equal(rows.correct, [True, False])
    assert "divide" in refusal(b"confidence,correct\n90,1\n", "a.csv").how_to_fix


# --- notes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ("1,2,cat\n3,4,cat\n", "one-class"),
        ("1,2,\n3,4,\n", "unlabelled"),
        ("1,2,cat\n3,4,\n5,6,dog\n", "unlabelled-rows"),
    ],
)
def test_loaded_with_a_note(rows: str, code: str) -> None:
    found = read_predictions((HEADER + rows).encode())
    assert [note.code for note in found.notes] == [code]
    assert len(found) == rows.count("\n")


def test_no_label_column() -> None:
    found = read_predictions(b"logit_a,logit_b\n1,2\n")
    assert found.labels is None
    assert [note.code for note in found.notes] == ["unlabelled"]


# --- limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "npz", "npy"])
def test_limit_of_memory_is_checked_before_reading(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame(np.zeros((2000, 5)), columns=[f"logit_{i}" for i in range(5)])
    buffer = io.BytesIO()
    if kind == "parquet":
        table.to_parquet(buffer)
    elif kind == "npy":
        np.save(buffer, table.to_numpy())
    elif kind == "npz":
        np.savez_compressed(buffer, logits=table.to_numpy())
    else:
        text = table.to_csv(index=False).encode()
        buffer.write(gzip.compress(text) if kind == "csv.gz" else text)
    assert len(read_predictions(buffer.getvalue())) == 2000
    monkeypatch.setattr(sources_module, "MEMORY_LIMIT", 40_000)
    assert "GiB" in refusal(buffer.getvalue(), f"zeros.{kind}").what


def test_a_shape_that_the_bytes_cannot_fill_is_refused() -> None:
    array = io.BytesIO()
    np.save(array, np.ones((50, 4)))
    lie = array.getvalue().replace(b"(50, 4), ", b"(90000,4),")
    data = zip_bytes(logits_dot_npy=lie)
    assert "cut off" in refusal(data, "a.npz").what


# --- anything -------------------------------------------------------------------------

PARQUET = io.BytesIO()
pd.DataFrame({"logit_a": [1.0, 2], "logit_b": [0.5, 1]}).to_parquet(PARQUET)
STARTS = [b"", b"PAR1", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"\x93NUMPY\x01\x00", NPZ]
STARTS += [HEADER.encode(), NPZ[:300], PARQUET.getvalue(), PARQUET.getvalue()[:200]]


@settings(max_examples=150)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=300))
def test_random_bytes_end_in_data_errors(start: bytes, rest: bytes) -> None:
    for data in (start + rest, rest + start):
        with contextlib.suppress(DataError):
            assert len(read_predictions(data, name="upload")) > 0


@settings(max_examples=150)
@given(st.text(alphabet=',;\t\n\r"01.5e-anpx _', min_size=1, max_size=80))
def test_random_text_ends_in_data_errors(text: str) -> None:
    with contextlib.suppress(DataError):
        assert len(read_predictions(text.encode(), name="upload")) > 0


@settings(max_examples=100)
@given(position=st.integers(0, len(NPZ) - 1), byte=st.integers(0, 255))
def test_damaged_arrays_end_in_data_errors(position: int, byte: int) -> None:
    data = bytearray(NPZ)
    data[position] = byte
    with contextlib.suppress(DataError):
        assert len(read_predictions(bytes(data))) > 0
