"""Files as people have them load to the same arrays, and say how they were read."""

from __future__ import annotations

import gzip
import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.loading import (
    DataError,
    Schema,
    inspect_file,
    open_study,
    read_predictions,
    read_study,
)
from core.loading import text as text_module
from core.loading import values as values_module
from core.messages import Cancelled
from core.predictions import Predictions
from core.settings import Settings

LOGITS = np.array([[1.5, -2.0, 0.25], [0.0, 3.5, -1.0], [2.0, 1.0, 4.5], [9.0, 0, 1]])
LABELS = np.array([0, 1, 2, 0])
NAMES = ["cat", "dog", "bird"]


def frame(columns: list[str], **others: Any) -> pd.DataFrame:
    return pd.DataFrame(LOGITS, columns=columns).assign(**others)


def csv_bytes(table: pd.DataFrame, **options: Any) -> bytes:
    return table.to_csv(index=False, **options).encode()


def parquet_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def npz_bytes(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def notes(rows: Predictions) -> list[str]:
    return [note.code for note in rows.notes]


def role(schema: Schema, name: str) -> str:
    return next(item.role for item in schema.columns if item.name == name)


# --- containers -----------------------------------------------------------------------

TABLE = frame([f"logit_{i}" for i in range(3)], label=LABELS)
CONTAINERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "rows.csv": csv_bytes,
    "rows.tsv": lambda table: csv_bytes(table, sep="\t"),
    "semicolon.csv": lambda table: csv_bytes(table, sep=";"),
    "rows.csv.gz": lambda table: gzip.compress(csv_bytes(table)),
    "bom.csv": lambda table: b"\xef\xbb\xbf" + csv_bytes(table),
    "blank lines.csv": lambda table: b"\n \r\n" + csv_bytes(table) + b"\n\n",
    "quoted.csv": lambda table: csv_bytes(table, quoting=1),
    "windows.csv": lambda table: csv_bytes(table, lineterminator="\r\n"),
    "rows.parquet": parquet_bytes,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_load_the_same_from_bytes_and_path(
    name: str, tmp_path: Path
) -> None:
    data = CONTAINERS[name](TABLE)
    path = tmp_path / name
    path.write_bytes(data)
    for rows in (read_predictions(data, name=name), read_predictions(path)):
        np.testing.assert_array_equal(rows.logits, LOGITS)
        np.testing.assert_array_equal(rows.labels, LABELS)
        assert rows.input_kind == "logits"
        assert rows.classes == ("0", "1", "2")
        assert rows.name == name
        assert notes(rows) == (["delimiter"] if name == "semicolon.csv" else [])


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("rows.csv", ","), ("rows.tsv", "\t"), ("semicolon.csv", ";")],
)
def test_schema_names_the_delimiter(name: str, delimiter: str) -> None:
    schema = inspect_file(CONTAINERS[name](TABLE))
    assert schema.delimiter == delimiter
    assert schema.has_header


def test_the_name_of_an_upload_is_never_a_path(tmp_path: Path) -> None:
    rows = read_predictions(csv_bytes(TABLE), name=f"{tmp_path}/../../etc/rows.csv")
    assert rows.name == "rows.csv"


# --- names of score columns -----------------------------------------------------------


@pytest.mark.parametrize(
    "stem",
    ["logit_", "logits_", "Logit ", "logit", "RawFormulaVal:Class=", "log_prob_"],
)
def test_logit_stems(stem: str) -> None:
    data = csv_bytes(frame([f"{stem}{i}" for i in range(3)], label=LABELS))
    schema = inspect_file(data)
    assert schema.input_kind == "logits"
    assert "called" in schema.input_evidence
    assert schema.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "stem",
    ["prob_", "proba_", "p_", "probability_", "prob_class_", ".pred_", "p", "Prob. "],
)
def test_probability_stems(stem: str) -> None:
    table = frame([f"{stem}{name}" for name in NAMES], label=LABELS)
    if stem == "p":
        table.columns = pd.Index(["p0", "p1", "p2", "label"])
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    table.iloc[:, :3] = p
    schema = inspect_file(csv_bytes(table))
    assert schema.input_kind == "probabilities"
    assert "rows sum to 1 within" in schema.input_evidence
    rows = read_predictions(csv_bytes(table))
    np.testing.assert_allclose(np.exp(rows.logits), p, rtol=1e-14)
    assert rows.classes == (("0", "1", "2") if stem == "p" else tuple(NAMES))


