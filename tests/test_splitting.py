"""Splits: roles disjoint by row and by group, in time, from columns and files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from core.folds import fold_numbers
from core.messages import FitError
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.splitting import make_split, refit_rounds, usable_rows


def rows(n=60, k=3, seed=0, labels=None, name="rows", **columns):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(columns)
    known = {key: key for key in columns if key in ("id", "group", "weight", "time")}
    if "split" in columns:
        known["split"] = "split"
    return Predictions.from_arrays(
        rng.normal(size=(n, k)),
        rng.integers(0, k, n) if labels is None else labels,
        metadata=table if columns else None,
        roles=ColumnRoles(**known),
        name=name,
    )


def assert_disjoint(found, own, groups=None):
    for item in found.rounds:
        parts = [item.test, item.threshold]
        if found.kind != "fit-file":
            parts.append(item.fit)
        assert item.fit.size
        assert item.test.size
        for i, left in enumerate(parts):
            for right in parts[i + 1 :]:
                assert not set(left) & set(right)
                if groups is not None:
                    assert not set(groups[left]) & set(groups[right])
    tested = np.concatenate([item.test for item in found.rounds])
    assert len(set(tested)) == len(tested)
    for number, item in enumerate(found.rounds):
        assert (found.fold[item.test] == number).all()
    assert (found.fold >= 0).sum() == tested.size
    assert np.isin(tested, usable_rows(own)).all()


@given(
    st.integers(2, 80),
    st.integers(2, 4),
    st.sampled_from(["cross-fit", "holdout", "time"]),
    st.sampled_from([None, 2, 5, 30]),
    st.sampled_from([0.0, 0.2, 0.45]),
    st.integers(2, 7),
    st.integers(0, 2**32 - 1),
)
def test_roles_are_disjoint_by_row_and_group(
    n, k, kind, n_groups, threshold, n_folds, seed
):
    rng = np.random.default_rng(seed)
    columns = {"time": rng.integers(0, 12, n), "weight": rng.integers(0, 3, n) + 0.0}
    columns["weight"][0] = 1.0
    groups = None
    if n_groups is not None:
        groups = rng.integers(0, n_groups, n)
        columns["group"] = groups
    own = rows(n, k, labels=rng.integers(-1, k, n), **columns)
    settings = Settings(
        split=kind, n_folds=n_folds, threshold_fraction=threshold, seed=seed
    )
    try:
        found = make_split(Study(own), settings)
    except FitError:
        # Only where there is not enough to divide.
        used = usable_rows(own)
        units = used if groups is None else np.unique(groups[used])
        if kind == "time":
            assert used.size < 20 or threshold > 0.4 or groups is not None
        else:
            assert units.size < (3 if threshold else 2)
        return
    assert_disjoint(found, own, groups)
    if kind == "cross-fit":
        assert set(found.test) == set(usable_rows(own))
        if threshold:
            by_round = np.concatenate([item.threshold for item in found.rounds])
            times = np.bincount(by_round, minlength=n)[found.test]
            assert (times == times[0]).all()
            assert times[0] == min(
                max(1, round(threshold * len(found.rounds))), len(found.rounds) - 2
            )
    if kind == "time":
        (item,) = found.rounds
        when = columns["time"]
        assert when[item.fit].max() < when[item.test].min()


def test_folds_are_stratified_and_deterministic():
    labels = np.repeat([0, 1], [50, 30])
    numbers = fold_numbers(labels, None, 5, 0)
    for label, count in ((0, 10), (1, 6)):
        assert (np.bincount(numbers[labels == label], minlength=5) == count).all()
    assert (numbers == fold_numbers(labels, None, 5, 0)).all()
    assert (numbers != fold_numbers(labels, None, 5, 1)).any()


def test_rare_classes_are_dealt_without_complaint():
    numbers = fold_numbers(np.repeat([0, 1, 2, 3], [50, 30, 2, 1]), None, 5, 0)
    assert np.bincount(numbers).tolist() == [17, 17, 17, 16, 16]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 7),
    st.integers(1, 6),
    st.integers(0, 1),
    st.sampled_from(["rows", "groups", "many groups"]),
)
def test_folds_are_those_of_scikit_learn(seed, n_folds, n_classes, gap, kind):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 300))
    labels = np.r_[
        np.repeat(np.arange(n_classes), n_folds), rng.integers(0, n_classes, n)
    ]
    labels = rng.permutation(labels) * (gap + 1)
    groups = rng.integers(0, 60, labels.size) * 3
    options = {"n_splits": n_folds, "shuffle": True, "random_state": seed}
    with pytest.MonkeyPatch.context() as patch:
        if kind == "rows":
            made, groups = StratifiedKFold(**options), None
        elif kind == "groups":
            made = StratifiedGroupKFold(**options)
        else:
            patch.setattr("core.folds._STRATIFY_CELLS", 10)
            made = GroupKFold(**options)
        found = fold_numbers(labels, groups, n_folds, seed)
    for number, (_, test) in enumerate(made.split(labels, labels, groups)):
        np.testing.assert_array_equal(np.flatnonzero(found == number), np.sort(test))


def test_many_groups_are_dealt_without_the_table(monkeypatch):
    monkeypatch.setattr("core.folds._STRATIFY_CELLS", 10)
    groups = np.repeat(np.arange(20), 3)
    numbers = fold_numbers(np.arange(60) % 3, groups, 4, 0)
    assert set(numbers) == {0, 1, 2, 3}
    for group in range(20):
        assert len(set(numbers[groups == group])) == 1


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_repeats_are_other_splits(seed):
    study, settings = Study(rows()), Settings(seed=seed)
    folds = [make_split(study, settings, repeat=i).fold for i in range(3)]
    assert (folds[0] != folds[1]).any()
    assert (folds[1] != folds[2]).any()
    assert len(refit_rounds(study, settings, 3)) == 3


def test_the_split_column_gives_the_roles():
    names = np.array(["Calibration ", "test", "threshold", "train"])[np.arange(40) % 4]
    own = rows(40, split=names)
    found = make_split(Study(own), Settings())
    assert found.kind == "file"
    assert found.rows == "test"
    (item,) = found.rounds
    assert item.fit.tolist() == list(range(0, 40, 4))
    assert item.test.tolist() == list(range(1, 40, 4))
    assert item.threshold.tolist() == list(range(2, 40, 4))
    assert [note.code for note in found.notes] == ["train-left-out"]
    assert (
        found.sentence == "split column: 10 fit rows, 10 test rows, 10 threshold rows"
    )


def test_training_rows_fit_only_where_there_is_nothing_else_and_raise_a_question():
    own = rows(40, split=np.array(["train", "test"])[np.arange(40) % 2])
    found = make_split(Study(own), Settings())
    assert found.kind == "file"
    assert found.notes[0].code == "fit-on-train"
    assert found.notes[0].severity == "question"


@pytest.mark.parametrize("kind", ["cross-fit", "holdout"])
def test_training_rows_are_not_tested_by_a_split_chosen_by_hand(kind):
    names = np.array(["val", "test", "train"])[np.arange(60) % 3]
    found = make_split(Study(rows(60, split=names)), Settings(split=kind))
    assert not (names[np.concatenate([found.test, found.fit])] == "train").any()


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["a", "b"], "split-not-used"),
        (["test", "test"], "split-not-used"),
        (["fit", "other"], "split-not-used"),
    ],
)
def test_a_column_that_names_no_roles_is_not_used(names, code):
    own = rows(40, split=np.array(names)[np.arange(40) % 2])
    found = make_split(Study(own), Settings())
    assert found.kind == "cross-fit"
    assert code in [note.code for note in found.notes]


def test_a_group_in_two_roles_is_cross_fitted():
    names = np.array(["fit", "test"])[np.arange(60) % 2]
    groups = np.arange(60) // 6
    own = rows(60, split=names, group=groups)
    found = make_split(Study(own), Settings())
    assert found.kind == "cross-fit"
    assert "group-in-two-roles" in [note.code for note in found.notes]
    assert_disjoint(found, own, groups)


def test_a_group_across_time_is_tested_late_and_fitted_never():
    time = np.arange(40)
    groups = np.where(np.isin(time, (2, 35)), 99, time)
    own = rows(40, time=time, group=groups)
    found = make_split(Study(own), Settings(split="time"))
    (item,) = found.rounds
    assert 2 not in item.fit
    assert 35 in item.test
    assert [note.code for note in found.notes] == ["group-across-time"]


def test_a_fit_file_and_what_it_shares_with_the_evaluation():
    fit = rows(30, seed=1, name="fit", group=np.r_[np.arange(29.0), np.nan])
    own = rows(20, group=np.arange(25, 45))
    found = make_split(Study(own, fit=fit), Settings())
    assert found.kind == "fit-file"
    # 25 to 28 are 25.0 to 28.0 there; the row without a group shares nothing.
    assert found.rounds[0].test.tolist() == list(range(4, 20))
    assert found.notes[0].code == "shared-with-fit-file"
    assert (found.fold[:4] == -1).all()
    every = rows(5, name="fit", group=np.arange(25, 30))
    with pytest.raises(FitError, match="Every evaluation row"):
        make_split(Study(rows(5, group=np.arange(25, 30)), fit=every), Settings())


def test_rows_of_weight_zero_have_no_role():
    weight = (np.arange(60) % 2).astype(float)
    found = make_split(Study(rows(60, weight=weight)), Settings())
    assert (found.test % 2 == 1).all()
    assert (found.fit % 2 == 1).all()


@pytest.mark.parametrize(
    ("study", "settings", "words"),
    [
        (Study(rows(1)), Settings(), "only 1"),
        (Study(rows(30, labels=np.full(30, -1))), Settings(), "only 0"),
        (Study(rows(30, group=np.zeros(30, int))), Settings(), "only 1 group in"),
        (Study(rows(30)), Settings(split="file"), "no split column"),
        (Study(rows(30)), Settings(split="time"), "no time column"),
        (Study(rows(30, time=np.zeros(30))), Settings(split="time"), "leaves no rows"),
        (Study(rows(2)), Settings(threshold_fraction=0.2), "Three roles"),
        (
            Study(rows(9), fit=rows(9, labels=np.full(9, -1), name="fit")),
            Settings(),
            "no labelled row",
        ),
    ],
)
def test_too_little_to_divide_is_said(study, settings, words):
    with pytest.raises(FitError, match=words):
        make_split(study, settings)


def test_few_units_make_fewer_folds():
    found = make_split(Study(rows(3)), Settings())
    assert len(found.rounds) == 3
    assert [note.code for note in found.notes] == ["fewer-folds"]
    assert found.rows == "cross-fitted"
    assert found.sentence == "3-fold cross-fit"


def test_refits_of_a_fixed_split_draw_whole_groups_of_fit_rows():
    names = np.array(["fit", "test"])[np.arange(80) % 2]
    groups = np.where(names == "fit", np.arange(80) // 8, 100 + np.arange(80) // 8)
    own = rows(80, split=names, group=groups)
    base = make_split(Study(own), Settings()).rounds[0]
    for found in refit_rounds(Study(own), Settings(), 4):
        (item,) = found.rounds
        assert item.test.tolist() == base.test.tolist()
        assert set(item.fit) <= set(base.fit)
        counts = np.bincount(item.fit, minlength=80)
        for group in np.unique(groups[base.fit]):
            assert (
                len(set(counts[groups == group][names[groups == group] == "fit"])) == 1
            )


def test_confidence_files_are_divided_by_outcome():
    own = Predictions.from_arrays(
        input_kind="confidence",
        confidence=np.full(40, 0.5),
        correct=np.arange(40) % 4 < 1,
    )
    found = make_split(Study(own), Settings())
    for item in found.rounds:
        assert own.correct[item.test].sum() == 2


def test_a_split_column_asked_for_by_name_is_used_or_refused():
    own = rows(30, split=["a", "b", "c"] * 10)
    assert make_split(Study(own), Settings()).kind == "cross-fit"
    with pytest.raises(FitError, match="does not name fit and test rows"):
        make_split(Study(own), Settings(split="file"))


def test_threshold_share_beside_a_file_split_is_noted():
    own = rows(30, split=["calibration", "test", "test"] * 10)
    found = make_split(Study(own), Settings(threshold_fraction=0.2))
    assert [note.code for note in found.notes] == ["threshold-share-not-used"]


def test_threshold_share_is_rounded_to_folds():
    own = rows(100)
    found = make_split(Study(own), Settings(threshold_fraction=0.4))
    assert [item.threshold.size for item in found.rounds] == [40] * 5
    assert found.sentence == "5-fold cross-fit, 40 threshold rows in each round"
