"""The layouts that people have, one file or several, load without a mapping."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import prediction_files as files_of
import pyarrow as pa
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prediction_files import Sample, csv, feather, npy, npz

from core.loading import (
    DataError,
    inspect_file,
    open_study,
    read_predictions,
)
from core.predictions import Predictions
from core.settings import Settings
from core.softmax import softmax

NAMES = ("cat", "dog", "emu")
SAMPLE = Sample.draw(40, NAMES)
N, K = SAMPLE.n, len(NAMES)
LOGITS, PROBS, LABELS, NAMED = SAMPLE.logits, SAMPLE.probs, SAMPLE.labels, SAMPLE.named
IDS, RNG = SAMPLE.ids, np.random.default_rng(11)


def codes(rows: Predictions) -> list[str]:
    return [note.code for note in rows.notes]


def check(rows: Predictions, scores: np.ndarray, kind: str) -> None:
    assert rows.input_kind == kind
    found = np.exp(rows.logits) if kind == "probabilities" else rows.logits
    np.testing.assert_allclose(found, scores, rtol=1e-12)
    np.testing.assert_array_equal(rows.labels, LABELS)


def columns(pattern: str, values: np.ndarray, names: Any = NAMES) -> pd.DataFrame:
    return files_of.columns(pattern, values, names)


# --- one table ------------------------------------------------------------------------


def test_calzone() -> None:
    table = files_of.calzone(SAMPLE)
    rows = read_predictions(csv(table))
    check(rows, PROBS, "probabilities")
    assert rows.roles.slices == ("subgroup_1",)
    plain = read_predictions(csv(table.drop(columns="subgroup_1"), header=False))
    check(plain, PROBS, "probabilities")


def test_hollance() -> None:
    rows = read_predictions(csv(files_of.hollance(SAMPLE)))
    assert rows.input_kind == "confidence"
    np.testing.assert_allclose(rows.confidence, PROBS.max(1))
    np.testing.assert_array_equal(rows.correct, PROBS.argmax(1) == LABELS)


def timm(n_top: int, output: str = "prob") -> pd.DataFrame:
    return files_of.timm(SAMPLE, n_top, output)


TRUTH = files_of.timm_truth(SAMPLE)


@pytest.mark.parametrize("n_top", [1, 2])
@pytest.mark.parametrize("write", ["csv", "parquet"])
def test_timm_top_classes_with_a_file_of_labels(n_top: int, write: str) -> None:
    table = timm(n_top)
    data = csv(table) if write == "csv" else table.to_parquet(index=False)
    rows = read_predictions([data, csv(TRUTH)], name=["preds", "truth.csv"])
    assert rows.input_kind == "confidence"
    np.testing.assert_allclose(rows.confidence, PROBS.max(1))
    np.testing.assert_array_equal(rows.correct, PROBS.argmax(1) == LABELS)
    assert rows.roles.id == "filename"
    assert codes(rows) == ["top-k-only", "joined-by-id"]
    note = rows.notes[0].text
    assert "--topk 0" in note


JSON_FORMATS = {
    "json": lambda table: table.set_index("filename").to_json(orient="index", indent=4),
    "json-record": lambda table: table.to_json(orient="records", lines=True),
    "json-split": lambda table: table.to_json(orient="split", index=False, indent=4),
    "records": lambda table: table.to_json(orient="records"),
}


@pytest.mark.parametrize("written", JSON_FORMATS)
@pytest.mark.parametrize("n_top", [1, 2, K])
def test_timm_as_json(written: str, n_top: int) -> None:
    data = JSON_FORMATS[written](timm(n_top)).encode()
    rows = read_predictions([data, csv(TRUTH)], name=["preds.json", "truth.csv"])
    if n_top == K:
        np.testing.assert_allclose(np.exp(rows.logits), PROBS, atol=1e-9)
        return
    np.testing.assert_allclose(rows.confidence, PROBS.max(1), atol=1e-9)
    np.testing.assert_array_equal(rows.correct, PROBS.argmax(1) == LABELS)


def test_timm_lists_of_ranks() -> None:
    ranked = timm(2)
    table = pd.DataFrame(
        {
            "filename": IDS,
            "index": ranked[["index_0", "index_1"]].to_numpy().tolist(),
            "prob": ranked[["prob_0", "prob_1"]].to_numpy().tolist(),
        }
    )
    truth = pd.DataFrame({"filename": IDS, "target": LABELS})
    for data in (
        table.set_index("filename").to_parquet(),
        table.to_json(orient="records", lines=True).encode(),
    ):
        rows = read_predictions([data, csv(truth)], name=["a", "truth.csv"])
        assert rows.input_kind == "confidence"
        np.testing.assert_array_equal(rows.correct, PROBS.argmax(1) == LABELS)


def test_timm_without_labels_is_no_binary_file() -> None:
    for n_top in (1, 2):
        with pytest.raises(DataError, match="which predictions were right") as caught:
            read_predictions(csv(timm(n_top)))
        assert "second one with the same id" in caught.value.how_to_fix


def test_timm_beside_a_file_of_other_scores_is_refused() -> None:
    test = csv(columns("logit_{}", LOGITS).assign(label=NAMED))
    with pytest.raises(DataError):
        open_study([csv(timm(2)), test], Settings(), name=["val", "test"])


def test_timm_index_without_names_of_classes() -> None:
    table = timm(1).drop(columns="label")
    truth = pd.DataFrame({"filename": IDS, "target": LABELS})
    rows = read_predictions([csv(table), csv(truth)], name=["a.csv", "b.csv"])
    np.testing.assert_array_equal(rows.correct, PROBS.argmax(1) == LABELS)


@pytest.mark.parametrize("output", ["prob", "logit"])
def test_timm_with_every_class(output: str) -> None:
    values = PROBS if output == "prob" else LOGITS
    ranked = timm(K, output)
    rows = read_predictions([csv(ranked), csv(TRUTH)], name=["a.csv", "b.csv"])
    check(rows, values, {"prob": "probabilities", "logit": "logits"}[output])
    assert rows.classes == NAMES
    table = columns(output + "_{}", values, range(K)).assign(filename=IDS)
    truth = pd.DataFrame({"filename": IDS, "label": LABELS})
    rows = read_predictions([csv(table), csv(truth)], name=["a.csv", "b.csv"])
    check(rows, values, {"prob": "probabilities", "logit": "logits"}[output])


def test_timm_top_logits_are_refused() -> None:
    with pytest.raises(DataError, match="2 highest logits") as caught:
        read_predictions(csv(timm(2, "logit")))
    assert "--topk 0" in caught.value.how_to_fix


def test_a_binary_file_with_index_and_filename_stays_one() -> None:
    table = pd.DataFrame(
        {"filename": IDS, "index": range(N), "label": LABELS % 2, "prob": PROBS[:, 1]}
    )
    rows = read_predictions(csv(table))
    assert rows.input_kind == "probabilities"
    np.testing.assert_array_equal(rows.labels, LABELS % 2)
    shuffled = table.assign(index=RNG.permutation(N) + 7).drop(columns="label")
    assert read_predictions(csv(shuffled)).input_kind == "probabilities"
    table["index"] = np.tile([0, 1], N // 2)  # a class that is not that of the label
    truth = read_predictions(csv(table))
    assert truth.n_classes == 2


def test_kaggle_out_of_fold() -> None:
    scale = RNG.uniform(0.8, 1.2, (N, 1))
    given = np.minimum(PROBS * scale, 1)
    oof, train = files_of.kaggle(SAMPLE, scale)
    for files in ([csv(oof), csv(train)], [csv(train), csv(oof)]):
        rows = read_predictions(files, name=["one.csv", "two.csv"])
        assert rows.input_kind == "probabilities"
        assert rows.classes == NAMES
        assert codes(rows) == ["joined-by-id", "renormalised"]
        np.testing.assert_array_equal(rows.labels, LABELS)
        np.testing.assert_allclose(
            softmax(rows.logits), given / given.sum(1, keepdims=True), rtol=1e-9
        )
        assert "Sex" in rows.roles.slices
    whole = oof.assign(Status=NAMED)
    assert "renormalised" in codes(read_predictions(csv(whole)))


def test_catboost_prefers_raw_values() -> None:
    table = files_of.catboost(SAMPLE)
    rows = read_predictions(csv(table, sep="\t"), name="eval.tsv")
    check(rows, LOGITS, "logits")
    assert rows.classes == NAMES
    assert rows.roles.id == "SampleId"
    binary = pd.DataFrame(
        {"DocId": range(N), "RawFormulaVal": LOGITS[:, 0], "Probability": PROBS[:, 0]}
    ).assign(Label=LABELS % 2)
    rows = read_predictions(csv(binary, sep="\t"), name="eval.tsv")
    np.testing.assert_array_equal(rows.logits[:, 1], LOGITS[:, 0])


def test_tidymodels() -> None:
    table = files_of.tidymodels(SAMPLE)
    rows = read_predictions(csv(table))
    check(rows, PROBS, "probabilities")
    assert rows.classes == NAMES
    assert rows.roles.id == ".row"
    renamed = table.rename(columns={"Class": "species"})
    check(read_predictions(csv(renamed)), PROBS, "probabilities")


@pytest.mark.parametrize("stem", ["label", "y_true", "target", "y"])
def test_one_hot_labels_in_a_table(stem: str) -> None:
    table = files_of.one_hot(SAMPLE, stem)
    rows = read_predictions(csv(table))
    check(rows, LOGITS, "logits")
    assert codes(rows) == ["one-hot-labels"]
    guess = next(c for c in inspect_file(csv(table)).columns if c.role == "label")
    assert "one 1 per row" in guess.evidence


def test_categories_are_no_one_hot_labels() -> None:
    colours = pd.get_dummies(pd.Series(np.where(LABELS, "red", "blue"))).astype(int)
    table = columns("logit_{}", LOGITS).join(colours.add_prefix("category_"))
    rows = read_predictions(csv(table))
    assert rows.labels is None
    assert codes(rows) == ["unlabelled"]


def test_a_score_among_the_labels_does_not_compete() -> None:
    scores = columns("logit_{}", LOGITS).assign(id=range(N))
    truth = pd.DataFrame({"id": range(N), "score": PROBS[:, 0], "label": NAMED})
    rows = read_predictions([csv(truth), csv(scores)], name=["a.csv", "b.csv"])
    check(rows, LOGITS, "logits")
    assert "score" in rows.metadata


def test_hard_predictions_are_no_one_hot_labels() -> None:
    flags = columns("class_{}", np.eye(K, dtype=int)[LABELS], range(K))
    rows = read_predictions(csv(flags.assign(label=LABELS)))
    assert rows.n_classes == K


# --- named arrays ---------------------------------------------------------------------

ARRAY_FILES = files_of.array_files(SAMPLE)


@pytest.mark.parametrize("name", ARRAY_FILES)
def test_array_files(name: str) -> None:
    arrays = ARRAY_FILES[name]
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    rows = read_predictions(buffer.getvalue())
    np.testing.assert_array_equal(rows.labels, LABELS)
    found = rows.logits if rows.input_kind == "logits" else np.exp(rows.logits)
    np.testing.assert_allclose(
        found, PROBS if name == "netcal" else LOGITS, rtol=1e-6, atol=1e-7
    )
    expected = {
        "hugging face": ["array-not-used"],
        "mix-n-match": ["one-hot-labels"],
        "floats": ["float-labels"],
        "parts": ["split-from-names"],
        "parts in front": ["split-from-names"],
    }
    assert codes(rows) == expected.get(name, [])
    if name.startswith("parts"):
        split = rows.metadata[rows.roles.split]
        assert split.tolist() == ["calibration"] * 15 + ["test"] * (N - 15)


def test_tokens_with_ignored_labels() -> None:
    logits = LOGITS[:30].reshape(6, 5, K)
    labels = LABELS[:30].reshape(6, 5).copy()
    labels[:, 3:] = -100
    rows = read_predictions(npz(predictions=logits, label_ids=labels))
    np.testing.assert_array_equal(rows.logits, logits[:, :3].reshape(-1, K))
    assert codes(rows) == ["tokens"]
    assert len(set(rows.group_codes())) == 6
    flat = read_predictions(npz(predictions=LOGITS[:30], label_ids=labels.ravel()))
    assert (flat.labels == -1).sum() == 12
    assert codes(flat) == ["unlabelled-rows"]


def test_parts_that_do_not_fit_are_refused() -> None:
    cases = (
        {"logits_val": LOGITS, "labels_val": LABELS, "logits_test": LOGITS},
        {"logits_val": LOGITS, "logits_test": LOGITS[:, :2]},
        {
            "logits_val": LOGITS,
            "logits_test": LOGITS,
            "labels_val": LABELS,
            "labels_test": LABELS[:-1],
        },
        {"logits_val": LOGITS, "logits_valid": LOGITS},
    )
    for arrays in cases:
        with pytest.raises(DataError) as caught:
            read_predictions(npz(**arrays), name="a.npz")
        assert caught.value.how_to_fix


# --- all of them ----------------------------------------------------------------------


@pytest.mark.parametrize("name", files_of.layouts(SAMPLE))
def test_every_layout_is_read_as_it_is(name: str) -> None:
    names, contents = zip(*files_of.layouts(SAMPLE)[name](), strict=True)
    study, _ = open_study(contents, Settings(), name=names)
    own = study.evaluation
    fit = 0 if study.fit is None else len(study.fit)
    assert len(own) + fit == N
    truth = own.correct if own.input_kind == "confidence" else own.labels
    assert truth is not None
    assert (truth >= 0).all()


# --- what was lost before -------------------------------------------------------------


def test_headerless_with_the_label_first() -> None:
    table = pd.DataFrame(LOGITS).assign(y=LABELS)[["y", 0, 1, 2]]
    check(read_predictions(csv(table, header=False)), LOGITS, "logits")
    named = csv(table.assign(y=NAMED), header=False)
    with pytest.raises(DataError, match="'cat' is not one of the 3 classes"):
        read_predictions(named)


def test_counted_header_with_the_label_first() -> None:
    table = pd.DataFrame(np.c_[LABELS, LOGITS]).astype({0: int})
    check(read_predictions(table.to_csv(index=False).encode()), LOGITS, "logits")


def test_decimals_beside_the_classes_are_a_question() -> None:
    table = columns("{}", LOGITS).assign(
        zebra=0.25, label=np.where(LABELS, "cat", "emu")
    )
    table.insert(0, "ant", 0.5)
    rows = read_predictions(csv(table))
    note = next(n for n in rows.notes if n.code == "unclaimed-decimals")
    assert note.severity == "question"
    assert "ant" in note.text
    assert "zebra" in note.text


def test_a_schema_without_label_says_so() -> None:
    data = csv(columns("logit_{}", LOGITS))
    schema = inspect_file(data)
    assert codes(read_predictions(data, schema=schema)) == ["unlabelled"]
    assert codes(read_predictions(data, schema=schema, label_column="")) == []


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (("logit_-1", "logit_1"), ("-1", "1")),
        (("logit_[a]", "logit_[b]"), ("[a]", "[b]")),
        (("logit[a]", "logit[b]"), ("a", "b")),
        (("logit - a", "logit - b"), ("a", "b")),
        (("logit-a", "logit-b"), ("a", "b")),
        (("logit = a", "logit = b"), ("a", "b")),
        (("logit: a", "logit: b"), ("a", "b")),
        (("logit_class_a", "logit_class_b"), ("a", "b")),
        (("logit_class1", "logit_class2"), ("1", "2")),
        (("logit__a", "logit__b"), ("a", "b")),
    ],
)
def test_names_of_score_columns(
    written: tuple[str, str], classes: tuple[str, str]
) -> None:
    table = pd.DataFrame(LOGITS[:, :2], columns=list(written))
    rows = read_predictions(csv(table.assign(label=np.array(classes)[LABELS % 2])))
    assert rows.classes == classes
    np.testing.assert_array_equal(rows.labels, LABELS % 2)
    np.testing.assert_array_equal(rows.logits, LOGITS[:, :2])


def test_spaces_between_the_words_of_a_label_do_not_matter() -> None:
    table = columns("logit_{}", LOGITS, ("wild  cat", "dog", "emu"))
    named = np.array(["wild  cat", " dog", "Emu"])[LABELS]
    rows = read_predictions(csv(table.assign(label=named)))
    check(rows, LOGITS, "logits")
    assert rows.classes == ("wild cat", "dog", "emu")


# --- labels by number -----------------------------------------------------------------


def test_labels_from_1_are_a_question() -> None:
    for data in (
        csv(columns("logit_{}", LOGITS).assign(label=LABELS + 1)),
        npz(logits=LOGITS, labels=LABELS + 1),
    ):
        with pytest.raises(DataError, match="'3' is not one of") as caught:
            read_predictions(data)
        assert [a.flag for a in caught.value.answers] == ["--label-base 1"]
        check(read_predictions(data, label_base="1"), LOGITS, "logits")
        with pytest.raises(DataError) as caught:
            read_predictions(data, label_base="0")
        assert not caught.value.answers


# --- properties -----------------------------------------------------------------------


@st.composite
def rows_of(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    n, k = draw(st.integers(2, 12)), draw(st.integers(2, 5))
    value = st.floats(-30, 30, allow_nan=False, width=32)
    logits = draw(hnp.arrays(np.float64, (n, k), elements=value))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    labels[[0, -1]] = 0  # without the first class, where labels start is a question
    word = st.text("abcdefgh", min_size=2, max_size=6)
    names = draw(st.lists(word, min_size=k, max_size=k, unique=True))
    logits[:, 0] += 100 * np.arange(n)  # no two rows are alike
    return logits + 0.125, labels, tuple(f"x{name}" for name in names)


@settings(max_examples=30)
@given(rows_of(), st.sampled_from(["csv", "tsv", "semicolon", "utf-16"]))
def test_random_tables_of_every_layout(
    data: tuple[np.ndarray, np.ndarray, tuple[str, ...]], written: str
) -> None:
    logits, labels, names = data
    named = np.array(names)[labels]
    options = {"csv": {}, "tsv": {"sep": "\t"}, "utf-16": {"sep": "\t"}}.get(
        written, {"sep": ";", "decimal": ","}
    )
    layouts = {
        "plain": columns("logit_{}", logits, names).assign(label=named),
        "catboost": columns("RawFormulaVal:Class={}", logits, names).assign(
            Label=named
        ),
        "one-hot": columns("logit_{}", logits, names).join(
            columns("label_{}", np.eye(len(names), dtype=int)[labels], names)
        ),
    }
    for table in layouts.values():
        text = table.to_csv(index=False, **options)
        raw = text.encode("utf-16" if written == "utf-16" else "utf-8")
        for content in (
            raw,
            pa.compress(raw, codec="zstd", asbytes=True),
            feather(table),
            table.to_parquet(index=False),
        ):
            rows = read_predictions(content, input_kind="logits")
            np.testing.assert_array_equal(rows.logits, logits)
            np.testing.assert_array_equal(rows.labels, labels)
            assert rows.classes == names


@settings(max_examples=30)
@given(rows_of(), st.integers(1, 11))
def test_random_arrays_of_every_layout(
    data: tuple[np.ndarray, np.ndarray, tuple[str, ...]], cut: int
) -> None:
    logits, labels, _ = data
    cut = min(cut, len(labels) - 1)
    files: dict[str, list[tuple[str, bytes]]] = {
        "one": [("a.npz", npz(logits=logits, labels=labels))],
        "hugging face": [("a.npz", npz(predictions=logits, label_ids=labels))],
        "one-hot": [
            ("a.npz", npz(logits=logits, labels=np.eye(logits.shape[1])[labels]))
        ],
        "safetensors": [
            ("a.safetensors", safetensors.numpy.save({"z": logits, "y": labels}))
        ],
        "pair": [("logits.npy", npy(logits)), ("labels.npy", npy(labels[:, None]))],
        "parts": [
            (
                "a.npz",
                npz(
                    logits_val=logits[:cut],
                    labels_val=labels[:cut],
                    logits_test=logits[cut:],
                    labels_test=labels[cut:],
                ),
            )
        ],
        "two": [
            ("val.npz", npz(logits=logits[:cut], labels=labels[:cut])),
            ("test.npz", npz(logits=logits[cut:], labels=labels[cut:])),
        ],
    }
    for given_files in files.values():
        names, contents = zip(*given_files, strict=True)
        rows = read_predictions(list(contents), name=names, input_kind="logits")
        np.testing.assert_array_equal(rows.logits, logits)
        np.testing.assert_array_equal(rows.labels, labels)