@pytest.mark.parametrize("label", ["cat", "logit_cat", " cat "])
def test_text_labels_match_class_names(label: str) -> None:
    written = [label.replace("cat", NAMES[i]) for i in LABELS]
    data = csv_bytes(frame([f"logit_{name}" for name in NAMES], label=written))
    rows = read_predictions(data)
    assert rows.classes == tuple(NAMES)
    np.testing.assert_array_equal(rows.labels, LABELS)


def test_class_order_is_the_order_of_the_columns() -> None:
    data = csv_bytes(frame(["logit_2", "logit_0", "logit_1"], label=LABELS))
    rows = read_predictions(data)
    assert rows.classes == ("2", "0", "1")
    np.testing.assert_array_equal(rows.labels, [1, 2, 0, 1])


def test_numbers_label_named_columns_by_position() -> None:
    data = csv_bytes(frame([f"logit_{name}" for name in NAMES], label=LABELS))
    np.testing.assert_array_equal(read_predictions(data).labels, LABELS)
    evidence = next(c.evidence for c in inspect_file(data).columns if c.role == "label")
    assert "number the 3 score columns from 0" in evidence


def test_class_name_columns() -> None:
    data = csv_bytes(frame(NAMES, species=1.5, label=["cat", "dog", "cat", "dog"]))
    rows = read_predictions(data)
    assert rows.classes == ("cat", "dog")
    full = csv_bytes(frame(NAMES, label=[NAMES[i] for i in LABELS]))
    assert read_predictions(full).classes == tuple(NAMES)


def test_a_class_name_column_that_no_row_has_as_label() -> None:
    table = frame(NAMES, label=["cat", "bird", "cat", "bird"])
    assert read_predictions(csv_bytes(table)).classes == tuple(NAMES)


ROLE_NAMES = (
    ("A", "B", "C", "D"),
    ("b", "w", "y", "z"),
    ("cat", "image", "user", "path"),
    ("weight", "time", "key", "bias"),
)


@pytest.mark.parametrize("names", ROLE_NAMES, ids=str)
@pytest.mark.parametrize("label", ["label", "class"])
@pytest.mark.parametrize("write", [csv_bytes, parquet_bytes])
def test_classes_may_have_the_name_of_a_role(
    names: tuple[str, ...], label: str, write: Any
) -> None:
    values = np.random.default_rng(1).normal(size=(12, 4))
    codes = np.arange(12) % 4
    table = pd.DataFrame(values, columns=list(names))
    rows = read_predictions(write(table.assign(**{label: [names[i] for i in codes]})))
    np.testing.assert_array_equal(rows.logits, values)
    np.testing.assert_array_equal(rows.labels, codes)
    assert rows.classes == names
    assert rows.roles.named() == {}


@pytest.mark.parametrize("names", ROLE_NAMES[:3], ids=str)
@pytest.mark.parametrize("missing", [None, 0, 1, 3])
def test_classes_with_the_name_of_a_role_that_no_row_has(
    names: tuple[str, ...], missing: int | None
) -> None:
    values = np.random.default_rng(1).normal(size=(12, 4))
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    codes = np.array([i for i in range(12) if i % 4 != missing]) % 4
    labels = [names[i] for i in codes]
    for scores in (values, p):
        is_known = missing in (None, 1) or names[0] == "A" or scores is p
        table = pd.DataFrame(scores[: len(codes)], columns=list(names))
        rows = read_predictions(csv_bytes(table.assign(label=labels)))
        if is_known:
            assert rows.classes == names
            np.testing.assert_array_equal(rows.labels, codes)


@pytest.mark.parametrize("names", ROLE_NAMES[:3], ids=str)
def test_numbers_label_classes_with_the_name_of_a_role(names: tuple[str, ...]) -> None:
    values = np.random.default_rng(1).normal(size=(12, 4))
    table = pd.DataFrame(values, columns=list(names)).assign(label=np.arange(12) % 4)
    rows = read_predictions(csv_bytes(table))
    assert rows.classes == names
    np.testing.assert_array_equal(rows.logits, values)
    np.testing.assert_array_equal(rows.labels, np.arange(12) % 4)


def test_one_letter_beside_a_binary_score_is_no_class() -> None:
    rows = read_predictions(b"x,p,label\n1.5,0.25,0\n2.5,0.75,1\n0.5,0.6,1\n")
    np.testing.assert_allclose(np.exp(rows.logits)[:, 1], [0.25, 0.75, 0.6])


