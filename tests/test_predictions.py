"""Predictions: every invariant once, and a fingerprint of the content."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.messages import DataError, Note
from core.predictions import ColumnRoles, Head, Predictions, Study, matching_rows

Z = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [2.0, 2.0, 2.0]])
Y = [1, 2, -1]


def make(**changes):
    given = {"scores": Z, "labels": Y} | changes
    scores, labels = given.pop("scores"), given.pop("labels")
    return Predictions.from_arrays(scores, labels, **given)


def codes(own):
    return [note.code for note in own.notes]


def test_arrays_are_checked_typed_and_read_only():
    own = make(features=np.ones((3, 2)), is_ood=[0, 1, 0])
    assert len(own) == 3
    assert own.n_classes == 3
    assert own.classes == ("class 0", "class 1", "class 2")
    assert own.labels.dtype == np.int64
    assert own.is_labelled.tolist() == [True, True, False]
    assert own.file_rows.tolist() == [1, 2, 3]
    for array in (own.logits, own.labels, own.features, own.is_ood, own.file_rows):
        assert not array.flags.writeable
    with pytest.raises(AttributeError):
        own.name = "other"
    assert make(scores=Z.astype(np.float32)).logits.dtype == np.float32
    assert make(scores=np.asfortranarray(Z)).logits.flags.c_contiguous
    assert make(scores=Z.astype(int)).logits.dtype == np.float64
    assert make(labels=np.array(Y)[:, None]).labels.tolist() == Y
    assert not make(labels=None).is_labelled.any()


def test_one_column_is_a_binary_score():
    logits = make(scores=[0.5, -1.0, 2.0], labels=[0, 1, 1])
    np.testing.assert_array_equal(logits.logits, [[0, 0.5], [0, -1], [0, 2]])
    p = np.array([0.25, 0.9, 0.5])
    binary = make(scores=p, labels=[0, 1, 1], input_kind="probabilities")
    expected = np.column_stack([np.log1p(-p), np.log(p)])
    np.testing.assert_allclose(binary.logits, expected, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_zeros_take_the_smallest_probability_and_are_counted(dtype):
    p = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], dtype)
    own = make(scores=p, input_kind="probabilities")
    assert np.isfinite(own.logits).all()
    assert own.logits[0, 1] == pytest.approx(np.log(1e-12))
    assert codes(own) == ["exact-zero"]
    assert own.notes[0].text.startswith("3 probabilities")
    rows = [[1 - 1e-15, 1e-15]] * 2 + [[1, 0]]
    tiny = make(scores=rows, labels=None, input_kind="probabilities")
    assert tiny.logits[2, 1] == pytest.approx(np.log(1e-15))
    binary = make(scores=[0.0, 1.0, 0.5], labels=[0, 1, 1], input_kind="probabilities")
    assert np.isfinite(binary.logits).all()


def test_sums_are_rescaled_only_when_asked_or_nearly_right():
    near = [[0.5, 0.5, 0.005]] * 3
    assert codes(make(scores=near, input_kind="probabilities")) == ["renormalised"]
    far = [[0.5, 0.5, 0.5]] * 3
    with pytest.raises(DataError, match="do not sum to 1") as caught:
        make(scores=far, input_kind="probabilities")
    assert [a.setting for a in caught.value.answers] == ["input_kind", "renormalise"]
    own = make(scores=far, input_kind="probabilities", renormalise=True)
    assert codes(own) == ["renormalised"]


def test_confidence_files_know_what_was_right():
    own = Predictions.from_arrays(
        input_kind="confidence", confidence=[0.5, 1.0], correct=[0, 1]
    )
    assert own.logits is None
    assert own.n_classes == 0
    assert own.correct.tolist() == [False, True]
    assert own.is_labelled.all()


@pytest.mark.parametrize(
    ("changes", "words", "where"),
    [
        ({"scores": Z[:0], "labels": []}, "no rows", ""),
        ({"scores": np.zeros((3, 0))}, "shape", ""),
        ({"scores": np.zeros((3, 2, 2))}, "shape", ""),
        ({"scores": [["a", "b"]] * 3}, "not numbers", ""),
        ({"scores": None}, "shape|not numbers|nan", ""),
        ({"scores": np.where(Z == 3, np.nan, Z)}, "nan", "column 3, row 2"),
        ({"scores": np.where(Z == 3, np.inf, Z)}, "inf", "column 3, row 2"),
        ({"scores": np.full((3, 3), -np.inf)}, "every class", "row 1"),
        ({"labels": [0, 1]}, "Labels have shape", ""),
        ({"labels": [0.0, 1.0, 2.0]}, "type float64", ""),
        ({"labels": [0, 3, 1]}, "label 3", "row 2"),
        ({"labels": [0, 1, -2]}, "label -2", "row 3"),
        ({"classes": ("a", "b")}, "2 class names", ""),
        ({"classes": ("a", "b", "a")}, "'a'", ""),
        ({"input_kind": "odds"}, "Unknown", ""),
        ({"scores": -Z, "input_kind": "probabilities"}, "probability is -", "row 1"),
        ({"scores": Z * 0, "input_kind": "probabilities"}, "sum to 1", ""),
        ({"features": np.ones((2, 2))}, "Features", ""),
        ({"features": np.ones((3, 0))}, "Features", ""),
        (
            {"features": {"a": np.full((3, 1), np.nan)}},
            "A feature is nan",
            "row 1, feature 1",
        ),
        ({"is_ood": [True]}, "is_ood", ""),
        ({"file_rows": [1]}, "file_rows", ""),
        ({"metadata": pd.DataFrame({"a": [1]})}, "metadata", ""),
        ({"roles": ColumnRoles(group="g")}, "no column 'g'", ""),
        ({"roles": ColumnRoles(slices=("s",))}, "no column 's'", ""),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(changes, words, where):
    with pytest.raises(DataError, match=words) as caught:
        make(**changes)
    assert where in caught.value.where
    assert caught.value.how_to_fix


@pytest.mark.parametrize(
    ("confidence", "correct", "words"),
    [
        ([0.5, 1.2], [0, 1], "1.2"),
        ([0.5, np.nan], [0, 1], "nan"),
        ([0.5, 0.6], [0, 2], "0 or 1"),
        ([0.5, 0.6], [1], "shape"),
        ([0.5, 0.6], None, "which predictions were right"),
        (None, [1], "which predictions were right"),
    ],
)
def test_confidences_are_checked(confidence, correct, words):
    with pytest.raises(DataError, match=words):
        Predictions.from_arrays(
            input_kind="confidence", confidence=confidence, correct=correct
        )


def with_column(role, values):
    table = pd.DataFrame({role: values})
    return make(metadata=table, roles=ColumnRoles(**{role: role}))


def test_columns_play_their_roles():
    own = with_column("group", ["a", None, "a"])
    assert own.group_codes()[0] == own.group_codes()[2] != own.group_codes()[1]
    assert codes(own) == ["missing-group"]
    assert len(set(with_column("group", [None] * 3).group_codes())) == 3
    assert with_column("weight", [1, 2, 0]).sample_weight().tolist() == [1.0, 2.0, 0.0]
    days = with_column("time", ["2026-02-01", "2026-01-31T12:00", "2026-02-01"])
    assert days.time_order().tolist() == [2, 1, 2]
    assert with_column("time", [3.5, -1, 3.5]).time_order().tolist() == [2, 1, 2]
    assert codes(with_column("id", ["a", "b", "a"])) == ["repeated-id"]
    plain = make()
    assert plain.group_codes() is plain.sample_weight() is plain.time_order() is None
    assert own.roles.named() == {"group": "group"}


@pytest.mark.parametrize(
    ("role", "values", "words"),
    [
        ("weight", [1, -1, 1], "not negative"),
        ("weight", [1, "x", 1], "not negative"),
        ("weight", [1, np.nan, 1], "not negative"),
        ("weight", [0, 0, 0], "All weights are 0"),
        ("time", ["2026-01-01", "soon", "2026-01-01"], "'soon' is not a time"),
        ("time", [1.0, np.nan, 2.0], "not a time"),
    ],
)
def test_columns_that_cannot_play_their_role(role, values, words):
    with pytest.raises(DataError, match=words):
        with_column(role, values)


# --------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_of_the_content():
    assert make().fingerprint == make(scores=Z.copy(), name="other").fingerprint
    assert make().fingerprint == make(scores=np.asfortranarray(Z)).fingerprint
    table = pd.DataFrame({"a": [1, 2, 3]})
    group = ColumnRoles(group="a")
    variants = [
        make(),
        make(scores=Z + np.eye(3) * 1e-15),
        make(scores=Z.astype(np.float32)),
        make(labels=[1, 2, 0]),
        make(labels=None),
        make(classes=("a", "b", "c")),
        make(classes=("b", "a", "c")),
        make(scores=[[0.2, 0.3, 0.5]] * 3, input_kind="probabilities"),
        make(scores=np.log([[0.2, 0.3, 0.5]] * 3)),
        make(metadata=table),
        make(metadata=table.astype(str)),
        make(metadata=table.rename(columns={"a": "b"})),
        make(metadata=table[::-1]),
        make(metadata=table, roles=group),
        make(metadata=table.assign(b=[4, 5, 6])),
        make(features=np.ones((3, 2))),
        make(features={"layer": np.ones((3, 2))}),
        make(features=np.ones((3, 2), np.float32)),
        make(is_ood=[0, 0, 1]),
        make(is_ood=[0, 1, 0]),
        make(file_rows=[2, 3, 4]),
    ]
    assert len({own.fingerprint for own in variants}) == len(variants)


def test_the_identity_of_a_study_tells_files_of_the_same_rows_apart():
    note = Note("decimal-comma", "info", "0,5 was read as 0.5.")
    given = [make(), make(name="other"), make(notes=(note,))]
    studies = [Study(evaluation=own) for own in given]
    studies.append(Study(evaluation=make(), fit=make(name="other")))
    assert len({own.identity for own in studies}) == len(studies)
    assert len({own.fingerprint for own in studies[:3]}) == 1
    assert Study(evaluation=make()).identity == studies[0].identity


def test_a_study_has_a_fingerprint_of_all_its_parts():
    own, other = make(), make(labels=[0, 0, 0])
    head = Head(np.ones((3, 2)), np.zeros(3))
    studies = [
        Study(own),
        Study(other),
        Study(own, fit=other),
        Study(own, reference=other),
        Study(own, copies=(other,)),
        Study(own, ood={"x": other}),
        Study(own, ood={"y": other}),
        Study(own, models={"x": other}),
        Study(own, head=head),
        Study(own, head=Head(np.ones((3, 2)), np.ones(3))),
    ]
    assert len({study.fingerprint for study in studies}) == len(studies)
    assert Study(own).fingerprint == Study(make()).fingerprint
    with pytest.raises(TypeError):
        studies[5].ood["z"] = own


def test_the_parts_of_a_study_fit_together():
    with pytest.raises(DataError, match="classes"):
        Study(make(), fit=make(classes=("a", "b", "c")))
    with pytest.raises(DataError, match="rows"):
        Study(make(), copies=(make(scores=Z[:2], labels=[0, 1]),))
    with pytest.raises(DataError, match="last layer"):
        Head(np.ones((3, 2)), np.zeros(2))
    many = tuple(f"c{i}" for i in range(7))
    wide = make(scores=np.zeros((3, 7)), labels=[0, 0, 0], classes=many)
    with pytest.raises(DataError, match="2 more"):
        Study(make(), fit=wide)


def test_rows_match_by_id_whatever_its_type():
    whole = with_column("id", [7, 8, 9])
    for other in ([9.0, 7.0, 8.0], ["9", "7", "8"]):
        assert matching_rows(whole, with_column("id", other)).tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="missing, the first is '9'"):
        matching_rows(whole, with_column("id", [7, 8, 10]))
    with pytest.raises(DataError, match="more than once"):
        matching_rows(whole, with_column("id", [7, 8, 8]))
    assert matching_rows(make(), whole).tolist() == [0, 1, 2]


def test_arrays_are_neither_shared_nor_writable():
    z, h = np.zeros((3, 2)), np.ones((3, 4))
    own = Predictions.from_arrays(z, [0, 1, 0], features=h)
    z[0, 0] = h[0, 0] = np.nan
    assert np.isfinite(own.logits).all()
    assert np.isfinite(own.features).all()
    for array in (own.logits, own.labels, own.features, own.file_rows):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)


def test_last_layer_fits_classes_and_features():
    own = Predictions.from_arrays(np.zeros((3, 4)), features=np.ones((3, 5)))
    Study(own, head=Head(np.ones((4, 5)), np.zeros(4)))
    with pytest.raises(DataError, match="has 3 classes"):
        Study(own, head=Head(np.ones((3, 5)), np.zeros(3)))
    with pytest.raises(DataError, match="takes 6 features"):
        Study(own, head=Head(np.ones((4, 6)), np.zeros(4)))
