"""Several files that belong together load as one; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import prediction_files as files_of
import pytest
from prediction_files import Sample, csv, npy, npz

from core.analysis import analyze
from core.loading import DataError, open_study, read_predictions
from core.predictions import Predictions
from core.settings import Settings

NAMES = ("cat", "dog", "emu")
SAMPLE = Sample.draw(40, NAMES)
N, K = SAMPLE.n, len(NAMES)
LOGITS, PROBS, LABELS, NAMED = SAMPLE.logits, SAMPLE.probs, SAMPLE.labels, SAMPLE.named


def codes(rows: Predictions) -> list[str]:
    return [note.code for note in rows.notes]


def check(rows: Predictions, scores: np.ndarray, kind: str) -> None:
    assert rows.input_kind == kind
    found = np.exp(rows.logits) if kind == "probabilities" else rows.logits
    np.testing.assert_allclose(found, scores, rtol=1e-12)
    np.testing.assert_array_equal(rows.labels, LABELS)


def columns(pattern: str, values: np.ndarray) -> pd.DataFrame:
    return files_of.columns(pattern, values, NAMES)


PAIRS = files_of.pairs(SAMPLE)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_arrays(name: str, tmp_path: Path) -> None:
    paths = []
    for file, array in PAIRS[name]:
        np.save(tmp_path / file, array)
        paths.append(tmp_path / file)
    rows = read_predictions(paths)
    kind = "probabilities" if name == "cleanlab" else "logits"
    check(rows, PROBS if name == "cleanlab" else LOGITS, kind)
    assert rows.name == " + ".join(path.name for path in paths)
    assert codes(rows) == []


def test_parts_in_several_array_files() -> None:
    for written in files_of.parts_in_files(SAMPLE).values():
        names, contents = zip(*written, strict=True)
        rows = read_predictions(list(contents), name=names)
        check(rows, LOGITS, "logits")
        split = rows.metadata[rows.roles.split]
        assert split.tolist() == ["calibration"] * 15 + ["test"] * 25


def test_scores_and_labels_in_two_tables() -> None:
    scores = columns("logit_{}", LOGITS).assign(id=range(N))
    truth = pd.DataFrame({"id": range(N), "label": NAMED}).sample(frac=1)
    rows = read_predictions([csv(scores), csv(truth)], name=["a.csv", "b.csv"])
    check(rows, LOGITS, "logits")
    assert codes(rows) == ["joined-by-id"]
    # As text in one and as numbers in the other, and fewer rows on one side.
    some = csv(truth.assign(id=truth["id"].astype(float)).query("id < 30"))
    rows = read_predictions([csv(scores), some], name=["a.csv", "b.csv"])
    np.testing.assert_array_equal(rows.labels[:30], LABELS[:30])
    assert (rows.labels[30:] == -1).all()
    assert "10 rows of a.csv are not in b.csv" in rows.notes[0].text
    few = csv(scores.query("id < 30"))
    rows = read_predictions([few, csv(truth)], name=["a.csv", "b.csv"])
    assert "10 rows of b.csv have no scores" in rows.notes[0].text


def test_scores_and_labels_by_order() -> None:
    scores, truth = columns("logit_{}", LOGITS), pd.DataFrame({"label": NAMED})
    rows = read_predictions([csv(scores), csv(truth)], name=["a.csv", "b.csv"])
    check(rows, LOGITS, "logits")
    assert [(n.code, n.severity) for n in rows.notes] == [
        ("joined-by-order", "question")
    ]
    truth = truth.assign(label=LABELS)
    mixed = read_predictions([npy(LOGITS), csv(truth)], name=["logits.npy", "b.csv"])
    check(mixed, LOGITS, "logits")


def test_an_unnamed_index_joins_only_the_same_rows() -> None:
    scores = columns("logit_{}", LOGITS)
    truth = pd.DataFrame({"label": NAMED})
    names = ["a.csv", "b.csv"]
    same = [scores.to_csv().encode(), truth.sample(frac=1).to_csv().encode()]
    check(read_predictions(same, name=names), LOGITS, "logits")
    # train_test_split keeps the index of the labels; the scores start again at 0.
    truth.index = np.random.default_rng(0).permutation(3 * N)[:N]
    files = [scores.to_csv().encode(), truth.to_csv().encode()]
    with pytest.raises(DataError, match="an index without a name") as caught:
        read_predictions(files, name=names)
    by_id, by_order = caught.value.answers
    assert (by_id.setting, by_id.value) == ("id_column", "unnamed 1")
    assert (by_order.setting, by_order.value) == ("id_column", "")
    rows = read_predictions(files, name=names, id_column=by_order.value)
    check(rows, LOGITS, "logits")
    assert "joined-by-order" in codes(rows)
    rows = read_predictions(files, name=names, id_column=by_id.value)
    assert "joined-by-id" in codes(rows)
    expected = [
        NAMES.index(truth["label"][i]) if i in truth.index else -1 for i in range(N)
    ]
    assert rows.labels.tolist() == expected


def test_files_by_role_become_a_study() -> None:
    tables = {
        "val.csv": columns("logit_{}", LOGITS[:15]).assign(label=NAMED[:15]),
        "preds_test.csv": columns("logit_{}", LOGITS[15:]).assign(label=NAMED[15:]),
    }
    files = [csv(table) for table in tables.values()]
    study, schema = open_study(files, Settings(), name=list(tables))
    assert study.fit is not None
    np.testing.assert_array_equal(study.fit.logits, LOGITS[:15])
    np.testing.assert_array_equal(study.evaluation.logits, LOGITS[15:])
    assert schema.name == "preds_test.csv"
    assert "files-by-role" in codes(study.evaluation)
    chosen = Settings(calibrators=("temperature",), n_resamples=100)
    assert analyze(study, chosen).to_dict()
    gaps = [csv(t.assign(label=["cat", *[""] * (len(t) - 1)])) for t in tables.values()]
    noted, _ = open_study([gaps[0], files[1]], Settings(), name=list(tables))
    assert any(note.text.startswith("val.csv: ") for note in noted.evaluation.notes)
    with pytest.raises(DataError, match="different parts"):
        read_predictions(files, name=list(tables))


def test_the_same_file_twice_is_used_once() -> None:
    data = csv(columns("logit_{}", LOGITS).assign(label=NAMED))
    rows = read_predictions([data, data], name=["a.csv", "copy.csv"])
    check(rows, LOGITS, "logits")
    assert codes(rows) == ["same-file"]


SCORES = columns("logit_{}", LOGITS).assign(id=range(N))


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([SCORES, SCORES + 0.5], "2 of the files hold scores"),
        ([SCORES, pd.DataFrame({"id": range(900, 940), "label": NAMED})], "None of"),
        ([SCORES, pd.DataFrame({"id": [1, 1], "label": NAMED[:2]})], "more than once"),
        ([SCORES, pd.DataFrame({"name": ["x"], "label": ["cat"]})], "no column with"),
        (
            [pd.DataFrame({"id": [1], "a": ["x"]}), pd.DataFrame({"b": ["x"]})],
            "None of the files holds",
        ),
    ],
)
def test_files_that_do_not_belong_together(files: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read_predictions([csv(f) for f in files], name=["a.csv", "b.csv"])
    assert what in caught.value.what
    assert caught.value.how_to_fix


def test_arrays_of_one_name_need_a_part() -> None:
    files = [npz(logits=LOGITS), npz(logits=LOGITS * 2)]
    with pytest.raises(DataError, match="More than one of the files"):
        read_predictions(files, name=["a.npz", "b.npz"])
    with pytest.raises(DataError, match="no files"):
        read_predictions([])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("image_id", "ImageID"),
        ("id", "ID"),
        ("Sample Id", "sample-id"),
        ("row.id", "RowID"),
        ("FileName", "file_name"),
    ],
)
def test_ids_are_joined_however_their_name_is_spelled(left: str, right: str) -> None:
    ids = [f"n{i}" for i in range(N)]
    scores = columns("logit_{}", LOGITS).assign(**{left: ids})
    truth = pd.DataFrame({right: ids, "label": NAMED}).sample(frac=1, random_state=0)
    for files in ([scores, truth], [truth, scores]):
        rows = read_predictions([csv(f) for f in files], name=["a.csv", "b.csv"])
        check(rows, LOGITS, "logits")
        (note,) = rows.notes
        assert f"joined on {left} and {right}" in note.text
        assert rows.roles.id == left
        assert right not in rows.metadata
    chosen = read_predictions(
        [csv(scores), csv(truth)], name=["a.csv", "b.csv"], id_column=left
    )
    check(chosen, LOGITS, "logits")


def test_an_exact_name_comes_before_another_spelling() -> None:
    scores = columns("logit_{}", LOGITS).assign(id=range(N), ID=range(N, 0, -1))
    truth = pd.DataFrame({"ID": range(N, 0, -1), "label": NAMED})
    rows = read_predictions([csv(scores), csv(truth)], name=["a.csv", "b.csv"])
    check(rows, LOGITS, "logits")


def test_ids_with_zeros_before_a_number() -> None:
    padded = [f"{i:05}" for i in range(N)]
    scores = columns("logit_{}", LOGITS)
    truth = pd.DataFrame({"id": range(N), "label": NAMED}).sample(frac=1)
    names = ["a.csv", "b.csv"]
    rows = read_predictions([csv(scores.assign(id=padded)), csv(truth)], name=names)
    check(rows, LOGITS, "logits")
    assert rows.metadata["id"].tolist() == padded
    (note,) = rows.notes
    assert "00000 and 0 count as the same id" in note.text
    turned = truth.assign(id=[f"{i:03}" for i in truth["id"]])
    for other in (scores.assign(id=range(N)), scores.assign(id=padded)):
        rows = read_predictions([csv(other), csv(turned)], name=names)
        check(rows, LOGITS, "logits")
    # 01 and 1 are two rows: they cannot both be row 1 of the other file.
    twice = scores.assign(id=["01", "1", *padded[2:]])
    rows = read_predictions([csv(twice), csv(truth)], name=names)
    assert rows.labels.tolist() == [-1, LABELS[1], *[-1] * (N - 2)]
    assert "39 rows of a.csv are not in b.csv" in rows.notes[0].text