@pytest.mark.parametrize(
    "data",
    [
        b"cat,dog,label\n1.5,2,cat\n-0.5,1,cow\n2.5,0.5,dog\n",
        b"b,c,y\n1.5,2,b\n-0.5,1,e\n2.5,0.5,c\n",
        b"logit_a,logit_b,target\n1.5,2,7\n-0.5,1,8\n2.5,0.5,9\n",
        b"up,down,label\n1.5,2,0\n-0.5,1,1\n2.5,0.5,1\n",
        b"1.5,2,7\n-0.5,1,8\n2.5,0.5,9\n",
        npz_bytes(logits=[[1.5, 2], [-0.5, 1], [2.5, 0.5]], labels=[0, 7, 9]),
        npz_bytes(a=[[1.5, 2], [-0.5, 1], [2.5, 0.5]], arr_1=[0, 7, 9]),
    ],
)
def test_no_label_as_wished_is_no_score_either(data: bytes) -> None:
    rows = read_predictions(data, label_column="")
    np.testing.assert_array_equal(rows.logits, [[1.5, 2], [-0.5, 1], [2.5, 0.5]])
    assert rows.labels is None
    assert notes(rows) == []


def test_whole_scores_without_a_header_and_label() -> None:
    rows = read_predictions(b"1,-2\n3,0\n", label_column="")
    np.testing.assert_array_equal(rows.logits, [[1, -2], [3, 0]])


def test_a_weight_between_class_names_stays_a_weight() -> None:
    table = pd.DataFrame(LOGITS[:, :2], columns=["cat", "dog"])
    table.insert(1, "weight", [0.5, 1.5, 2.5, 1.0])
    table["label"] = ["cat", "dog", "cat", "dog"]
    rows = read_predictions(csv_bytes(table))
    assert rows.classes == ("cat", "dog")
    assert rows.roles.weight == "weight"


def test_stem_of_the_label_column() -> None:
    table = frame([f"Status_{name}" for name in NAMES])
    table.insert(0, "id", [10, 11, 12, 13])
    table["Status"] = [NAMES[i] for i in LABELS]
    rows = read_predictions(csv_bytes(table))
    assert rows.classes == tuple(NAMES)
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert rows.roles.id == "id"


@pytest.mark.parametrize(
    "last", [["0", "1"], ["0.000e+00", "1.000e+00"], ["1", "0"]], ids=str
)
def test_headerless_with_the_label_last(last: list[str]) -> None:
    rows = read_predictions(f"0.1,0.9,{last[0]}\n0.75,0.25,{last[1]}\n".encode())
    assert rows.input_kind == "probabilities"
    np.testing.assert_array_equal(rows.labels, [int(float(x)) for x in last])
    assert rows.classes == ("0", "1")
    schema = inspect_file(b"0.1,0.9,1\n0.75,0.25,0\n")
    assert not schema.has_header
    assert schema.names("score") == ("column 1", "column 2")


def test_headerless_without_labels() -> None:
    rows = read_predictions(b"1.5,-2.5\n0.25,3.5\n")
    assert rows.labels is None
    np.testing.assert_array_equal(rows.logits, [[1.5, -2.5], [0.25, 3.5]])


def test_header_of_counted_columns() -> None:
    table = pd.DataFrame(LOGITS).assign(label=LABELS)
    rows = read_predictions(table.to_csv().encode())
    np.testing.assert_array_equal(rows.logits, LOGITS)
    assert rows.classes == ("0", "1", "2")
    assert rows.metadata.columns.tolist() == ["unnamed 1"]


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_header_that_only_counts(*, has_index: bool, text: bool) -> None:
    table = pd.DataFrame(np.c_[LOGITS, LABELS])
    if text:
        table[3] = LABELS.astype(str)
    for wanted, labels in ((None, LABELS), ("3", LABELS), ("", None)):
        data = table.to_csv(index=has_index).encode()
        rows = read_predictions(data, label_column=wanted)
        np.testing.assert_array_equal(rows.logits, LOGITS)
        np.testing.assert_array_equal(rows.labels, labels)
        assert rows.classes == ("0", "1", "2")
    unlabelled = table[[0, 1, 2]].to_csv(index=has_index).encode()
    rows = read_predictions(unlabelled, label_column="")
    np.testing.assert_array_equal(rows.logits, LOGITS)


@pytest.mark.parametrize(
    "name", ["label", "target", "y", "y_true", "True Label", "class", "Ground_Truth"]
)
def test_label_names(name: str) -> None:
    table = frame(["logit_0", "logit_1", "logit_2"], **{name: LABELS})
    schema = inspect_file(csv_bytes(table))
    assert schema.column("label") == name
    assert f"label `{name}`" in schema.summary()


@pytest.mark.parametrize(
    "written",
    [["0.0", "1.0", "2.0", "0.0"], ["0", "1", "2", "NA"], ["0", "", "2", "-1"]],
    ids=str,
)
def test_labels_as_they_are_written(written: list[str]) -> None:
    rows = read_predictions(csv_bytes(TABLE.assign(label=written)))
    expected = [int(float(x)) if x not in ("NA", "") else -1 for x in written]
    np.testing.assert_array_equal(rows.labels, expected)


