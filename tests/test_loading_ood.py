"""References, out-of-distribution sets and last layers, from files of their own."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from core.loading import (
    add_head,
    add_ood,
    add_reference,
    open_study,
    read_given_scores,
)
from core.messages import DataError
from core.predictions import Study
from core.settings import Settings

N, M, K, D = 40, 20, 3, 5
CLASSES = np.array(["ant", "bee", "cow"])


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def arrays(n: int = N, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    h = np.abs(rng.normal(size=(n, D)))
    z = h @ np.random.default_rng(9).normal(size=(D, K))
    z -= z.mean(axis=0)
    return {"logits": z, "labels": z.argmax(axis=1), "features": h}


def study(**more: Any) -> Study:
    data = npz(**(arrays() | {"classes": CLASSES} | more))
    return open_study(data, Settings(), name="own.npz")[0]


def table(**columns: Any) -> bytes:
    z = arrays(N + M)["logits"]
    frame = pd.DataFrame({f"logit_{c}": z[:, i] for i, c in enumerate(CLASSES)})
    labels = np.append(CLASSES[z[:N].argmax(axis=1)], [""] * M)
    frame = frame.assign(label=labels, **columns)
    return frame.to_csv(index=False).encode()


def opened(data: bytes, **settings: Any) -> Study:
    return open_study(data, Settings(**settings), name="own.csv")[0]


SETS = np.repeat(["digits", "near_a", "far_b"], [N, 12, 8])


@pytest.mark.parametrize(
    ("columns", "sizes"),
    [
        ({"is_ood": np.repeat([0, 1], [N, M])}, {"ood": M}),
        ({"is_ood": np.repeat(["no", "yes"], [N, M])}, {"ood": M}),
        (
            {"is_ood": np.repeat([False, True], [N, M]), "dataset": SETS},
            {"near_a": 12, "far_b": 8},
        ),
        ({"dataset": SETS}, {"near_a": 12, "far_b": 8}),
    ],
)
def test_marked_rows_are_sets_of_their_own(columns: Any, sizes: dict[str, int]) -> None:
    found = opened(table(**columns))
    assert {name: len(rows) for name, rows in found.ood.items()} == sizes
    assert len(found.evaluation) == N
    assert found.evaluation.is_labelled.all()
    assert found.evaluation.file_rows.tolist() == list(range(1, N + 1))
    first = next(iter(found.ood.values()))
    assert first.file_rows[0] == N + 1
    (note,) = [n for n in found.evaluation.notes if n.code == "ood-rows-apart"]
    assert note.severity == ("info" if "is_ood" in columns else "question")
    assert "unlabelled-rows" not in [n.code for n in found.evaluation.notes]


def test_a_column_may_be_chosen_or_refused() -> None:
    odd = {"strange": np.repeat([0, 1], [N, M]), "part": SETS}
    assert opened(table(**odd)).ood == {}
    found = opened(table(**odd), ood_column="strange", dataset_column="part")
    assert set(found.ood) == {"near_a", "far_b"}
    marked = table(is_ood=np.repeat([0, 1], [N, M]))
    assert opened(marked, ood_column="").ood == {}
    with pytest.raises(DataError, match="does not say whether"):
        opened(table(part=SETS), ood_column="part")


def test_a_dataset_column_of_labelled_rows_stays_a_slice() -> None:
    sets = np.repeat(["a", "b"], (N + M) // 2)
    found, schema = open_study(table(dataset=sets), Settings(), name="own.csv")
    assert found.ood == {}
    assert schema.column("slice") == "dataset"


def test_only_strangers_are_refused() -> None:
    with pytest.raises(DataError, match="Every row"):
        opened(table(is_ood=np.ones(N + M, int)))


def test_layers_are_found_and_the_last_one_is_last() -> None:
    given = arrays()
    found = study(
        features_layer1=given["features"] * 2, **{"feats.layer2": np.ones((N, 2))}
    )
    layers = found.evaluation.features
    assert list(layers)[-1] == "features"
    assert set(layers) == {"features", "features_layer1", "feats.layer2"}


def test_parts_of_layers_are_joined() -> None:
    one, two = arrays(10, 1), arrays(20, 2)
    data = npz(
        **{f"{k}_val": v for k, v in one.items()},
        **{f"{k}_test": v for k, v in two.items()},
        features_layer1_val=np.ones((10, 2)),
        features_layer1_test=np.ones((20, 2)),
    )
    found = open_study(data, Settings(), name="own.npz")[0].evaluation
    assert {k: v.shape for k, v in found.features.items()} == {
        "features": (30, D),
        "features_layer1": (30, 2),
    }


@pytest.mark.parametrize("labels", ["numbers", "names"])
@pytest.mark.parametrize("has_scores", [False, True])
def test_a_reference_takes_the_classes_of_the_study(
    labels: str, has_scores: bool
) -> None:
    given = arrays(30, 3)
    y = given["labels"]
    given["labels"] = CLASSES[y] if labels == "names" else y
    if not has_scores:
        del given["logits"]
    own = study()
    found = add_reference(own, npz(**given), Settings(), name="train.npz").reference
    assert found.classes == own.evaluation.classes == tuple(CLASSES)
    np.testing.assert_array_equal(found.labels, y)
    assert found.input_kind == ("logits" if has_scores else "features")
    assert found.features.shape == (30, D)


def test_a_reference_of_other_classes_is_refused() -> None:
    given = arrays(30) | {"logits": np.ones((30, K + 1))}
    with pytest.raises(DataError, match="classes"):
        add_reference(study(), npz(**given), Settings(), name="train.npz")


def test_sets_are_called_after_the_flag_the_column_or_the_file() -> None:
    given = {k: v for k, v in arrays(M, 5).items() if k != "labels"}
    own = add_ood(study(), npz(**given), Settings(), set_name="far", name="x.npz")
    own = add_ood(own, npz(**given), Settings(), name="svhn.npz")
    sets = np.repeat(["a", "b"], M // 2)
    both = npz(**given, dataset=sets, is_ood=np.ones(M, int))
    own = add_ood(own, both, Settings(), name="more.npz")
    assert {k: len(v) for k, v in own.ood.items()} == {
        "far": M,
        "svhn": M,
        "a": 10,
        "b": 10,
    }
    assert all(rows.is_ood.all() for rows in own.ood.values())
    with pytest.raises(DataError, match="two OOD sets called 'far'"):
        add_ood(own, npz(**given), Settings(), set_name="far")


def test_labels_of_strangers_are_not_read() -> None:
    given = arrays(M, 5) | {"labels": np.full(M, 77)}
    own = add_ood(study(), npz(**given), Settings(), name="svhn.npz")
    assert own.ood["svhn"].labels is None
    minus = arrays(M, 5) | {"labels": np.full(M, -1)}
    assert len(add_ood(study(), npz(**minus), Settings(), name="s.npz").ood["s"]) == M
    features = npz(features=given["features"], label_list=np.full(M, -1))
    found = add_ood(study(), features, Settings(), name="s.npz").ood["s"]
    assert found.input_kind == "features"


def test_rows_of_a_set_that_are_marked_otherwise_are_left_out() -> None:
    given = arrays(M, 5) | {"is_ood": np.arange(M) % 2}
    assert (
        len(add_ood(study(), npz(**given), Settings(), name="s.npz").ood["s"]) == M // 2
    )
    none = given | {"is_ood": np.zeros(M, int)}
    with pytest.raises(DataError, match="No row is marked"):
        add_ood(study(), npz(**none), Settings(), name="s.npz")


def test_columns_chosen_for_the_rows_need_not_be_in_the_other_files() -> None:
    settings = Settings(label_column="labels", id_column="", group_column=None)
    given = {"features": arrays(M)["features"]}
    assert len(add_ood(study(), npz(**given), settings, name="s.npz").ood["s"]) == M


W, B = np.arange(15.0).reshape(K, D), np.arange(3.0)


@pytest.mark.parametrize(
    "bag",
    [
        {"weight": W, "bias": B},
        {"fc.weight": W, "fc.bias": B},
        {"W": W, "b": B},
        {"head_weight": W.T, "head_bias": B},
        {"classifier.1.weight": W, "classifier.1.bias": B},
        {"model.head.fc.weight": W, "model.head.fc.bias": B, "x.bias": -B},
        {"conv.weight": np.ones((4, 9)), "fc.weight": W, "fc.bias": B},
        {"layer.weight": W[:, :4], "head.weight": W, "head.bias": B},
        {"kernel": W.T, "offset": B},
    ],
)
def test_the_last_layer_by_the_names_in_use(bag: dict[str, Any]) -> None:
    for data in (
        npz(**bag),
        safetensors.numpy.save({k: v.copy() for k, v in bag.items()}),
    ):
        head = add_head(study(), data, name="head").head
        np.testing.assert_array_equal(head.weight, W)
        np.testing.assert_array_equal(head.bias, B)


def test_a_last_layer_without_a_bias_or_of_another_size() -> None:
    head = add_head(study(), npz(weight=W)).head
    np.testing.assert_array_equal(head.bias, np.zeros(K))
    with pytest.raises(DataError, match="No weights of a last layer of 3 classes"):
        add_head(study(), npz(weight=np.ones((7, D))))
    with pytest.raises(DataError, match="takes 4 features"):
        add_head(study(), npz(weight=np.ones((K, 4))))
    with pytest.raises(DataError, match="cannot be read from a text"):
        add_head(study(), b"a,b\n1,2\n", name="head.csv")


def test_features_alone_will_do_where_no_score_is_needed() -> None:
    given = arrays()
    data = npz(features=given["features"], labels=given["labels"])
    own, schema = open_study(data, Settings(), name="x.npz", needs_scores=False)
    assert own.evaluation.input_kind == schema.input_kind == "features"
    np.testing.assert_array_equal(own.evaluation.labels, given["labels"])
    named = npz(features=given["features"], labels=CLASSES[given["labels"]])
    own = open_study(named, Settings(), name="x.npz", needs_scores=False)[0]
    assert own.evaluation.classes == tuple(CLASSES)


def test_scores_of_openood_are_turned_round() -> None:
    rng = np.random.default_rng(0)
    conf, pred = rng.normal(size=N), rng.integers(0, K, N)
    label = np.where(np.arange(N) < 30, pred, -1)
    found = read_given_scores(npz(pred=pred, conf=conf, label=label), name="svhn.npz")
    assert found.name == "svhn"
    np.testing.assert_array_equal(found.score, -conf)
    np.testing.assert_array_equal(found.is_ood, np.arange(N) >= 30)
    assert [note.code for note in found.notes] == ["scores-turned"]
    frame = pd.DataFrame({"conf": conf, "label": label}).to_csv(index=False).encode()
    np.testing.assert_array_equal(read_given_scores(frame, name="x.csv").score, -conf)
    # Confidences of a classifier without strangers are what other pages read.
    shares = npz(pred=pred, conf=np.full(N, 0.5), label=pred)
    assert read_given_scores(shares, name="x.npz") is None
    assert read_given_scores(npz(**arrays()), name="x.npz") is None
    broken = npz(pred=pred, conf=np.where(np.arange(N) == 3, np.nan, conf), label=label)
    with pytest.raises(DataError, match="row 4"):
        read_given_scores(broken, name="x.npz")


def test_sets_of_confidences_need_no_outcome() -> None:
    text = b"confidence,correct\n0.9,1\n0.4,0\n0.8,1\n"
    study, _ = open_study(text, Settings(), name="mine.csv")
    # Its first lines would be a pickle of protocol 0, had they an end.
    found = add_ood(study, b"confidence\n0.3\n0.2\n", Settings(), name="far.csv")
    np.testing.assert_array_equal(found.ood["far"].confidence, [0.3, 0.2])
    named = add_ood(study, b"conf\n0.3\n0.2\n", Settings(), name="far.csv")
    assert named.ood["far"].logits is None
    asked = Settings(input_kind="confidence")
    with pytest.raises(DataError, match="which predictions were right"):
        open_study(b"conf\n0.3\n0.2\n", asked, name="mine.csv", needs_scores=False)
