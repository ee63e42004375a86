"""JSON in every layout that pandas writes, on one line and indented, loads alike."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.loading import DataError, read_predictions

LOGITS = np.array([[2.1, -1.0], [0.3, 1.9], [1.2, 0.4]])
TABLE = pd.DataFrame(LOGITS, columns=["logit_cat", "logit_dog"]).assign(
    label=["cat", "dog", "cat"]
)
LISTS = {"logits": LOGITS.tolist(), "labels": [0, 1, 0]}
CLASSES = TABLE.set_axis(["0", "1", "label"], axis=1).assign(label=[0, 1, 0])
NAMED = TABLE.set_index(pd.Index(["p_1.png", "p_2.png", "p_3.png"]))


@pytest.mark.parametrize("orient", ["columns", "index", "split", "records", "table"])
@pytest.mark.parametrize("indent", [0, 2])
@pytest.mark.parametrize("table", [TABLE, CLASSES, NAMED], ids=["plain", "0", "named"])
def test_layouts_of_pandas(orient: Any, indent: int, table: pd.DataFrame) -> None:
    text = table.to_json(orient=orient, indent=indent)
    rows = read_predictions(text.encode(), name="rows.json")
    np.testing.assert_allclose(rows.logits, LOGITS)
    assert rows.labels.tolist() == [0, 1, 0]


def test_files_without_labels_by_column() -> None:
    ids = ["a.png", "b.png", "c.png"]
    table = TABLE.drop(columns="label").set_index(pd.Index(ids))
    rows = read_predictions(table.to_json().encode())
    np.testing.assert_allclose(rows.logits, LOGITS)
    assert rows.metadata["id"].tolist() == ids


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "document", [LISTS, {name: TABLE[name].tolist() for name in TABLE}]
)
def test_columns_as_lists(document: Any, indent: int | None) -> None:
    rows = read_predictions(json.dumps(document, indent=indent).encode())
    np.testing.assert_allclose(rows.logits, LOGITS)
    assert rows.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (LISTS | {"names": ["cat", "dog"]}, "logits 3, labels 3, names 2"),
        (LISTS | {"model": "resnet"}, "Beside the rows of logits stands model"),
        ([[{"label": "cat", "score": 0.9}]], "does not name its columns"),
        ([[0.1, 0.9], [0.2, 0.8]], "does not name its columns"),
        ({"a.png": {"x": 1.5, "x2": 0.5}}, "whether 'a.png' is a column or a row"),
        ({"0": {"0": 0.9, "1": 0.2}, "1": {"0": 0.1}}, "whether '0' is a column"),
        ({}, "holds no rows"),
        ({"a": {}}, "holds no rows"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_no_table_is_refused(
    document: Any, what: str, indent: int | None
) -> None:
    with pytest.raises(DataError) as caught:
        read_predictions(json.dumps(document, indent=indent).encode(), name="a.json")
    assert what in caught.value.what
    assert "one " in caught.value.how_to_fix


def test_a_cut_line_is_named() -> None:
    text = TABLE.to_json(orient="records", lines=True)
    with pytest.raises(DataError) as caught:
        read_predictions(text[:-20].encode(), name="rows.jsonl")
    assert caught.value.where == "rows.jsonl, line 3"
    one = read_predictions(text.partition("\n")[0].encode(), name="rows.jsonl")
    assert len(one) == 1