def test_a_class_may_be_called_na() -> None:
    table = frame(["logit_NA", "logit_EU", "logit_AS"], label=["NA", "EU", "AS", "NA"])
    np.testing.assert_array_equal(read_predictions(csv_bytes(table)).labels, LABELS)


# --- one score column -----------------------------------------------------------------


def test_binary_probabilities_and_logits() -> None:
    rows = read_predictions(b"prob,label\n0.25,0\n0.75,1\n")
    assert rows.input_kind == "probabilities"
    np.testing.assert_allclose(np.exp(rows.logits), [[0.75, 0.25], [0.25, 0.75]])
    rows = read_predictions(b"logit,label\n0.25,0\n0.75,1\n")
    assert rows.input_kind == "logits"
    np.testing.assert_array_equal(rows.logits, [[0, 0.25], [0, 0.75]])
    rows = read_predictions(b"score,label\n-0.25,0\n0.75,1\n")
    assert rows.input_kind == "logits"


@pytest.mark.parametrize(
    ("header", "labels", "positive", "classes", "codes"),
    [
        ("prob", ("no", "yes"), None, ("no", "yes"), [0, 1]),
        ("prob", ("no", "yes"), "no", ("yes", "no"), [1, 0]),
        ("prob_bad", ("good", "bad"), None, ("good", "bad"), [0, 1]),
        ("prob_bad", ("good", "good"), None, ("good", "bad"), [0, 0]),
        ("prob_ill", ("0", "1"), None, ("not ill", "ill"), [0, 1]),
        ("prob_ill", ("0", "1"), "ill", ("not ill", "ill"), [0, 1]),
        ("prob", ("0", "1"), "0", ("1", "0"), [1, 0]),
        ("prob", ("1", "2"), None, ("1", "2"), [0, 1]),
        ("prob", ("-1", "1"), None, ("-1", "1"), [0, 1]),
        ("prob", ("True", "False"), None, ("False", "True"), [1, 0]),
        ("prob", ("0.0", "1.0"), None, ("0", "1"), [0, 1]),
        ("prob", ("", "1"), None, ("0", "1"), [-1, 1]),
    ],
)
def test_classes_of_one_score_column(
    header: str,
    labels: tuple[str, str],
    positive: str | None,
    classes: tuple[str, str],
    codes: list[int],
) -> None:
    data = f"{header},label\n0.2,{labels[0]}\n0.7,{labels[1]}\n".encode()
    rows = read_predictions(data, positive_class=positive)
    assert rows.classes == classes
    np.testing.assert_array_equal(rows.labels, codes)
    np.testing.assert_allclose(np.exp(rows.logits)[:, 1], [0.2, 0.7])


def test_two_columns_without_usual_names() -> None:
    schema = inspect_file(b"DAFFS,rlz.C1\n0.25,0\n0.75,1\n0.5,1\n")
    assert schema.names("score") == ("DAFFS",)
    assert schema.column("label") == "rlz.C1"


# --- confidences ----------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["0 1", "false true", "no YES", "0.0 1.0"])
def test_confidence_and_correct(flags: str) -> None:
    wrong, right = flags.split()
    rows = read_predictions(f"confidence,correct\n.9,{right}\n.6,{wrong}\n".encode())
    assert rows.input_kind == "confidence"
    assert rows.logits is None
    np.testing.assert_array_equal(rows.confidence, [0.9, 0.6])
    np.testing.assert_array_equal(rows.correct, [True, False])


def test_correct_comes_from_label_and_prediction() -> None:
    data = b"true_label,pred_label,confidence\ncat,cat,0.9\n1,1.0,0.6\n2,1,0.4\n"
    rows = read_predictions(data)
    np.testing.assert_array_equal(rows.correct, [True, False, False])
    assert rows.metadata.columns.tolist() == ["true_label", "pred_label"]
    numbers = b"true_label,pred_label,confidence\n1,1.0,0.6\n2,1.0,0.4\n"
    np.testing.assert_array_equal(read_predictions(numbers).correct, [True, False])


def test_confidence_without_an_outcome_is_a_binary_score() -> None:
    rows = read_predictions(b"confidence,label\n0.9,1\n0.6,0\n0.3,0\n")
    assert rows.input_kind == "probabilities"
    with pytest.raises(DataError, match="which predictions were right"):
        read_predictions(b"confidence,label\n0.9,1\n", input_kind="confidence")


