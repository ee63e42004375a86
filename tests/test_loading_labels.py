"""Labels meet the classes they mean, or the file asks: by name, value, then place."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from core.loading import DataError, read_predictions


def read(header, *rows, **overrides):
    return read_predictions("\n".join((header, *rows)).encode(), **overrides)


def parquet(table):
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def asked(*args, **overrides):
    with pytest.raises(DataError) as caught:
        read(*args, **overrides)
    return [answer.flag for answer in caught.value.answers]


# --- two columns may be the label -----------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [("class", "actual"), ("class", "gt"), ("label", "target")]
)
def test_two_columns_named_as_labels_are_a_question(first, second):
    file = (f"{first},{second},prob_cat,prob_dog", "cat,dog,.8,.2", "dog,dog,.1,.9")
    flags = [f"--label-column {name}" for name in (first, second)]
    assert sorted(asked(*file)) == sorted(flags)
    rows = read(*file, label_column=second)
    np.testing.assert_array_equal(rows.labels, [1, 1])


def test_the_score_of_a_predicted_class_is_a_confidence():
    file = ("label,score,gold", "POS,.98,NEG", "NEG,.91,NEG", "POS,.6,POS")
    assert sorted(asked(*file)) == ["--label-column gold", "--label-column label"]
    rows = read(*file, label_column="gold")
    assert rows.input_kind == "confidence"
    np.testing.assert_array_equal(rows.correct, [False, True, True])
    np.testing.assert_array_equal(rows.confidence, [0.98, 0.91, 0.6])
    low = read(*file, "NEG,.2,NEG", label_column="gold")
    assert low.input_kind == "probabilities"


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("label,class", ("cat,cat", "dog,dog")),  # the same cells twice
        ("label,category", ("cat,small", "dog,large")),  # other values
        ("label,class_id", ("cat,0", "dog,1")),  # their numbers
        ("y_true,class", ("cat,dog", "dog,dog")),  # surely the truth
    ],
)
def test_what_surely_is_the_label_is_no_question(header, cells):
    rows = read(f"{header},prob_cat,prob_dog", *(f"{c},.8,.2" for c in cells))
    np.testing.assert_array_equal(rows.labels, [0, 1])


# --- one score ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prob_0", "p0", "proba_class_0", "logit_0"])
def test_one_score_called_0_is_a_question(name):
    file = (f"{name},label", ".1,1", ".8,0")
    assert asked(*file) == ["--positive-class 0", "--positive-class 1"]
    for positive, codes in (("0", [0, 1]), ("1", [1, 0])):
        rows = read(*file, positive_class=positive)
        assert rows.classes[1] == positive
        np.testing.assert_array_equal(rows.labels, codes)


def test_one_score_called_false_or_negative():
    rows = read("prob_False,label", ".1,1", ".8,0")
    assert rows.classes == ("not False", "False")
    np.testing.assert_array_equal(rows.labels, [0, 1])
    table = pd.DataFrame({"prob_False": [0.1, 0.8], "label": [True, False]})
    np.testing.assert_array_equal(read_predictions(parquet(table)).labels, [0, 1])
    file = ("prob_negative,label", ".1,1", ".8,0")
    assert asked(*file) == ["--positive-class 0", "--positive-class 1"]
    rows = read(*file, positive_class="0")
    assert rows.classes == ("not negative", "negative")
    np.testing.assert_array_equal(rows.labels, [0, 1])


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("Yes", "No"), "Yes"),
        (("pos", "neg"), "pos"),
        (("toxic", "non-toxic"), "toxic"),
        (("2", "1"), "2"),
    ],
)
def test_labels_that_say_what_the_score_is_for(labels, positive):
    rows = read("score,label", f".9,{labels[0]}", f".2,{labels[1]}")
    assert rows.classes[1] == positive
    np.testing.assert_array_equal(rows.labels, [1, 0])


def test_labels_that_do_not_say_what_the_score_is_for():
    file = ("score,label", ".9,case", ".2,control")
    assert asked(*file) == ["--positive-class case", "--positive-class control"]
    rows = read(*file, positive_class="case")
    np.testing.assert_array_equal(rows.labels, [1, 0])
    rows = read("prob_case,label", *file[1:])
    np.testing.assert_array_equal(rows.labels, [1, 0])


def test_a_class_called_na_is_a_question():
    file = ("prob_EU,label", ".9,EU", ".2,NA", ".3,")
    assert asked(*file) == ["--positive-class EU"]
    rows = read(*file, positive_class="EU")
    np.testing.assert_array_equal(rows.labels, [1, -1, -1])
    rows = read("prob_EU,label", ".9,EU", ".2,", ".3,")
    np.testing.assert_array_equal(rows.labels, [1, -1, -1])


# --- several scores -------------------------------------------------------------------


def test_true_and_false_match_1_and_0_by_value():
    rows = read("prob_True,prob_False,label", ".9,.1,1", ".2,.8,0")
    np.testing.assert_array_equal(rows.labels, [0, 1])
    assert not any(note.severity == "question" for note in rows.notes)
    table = pd.DataFrame({"prob_True": [0.9, 0.2], "prob_False": [0.1, 0.8]})
    rows = read_predictions(parquet(table.assign(label=[True, False])))
    np.testing.assert_array_equal(rows.labels, [0, 1])
    rows = read("prob_1,prob_0,label", ".9,.1,True", ".2,.8,False")
    np.testing.assert_array_equal(rows.labels, [0, 1])


@pytest.mark.parametrize("names", ["Yes,No", "prob_positive,prob_negative"])
def test_words_that_mean_1_and_0_go_before_the_place_and_ask(names):
    file = (f"{names},label", ".9,.1,1", ".2,.8,0")
    rows = read(*file)
    np.testing.assert_array_equal(rows.labels, [0, 1])
    assert "labels-by-meaning" in [note.code for note in rows.notes]
    rows = read(*file, label_base="0")
    np.testing.assert_array_equal(rows.labels, [1, 0])
    turned = read("prob_no,prob_yes,label", ".9,.1,0", ".2,.8,1")
    np.testing.assert_array_equal(turned.labels, [0, 1])
    assert "labels-by-meaning" not in [note.code for note in turned.notes]


def test_names_that_are_numbers_match_by_value():
    rows = read("logit_00,logit_02,logit_01,label", "2,0,1,0", "0,2,1,2", "0,1,2,1")
    np.testing.assert_array_equal(rows.labels, [0, 1, 2])
    rows = read("prob_0.5,prob_1.0,label", ".9,.1,0.5", ".2,.8,1.0")
    np.testing.assert_array_equal(rows.labels, [0, 1])
    names = sorted(f"{i}.0" for i in range(12))
    header = ",".join(f"logit_{name}" for name in names)
    cells = ",".join(f"{i}.5" for i in range(12))
    rows = read(f"{header},label", f"{cells},10.0", f"{cells},2.0")
    np.testing.assert_array_equal(
        rows.labels, [names.index("10.0"), names.index("2.0")]
    )


@pytest.mark.parametrize("stem", ["V", "X", "G"])
def test_columns_that_count_from_1_without_the_last_class_are_a_question(stem):
    header = ",".join(f"{stem}{i}" for i in (1, 2, 3))
    file = (f"{header},label", ".8,.1,.1,1", ".1,.8,.1,2")
    assert asked(*file) == ["--label-base 1", "--label-base 0"]
    for base in (0, 1):
        rows = read(*file, label_base=str(base))
        np.testing.assert_array_equal(rows.labels, [1 - base, 2 - base])
    rows = read("prob_01,prob_02,prob_03,label", *file[1:])
    np.testing.assert_array_equal(rows.labels, [0, 1])
    rows = read(f"{header},label", ".8,.1,.1,0", ".1,.8,.1,2")
    np.testing.assert_array_equal(rows.labels, [0, 2])


# --- truths and predictions -----------------------------------------------------------


def test_truths_and_predictions_that_are_coded_differently():
    header = "true_label,pred_label,confidence"
    with pytest.raises(DataError, match="no value in common"):
        read(header, "cat,0,0.9", "dog,1,0.8")
    with pytest.raises(DataError, match="no value in common"):
        read(header, *["cat,katze,0.9", "dog,hund,0.8"] * 10)
    rows = read(header, "cat,dog,0.9", "cat,emu,0.8")  # two rows may be wrong
    assert not rows.correct.any()


def test_numbered_names_out_of_order_match_by_number_and_ask():
    file = ("C2,C0,C1,label", ".8,.1,.1,2", ".1,.8,.1,0", ".1,.1,.8,1")
    rows = read(*file)
    np.testing.assert_array_equal(rows.labels, [0, 1, 2])
    assert "labels-by-meaning" in [note.code for note in rows.notes]
    np.testing.assert_array_equal(read(*file, label_base="0").labels, [2, 0, 1])
