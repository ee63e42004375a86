"""New rows whose score columns are called just as the classes of the calibrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app import cli
from core.export import read_new_rows
from core.loading import DataError, files, text

CLASSES = ["cat", "dog", "newt"]


def test_columns_called_as_the_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 3)).round(3), columns=CLASSES)
    labels = [CLASSES[i] for i in rng.integers(0, 3, 60)]
    fit, new, named = (tmp_path / f"{name}.csv" for name in ("fit", "new", "named"))
    table.assign(label=labels).to_csv(fit, index=False)
    table.assign(site="a").to_csv(new, index=False)
    table.add_prefix("logit_").to_csv(named, index=False)
    folder = tmp_path / "calibrated"
    argv = ["calibrate", str(fit), "--out", str(folder), "--n-resamples", "100"]
    assert cli.main([*argv, "--calibrators", "temperature"]) == 0
    calibrator = str(folder / "calibrator.json")
    assert json.loads(Path(calibrator).read_text())["input"] == "logits"
    made = []
    for path in (new, named):
        out = tmp_path / f"{path.stem}-out.csv"
        argv = ["apply", calibrator, str(path), "--out", str(out)]
        assert cli.main(argv) == 0
        made.append(pd.read_csv(out))
    pd.testing.assert_frame_equal(*made)
    table.drop(columns="newt").to_csv(new, index=False)
    out = str(tmp_path / "none.csv")
    argv = ["apply", calibrator, str(new), "--out", out]
    assert cli.main(argv) == 2


METADATA = {"classes": CLASSES, "input": "logits"}
LOGITS = np.random.default_rng(1).normal(size=(30, 3)).round(3)


def as_csv(values: Any, columns: list[str], **more: Any) -> bytes:
    table = pd.DataFrame(values, columns=columns).assign(**more)
    return table.to_csv(index=False).encode()


def test_the_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    own = text.read_text

    def counted(*args: Any) -> Any:
        read.append(args[0].name)
        return own(*args)

    monkeypatch.setattr(files, "read_text", counted)
    read_new_rows(as_csv(LOGITS, CLASSES, site="a"), METADATA, label_column="")
    assert len(read) == 1
    with pytest.raises(DataError, match="the calibrator also has 'newt'"):
        read_new_rows(as_csv(LOGITS[:, :2], CLASSES[:2]), METADATA, label_column="")
    assert len(read) == 2


@pytest.mark.parametrize("columns", [["Newt", "CAT", " dog "], CLASSES])
@pytest.mark.parametrize("more", [{}, {"lat": 0.5, "lon": 1.5}, {"label": "cat"}])
def test_classes_in_other_letters_and_beside_decimals(
    columns: list[str], more: dict[str, Any]
) -> None:
    rows = read_new_rows(as_csv(LOGITS, columns, **more), METADATA, label_column="")
    assert rows.classes == tuple(name.strip().lower() for name in columns)
    np.testing.assert_array_equal(rows.logits, LOGITS)


def test_classes_that_share_a_stem() -> None:
    metadata = METADATA | {"classes": ["big dog", "big cat", "newt"]}
    for columns in (metadata["classes"], ["of big dog", "of big cat", "of newt"]):
        data = as_csv(LOGITS, list(columns), lat=0.25)
        rows = read_new_rows(data, metadata, label_column="")
        assert rows.classes == tuple(metadata["classes"])


def test_scores_named_as_such_come_before_columns_called_as_classes() -> None:
    flags = dict(zip(CLASSES, (1, 0, 0), strict=True))
    data = as_csv(LOGITS, [f"logit_{name}" for name in CLASSES], **flags)
    rows = read_new_rows(data, METADATA, label_column="")
    np.testing.assert_array_equal(rows.logits, LOGITS)


def test_new_rows_in_two_files() -> None:
    ids = [f"row {i}" for i in range(30)]
    sites = pd.DataFrame({"id": ids[::-1], "site": range(30)}).to_csv(index=False)
    both = [as_csv(LOGITS, CLASSES, id=ids), sites.encode()]
    rows = read_new_rows(both, METADATA, label_column="")
    np.testing.assert_array_equal(rows.logits, LOGITS)
    assert rows.metadata["site"].tolist() == list(range(29, -1, -1))


def test_the_kind_of_the_calibrator_where_the_file_leaves_it_open() -> None:
    inside = np.abs(LOGITS) / 10
    assert read_new_rows(as_csv(inside, CLASSES), METADATA).input_kind == "logits"
    sure = inside / inside.sum(axis=1, keepdims=True)
    with pytest.raises(DataError, match="was fitted on logits") as caught:
        read_new_rows(as_csv(sure, CLASSES), METADATA)
    assert [a.value for a in caught.value.answers] == ["logits", "probabilities"]
    for kind in ("logits", "probabilities"):
        rows = read_new_rows(as_csv(sure, CLASSES), METADATA, input_kind=kind)
        assert rows.input_kind == kind
    sure[4] = (1.0, -2e-16, 0.0)
    metadata = METADATA | {"input": "probabilities"}
    rows = read_new_rows(as_csv(sure, CLASSES), metadata)
    assert rows.input_kind == "probabilities"