# --- logits or probabilities ----------------------------------------------------------


def test_kind_can_be_chosen() -> None:
    data = b"p_0,p_1,label\n0.5,0.5,0\n0.25,0.75,1\n"
    rows = read_predictions(data, input_kind="logits")
    np.testing.assert_array_equal(rows.logits, [[0.5, 0.5], [0.25, 0.75]])
    assert inspect_file(data, settings=Settings(input_kind="logits")).input_evidence


def test_values_decide_where_names_do_not() -> None:
    table = frame([f"score_{i}" for i in range(3)], label=LABELS)
    schema = inspect_file(csv_bytes(table))
    assert schema.input_kind == "logits"
    assert schema.input_evidence == "values run from -2 to 9, outside 0..1"
    table.iloc[:, :3] = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert inspect_file(csv_bytes(table)).input_kind == "probabilities"


def test_softmax_under_a_header_of_logits(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(3), size=50)
    table = pd.DataFrame(p, columns=["logit_a", "logit_b", "logit_c"])
    schema = inspect_file(csv_bytes(table))
    assert schema.input_kind == "probabilities"
    assert "although the columns are called logit_*" in schema.input_evidence
    few = csv_bytes(table.head(3))
    assert inspect_file(few).input_kind == "logits"


# --- roles ----------------------------------------------------------------------------

WIDE = frame(
    ["logit_0", "logit_1", "logit_2"],
    label=LABELS,
    Patient_ID=["007", "007", "008", "008"],
    sample_id=["a", "b", "c", "d"],
    sample_weight=[1.0, 2.0, 0.5, 1.0],
    date=["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"],
    split=["calibration", "calibration", "test", "test"],
    sex=["m", "f", "f", "m"],
    age=[40.5, 41.5, 42.5, 43.5],
    comment=["w", "x", "y", "z"],
)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_roles_by_name(name: str) -> None:
    rows = read_predictions(CONTAINERS[name](WIDE))
    assert rows.roles.named() == {
        "id": "sample_id",
        "group": "Patient_ID",
        "weight": "sample_weight",
        "time": "date",
        "split": "split",
    }
    assert rows.roles.slices == ("sex",)
    # Codes and dates come back as they were written.
    assert rows.metadata["Patient_ID"].tolist() == ["007", "007", "008", "008"]
    assert rows.metadata["date"].tolist() == WIDE["date"].tolist()
    assert set(rows.metadata) == set(WIDE.columns[4:])
    np.testing.assert_array_equal(rows.group_codes(), [0, 0, 1, 1])
    np.testing.assert_array_equal(rows.time_order(), [1, 2, 3, 4])
    schema = inspect_file(CONTAINERS[name](WIDE))
    assert role(schema, "age") == role(schema, "comment") == "other"
    assert "group `Patient_ID`" in schema.summary()


def test_roles_can_be_chosen_and_refused() -> None:
    data = csv_bytes(WIDE)
    rows = read_predictions(
        data,
        group_column="sex",
        id_column="",
        weight_column="",
        slice_columns=["comment"],
        label_column="",
        score_columns=["logit_2", "logit_0"],
    )
    assert rows.roles.group == "sex"
    assert rows.roles.id is None
    assert rows.roles.weight is None
    assert rows.roles.slices == ("comment",)
    assert rows.labels is None
    np.testing.assert_array_equal(rows.logits, LOGITS[:, [2, 0]])
    assert rows.classes == ("2", "0")
    assert {"label", "logit_1", "sample_id"} <= set(rows.metadata)


def test_a_schema_is_taken_where_no_override_speaks() -> None:
    data = csv_bytes(WIDE)
    schema = inspect_file(data, settings=Settings(group_column="sex", id_column=""))
    rows = read_predictions(data, schema=schema)
    assert rows.roles.group == "sex"
    assert rows.roles.id is None
    rows = read_predictions(data, schema=schema, group_column="Patient_ID")
    assert rows.roles.group == "Patient_ID"
    assert rows.fingerprint != read_predictions(data).fingerprint


def test_unknown_columns_and_options_are_refused() -> None:
    with pytest.raises(DataError, match="no column 'nope'") as caught:
        read_predictions(csv_bytes(WIDE), group_column="nope")
    assert "Patient_ID" in caught.value.how_to_fix
    with pytest.raises(DataError, match="chosen as group and as score"):
        read_predictions(csv_bytes(WIDE), group_column="age", score_columns=["age"])
    with pytest.raises(DataError, match="does not hold numbers"):
        read_predictions(csv_bytes(WIDE), score_columns=["comment", "age"])
    with pytest.raises(TypeError, match="n_bins"):
        read_predictions(csv_bytes(WIDE), n_bins=3)


def test_alternatives_are_offered() -> None:
    schema = inspect_file(csv_bytes(WIDE))
    by_name = {item.name: item for item in schema.columns}
    assert "group" in by_name["sex"].alternatives
    assert "slice" not in by_name["sex"].alternatives
    assert schema.to_dict()["columns"][0]["role"] == "score"


def test_times_that_are_none_play_no_role() -> None:
    data = csv_bytes(TABLE.assign(time=["noon", "later", "2026-01-01", ""]))
    assert read_predictions(data).roles.time is None


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_column_changes_its_type_after_the_first_block(
    n_threads: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(pa.set_cpu_count, pa.cpu_count()))
    pa.set_cpu_count(n_threads)
    monkeypatch.setattr(text_module, "_HEAD", 1 << 16)
    lines = ["n,code,logit_0,logit_1,label", *["1,7,1,2,0"] * 300_000]
    lines += ["1.5,x,1.5,é,1", "2,7,0.5,3,1"]
    rows = read_predictions(
        "\n".join(lines).encode("latin-1"), invalid_rows="leave-out"
    )
    assert len(rows) == 300_001
    assert rows.left_out["row"].tolist() == [300_001]
    assert rows.left_out["value"].tolist() == ["é"]
    assert rows.file_rows[-1] == 300_002
    assert notes(rows) == ["latin-1", "rows-left-out"]


def test_huge_text_is_kept_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_predictions(csv_bytes(TABLE)).logits.dtype == np.float64
    monkeypatch.setattr(values_module, "HUGE", 5)
    assert read_predictions(csv_bytes(TABLE)).logits.dtype == np.float32


def test_many_columns_take_time_in_proportion() -> None:
    names = ",".join(f"logit_{i}" for i in range(10_000))
    start = time.process_time()
    rows = read_predictions(f"{names}\n{','.join(['1.5'] * 10_000)}\n".encode())
    assert rows.logits.shape == (1, 10_000)
    assert time.process_time() - start < 10  # minutes, where every column copies


def test_progress_and_cancel() -> None:
    seen: list[float] = []
    data = csv_bytes(pd.concat([TABLE] * 50_000))
    read_predictions(data, progress=lambda fraction, _: seen.append(fraction))
    assert seen == sorted(seen)
    assert len(seen) >= 3
    assert seen[-1] == 1.0

    def stop(fraction: float, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        read_predictions(data, progress=stop)


def test_read_study_uses_the_settings() -> None:
    study = read_study(csv_bytes(WIDE), Settings(group_column="sex"), name="a.csv")
    assert study.evaluation.roles.group == "sex"
    assert study.evaluation.name == "a.csv"
    assert study.head is None


def test_summaries() -> None:
    summary = inspect_file(csv_bytes(TABLE)).summary()
    assert summary == (
        "4 rows, 3 classes, logits (the columns are called logit_*), "
        "label `label`, no group column"
    )
    assert "outcome `correct`" in inspect_file(b"conf,correct\n.5,1\n").summary()
    assert inspect_file(b"a,b\nx,y\n").summary() == "1 row, no score columns found"


def test_a_schema_can_be_flipped() -> None:
    data = b"p_0,p_1,label,conf,correct\n0.5,0.5,0,.5,1\n0.25,0.75,1,.75,0\n"
    schema = inspect_file(data)
    assert schema.input_kind == "probabilities"
    assert role(schema, "correct") == "other"
    assert read_predictions(data, schema=schema, input_kind="logits").n_classes == 2
    rows = read_predictions(data, input_kind="confidence")
    np.testing.assert_array_equal(rows.correct, [True, False])
    flipped = read_predictions(b"conf,correct\n.5,1\n.7,0\n", input_kind="logits")
    np.testing.assert_array_equal(flipped.logits[:, 1], [0.5, 0.7])


def test_positive_class_must_be_a_label() -> None:
    for data in (b"prob,y\n.5,a\n.6,b\n", b"prob,y\n.5,0\n.6,1\n", csv_bytes(TABLE)):
        with pytest.raises(DataError, match="positive class 'z'"):
            read_predictions(data, positive_class="z")
    assert read_predictions(b"prob\n.5\n", positive_class="z").classes == ("not z", "z")


# --- arrays ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ("logits", "labels"),
        ("predictions", "ground_truth"),
        ("arr_0", "arr_1"),
        ("outputs", "targets"),
        ("preds", "label_ids"),
        ("scores", "y"),
    ],
)
def test_npz_aliases(scores: str, labels: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(npz_bytes(**{scores: LOGITS, labels: LABELS[:, None]}))
    rows = read_predictions(path)
    np.testing.assert_array_equal(rows.logits, LOGITS)
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert rows.input_kind == "logits"


def test_npz_of_probabilities_keeps_float32(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(4), size=30).astype(np.float32)
    rows = read_predictions(npz_bytes(y_prob=p, y_true=np.arange(30) % 4))
    assert rows.input_kind == "probabilities"
    assert rows.logits.dtype == np.float32
    half = read_predictions(npz_bytes(logits=LOGITS.astype(np.float16)))
    assert half.logits.dtype == np.float32
    big = read_predictions(npz_bytes(logits=LOGITS.astype(">f8")))
    np.testing.assert_array_equal(big.logits, LOGITS)


def test_npz_with_everything(rng: np.random.Generator) -> None:
    weight, bias = rng.normal(size=(3, 5)), rng.normal(size=3)
    data = npz_bytes(
        logits=LOGITS,
        labels=np.array(["cat", "dog", "bird", "cat"]),
        classes=np.array(NAMES),
        features=np.ones((4, 5), np.float32),
        head_weight=weight,
        head_bias=bias,
        id=np.array(["a", "b", "c", "d"]),
        group=np.array([1, 1, 2, 2]),
        split=np.array(["test"] * 4),
        epoch=np.array(12),
    )
    study, schema = open_study(data, Settings(), name="rows.npz")
    rows = study.evaluation
    assert rows.classes == tuple(NAMES)
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert rows.features.shape == (4, 5)
    assert rows.features.dtype == np.float32
    assert rows.roles.named() == {"id": "id", "group": "group", "split": "split"}
    np.testing.assert_array_equal(study.head.weight, weight)
    np.testing.assert_array_equal(study.head.bias, bias)
    assert role(schema, "epoch") == "other"
    study, _ = open_study(npz_bytes(logits=LOGITS, W=weight.T, b=bias), Settings())
    np.testing.assert_array_equal(study.head.weight, weight)
    with pytest.raises(DataError, match="last layer has weights"):
        open_study(npz_bytes(logits=LOGITS, W=weight[:2], b=bias), Settings())


def test_npz_one_hot_labels() -> None:
    rows = read_predictions(npz_bytes(logits=LOGITS, labels=np.eye(3)[LABELS]))
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert notes(rows) == ["one-hot-labels"]


def test_quoted_newlines_and_delimiters() -> None:
    table = TABLE.assign(note=["a\nb", "c, d", 'say "e"', "f"])
    rows = read_predictions(csv_bytes(table))
    assert rows.metadata["note"].tolist() == table["note"].tolist()
    np.testing.assert_array_equal(rows.logits, LOGITS)


def test_npz_with_as_many_rows_as_classes() -> None:
    data = npz_bytes(
        logits=np.eye(3), labels=LABELS[:3], classes=NAMES, W=np.eye(3), b=np.ones(3)
    )
    study, _ = open_study(data, Settings())
    assert study.evaluation.classes == tuple(NAMES)
    np.testing.assert_array_equal(study.head.bias, np.ones(3))


def test_npz_binary_and_leave_out() -> None:
    logits = LOGITS.copy()
    logits[1, 2] = np.nan
    data = npz_bytes(logits=logits, labels=LABELS, features=np.eye(4))
    with pytest.raises(DataError, match="empty or NaN") as caught:
        read_predictions(data, name="rows.npz")
    assert caught.value.where == "rows.npz, column logits[:, 2], row 2"
    rows = read_predictions(data, invalid_rows="leave-out")
    np.testing.assert_array_equal(rows.file_rows, [1, 3, 4])
    np.testing.assert_array_equal(rows.features, np.eye(4)[[0, 2, 3]])
    single = npz_bytes(probs=np.array([0.25, 0.75]), y=np.array([False, True]))
    np.testing.assert_array_equal(read_predictions(single).labels, [0, 1])


def test_npy_and_chosen_array(tmp_path: Path) -> None:
    path = tmp_path / "logits.npy"
    np.save(path, LOGITS)
    np.testing.assert_array_equal(read_predictions(path).logits, LOGITS)
    data = npz_bytes(logits=LOGITS, averaged=LOGITS * 2)
    rows = read_predictions(data, score_columns=["averaged"])
    np.testing.assert_array_equal(rows.logits, LOGITS * 2)


# --- Parquet types --------------------------------------------------------------------


def test_parquet_types() -> None:
    table = pa.table(
        {
            "logit_a": pa.array([1.0, 2.0], pa.float32()),
            "logit_b": pa.array([3.0, 4.0], pa.float32()),
            "label": pa.array(["a", "b"]).dictionary_encode(),
            "date": pa.array([0, 1], pa.date32()),
            "tags": pa.array([["x"], []]),
            "is_night": pa.array([True, False]),
        }
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    rows = read_predictions(buffer.getvalue())
    assert rows.logits.dtype == np.float32
    np.testing.assert_array_equal(rows.labels, [0, 1])
    np.testing.assert_array_equal(rows.time_order(), [1, 2])
    assert rows.metadata["tags"].tolist() == ["['x']", "[]"]


# --- real files -----------------------------------------------------------------------

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = {
    "calzone_subgroup.csv": ("probabilities", 10_000, 2),
    "hollance_snacks.csv": ("confidence", 952, 0),
    "hollance_resnet50_birds.csv": ("confidence", 2_897, 0),
    "netcal_lenet5_cifar10.npz": ("probabilities", 10_000, 10),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real files is absent")
@pytest.mark.parametrize("name", REAL)
def test_real_files_need_no_choice(name: str) -> None:
    kind, n_rows, n_classes = REAL[name]
    rows = read_predictions(DATA / name)
    assert (rows.input_kind, len(rows), rows.n_classes) == (kind, n_rows, n_classes)
    assert rows.is_labelled.all()
    assert notes(rows) == []
    if name == "calzone_subgroup.csv":
        assert rows.roles.slices == ("subgroup_1",)
        assert rows.roles.group is None


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("digits_noisy.csv", 10),
        ("digits_features.npz", 10),
        ("breast_cancer_binary.csv", 2),
    ],
)
def test_samples_need_no_choice(name: str, classes: int, root: Path) -> None:
    rows = read_predictions(root / "sample_data" / name)
    assert rows.n_classes == classes
    assert {"id", "group", "split"} <= set(rows.roles.named())
    assert rows.is_labelled.all()


# --- properties -----------------------------------------------------------------------

NUMBERS = st.floats(-1e4, 1e4, allow_nan=False).map(lambda x: x or 0.0)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str]]:
    n_rows, n_classes = draw(st.integers(1, 12)), draw(st.integers(2, 6))
    logits = draw(hnp.arrays(np.float64, (n_rows, n_classes), elements=NUMBERS))
    labels = draw(hnp.arrays(np.int64, n_rows, elements=st.integers(-1, n_classes - 1)))
    letters = st.characters(categories=["L", "N"], exclude_characters="\r\n")
    name = st.text(letters, min_size=1, max_size=8).map(lambda word: f"x{word}")
    names = draw(
        st.lists(name, min_size=n_classes, max_size=n_classes, unique_by=str.casefold)
    )
    return logits, labels, names


@settings(max_examples=60)
@given(data=tables(), delimiter=st.sampled_from(",\t;"))
def test_random_tables_load_to_the_same_arrays(
    data: tuple[np.ndarray, np.ndarray, list[str]], delimiter: str
) -> None:
    logits, labels, names = data
    table = pd.DataFrame(logits, columns=[f"logit_{name}" for name in names])
    table["label"] = [names[i] if i >= 0 else None for i in labels]
    files = (
        csv_bytes(table, sep=delimiter),
        parquet_bytes(table),
        npz_bytes(logits=logits, labels=labels, classes=np.array(names)),
    )
    for file in files:
        rows = read_predictions(file, input_kind="logits")
        np.testing.assert_array_equal(rows.logits, logits)
        assert rows.classes == tuple(names)
        if (labels >= 0).any():
            np.testing.assert_array_equal(rows.labels, labels)
        else:
            assert rows.labels is None


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_chosen_confidence_and_outcome() -> None:
    data = b"how_sure,hit,note\n0.90,1,7\n0.60,0,8\n0.75,1,9\n"
    found = read_predictions(
        data,
        name="odd.csv",
        input_kind="confidence",
        score_columns=("how_sure",),
        label_column="hit",
    )
    assert found.input_kind == "confidence"
    assert found.confidence is not None
    assert found.correct is not None
    np.testing.assert_array_equal(found.confidence, [0.9, 0.6, 0.75])
    np.testing.assert_array_equal(found.correct, [True, False, True])


def test_class_scores_are_not_one_confidence() -> None:
    data = b"logit_a,logit_b,label\n1.5,-0.5,a\n0.25,2.0,b\n"
    with pytest.raises(DataError, match="No column of confidences"):
        read_predictions(data, name="logits.csv", input_kind="confidence")
    with pytest.raises(DataError, match="chosen as one confidence"):
        read_predictions(
            data,
            name="logits.csv",
            input_kind="confidence",
            score_columns=("logit_a", "logit_b"),
        )
