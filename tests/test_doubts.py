"""Warnings in words: each fires, stops at its threshold, and stays silent by chance."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core.doubts import _Evidence, _identical, doubts
from core.loading import open_study
from core.measurement import measure, rows_of
from core.messages import FitError
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.softmax import softmax
from core.splitting import make_split, usable_rows
from core.uncertainty import Estimate
from core.verdict import Verdict

CALIBRATED = Verdict("calibrated", "", "")
NUMBERS = {
    "gap": Estimate(0.002, -0.01, 0.014, n=900),
    "ece": Estimate(0.02, null_low=0.01, null_high=0.03, n=900),
}


def measured(own, settings=None):
    """Return what doubts are raised from."""
    try:
        split = make_split(Study(own), settings or Settings())
    except FitError:
        split = None
    return own, rows_of(own), usable_rows(own), split


def noted(own, settings=None, **known):
    """Return code -> text of the doubts about some rows."""
    return {note.code: note.text for note in doubts(*measured(own, settings), **known)}


def rows(scores, labels, kind="logits", roles=None, **columns):
    table = pd.DataFrame(columns) if columns else None
    roles = roles or {name: name for name in columns}
    return Predictions.from_arrays(
        scores,
        labels,
        input_kind=kind,
        metadata=table,
        roles=ColumnRoles(**roles),
    )


def draw(n=600, k=4, t=1.0, seed=0, spread=2.0):
    """Return logits t times too large, and labels drawn from the right ones."""
    rng = np.random.default_rng(seed)
    z = spread * rng.normal(size=(n, k))
    p = softmax(z)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return z * t, y


class TestLabelsAgainstColumns:
    @pytest.mark.parametrize("k", [2, 3, 10])
    def test_a_cycle_of_the_classes_is_found(self, k):
        z, y = draw(600, k, spread=4)
        found = noted(rows(z, (y + 1) % k))
        assert list(found) == ["labels-permuted"]
        text = found["labels-permuted"]
        assert "'class 1' read as 'class 0'" in text
        assert "600 rows" in text
        assert "measured on the other 300" in text

    def test_the_figures_are_those_of_the_rows(self):
        z, y = draw(600, 4, spread=4)
        text = noted(rows(z, (y + 1) % 4))["labels-permuted"]
        shown = [float(x) for x in re.findall(r"(\d+\.\d) %", text)]
        predicted, wrong = z.argmax(axis=1), (y + 1) % 4
        chance = sum((wrong == c).mean() * (predicted == c).mean() for c in range(4))
        expected = [(predicted == wrong).mean(), chance, softmax(z).max(axis=1).mean()]
        assert shown[:3] == pytest.approx(100 * np.array(expected), abs=0.051)
        assert shown[3] == pytest.approx(100 * (predicted == y).mean(), abs=5)

    def test_shuffled_rows_are_at_chance(self):
        z, y = draw(600, 4, spread=4)
        mixed = np.random.default_rng(1).permutation(y)
        found = noted(rows(z, mixed))
        assert list(found) == ["accuracy-at-chance"]
        assert "in the same order?" in found["accuracy-at-chance"]

    def test_two_classes_below_chance_are_not_called_chance(self):
        z, y = draw(600, 2, spread=1)
        y = np.where(np.random.default_rng(1).random(600) < 0.9, 1 - y, y)
        accuracy = (z.argmax(axis=1) == y).mean()
        text = " ".join(noted(rows(3 * z, y)).values())
        assert "below chance" in text
        assert f"would be {100 * (1 - accuracy):.1f} %" in text
        assert "renaming" not in text

    def test_a_poor_but_real_model_is_not_at_chance(self):
        z, y = draw(600, 4, t=4, spread=0.7)
        assert (z.argmax(axis=1) == y).mean() < 0.5
        assert noted(rows(z, y)) == {}

    def test_two_of_ten_classes_exchanged_are_no_chance(self):
        z, y = draw(600, 10, spread=4)
        swapped = np.where(y < 2, 1 - y, y)
        assert noted(rows(z, swapped)) == {}

    @pytest.mark.parametrize(("n", "is_said"), [(49, False), (50, True)])
    def test_threshold_of_rows(self, n, is_said):
        z, y = draw(n, 4, spread=20)
        assert ("labels-permuted" in noted(rows(z, (y + 1) % 4))) == is_said

    def test_modest_scores_at_chance_claim_nothing(self):
        z, _ = draw(600, 4, t=0.05)
        y = np.random.default_rng(1).integers(0, 4, 600)
        assert noted(rows(z, y)) == {}

    def test_a_rare_class_that_is_never_predicted_is_fine(self):
        rng = np.random.default_rng(0)
        p = rng.uniform(0.01, 0.2, 800)
        assert noted(rows(p, (rng.random(800) < p).astype(int), "probabilities")) == {}


class TestSoftmaxTwice:
    @pytest.mark.parametrize("k", [2, 3, 10, 200])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_fires(self, k, dtype):
        z, y = draw(600, k, spread=4)
        twice = softmax(softmax(z)).astype(dtype)
        found = noted(rows(twice, y, "probabilities"))
        assert list(found) == ["softmax-twice"]
        bound = 100 * np.e / (np.e + k - 1)
        assert f"cannot pass {bound:.1f} %" in found["softmax-twice"]
        assert "600 rows" in found["softmax-twice"]

    def test_one_row_beyond_the_bound_ends_it(self):
        z, y = draw(600, 3, spread=4)
        twice = softmax(softmax(z))
        assert "softmax-twice" in noted(rows(twice, y, "probabilities"))
        twice[7] = [0.6, 0.2, 0.2]
        assert noted(rows(twice, y, "probabilities")) == {}

    @pytest.mark.parametrize(("n", "is_said"), [(19, False), (20, True)])
    def test_threshold_of_rows(self, n, is_said):
        z, y = draw(n, 10, spread=20)
        twice = softmax(softmax(z))
        assert ("softmax-twice" in noted(rows(twice, y, "probabilities"))) == is_said

    @pytest.mark.parametrize("seed", range(20))
    def test_modest_honest_scores_do_not(self, seed):
        rng = np.random.default_rng(seed)
        p = 1 / (1 + np.exp(-rng.uniform(-1, 1, 500)))
        y = (rng.random(500) < p).astype(int)
        assert noted(rows(p, y, "probabilities")) == {}


class TestDegenerate:
    def test_constant_scores(self):
        z = np.tile([2.0, 1.0, 0.0], (20, 1))
        y = np.arange(20) % 3
        found = noted(rows(z, y))
        assert list(found) == ["one-confidence"]
        assert "All 20 rows" in found["one-confidence"]
        assert "one-confidence" not in noted(rows(z[:19], y[:19]))
        z[3] = [3.0, 1.0, 0.0]
        assert "one-confidence" not in noted(rows(z, y))

    def test_saturated_scores_are_not_called_constant(self):
        z, y = draw(300, 3, spread=1)
        assert "one-confidence" not in noted(rows(1000 * z.round(1), y))
        z[:, 1] = 50
        assert set(noted(rows(z, y))) >= {"one-prediction"}

    def test_constant_confidence(self):
        own = Predictions.from_arrays(
            input_kind="confidence", confidence=[0.75] * 40, correct=[1, 1, 1, 0] * 10
        )
        assert "75.0 %" in noted(own)["one-confidence"]

    def test_always_one_class(self):
        z, y = draw(300, 3)
        z[:, 1] = z.max(axis=1) + 1
        found = noted(rows(z, y))
        assert list(found) == ["one-prediction"]
        assert "All 300 predictions are 'class 1'" in found["one-prediction"]
        assert f"{int((y != 1).sum())} labels" in found["one-prediction"]
        z[5, 2] = z[5, 1] + 1
        assert "one-prediction" not in noted(rows(z, y))

    @pytest.mark.parametrize(("n_others", "is_said"), [(9, False), (10, True)])
    def test_threshold_of_other_labels(self, n_others, is_said):
        z = np.random.default_rng(0).normal(-3, 0.5, 30)
        y = (np.arange(30) < n_others).astype(int)
        assert ("one-prediction" in noted(rows(z, y))) == is_said


class TestTrainingRows:
    @pytest.mark.parametrize(
        ("n", "n_wrong", "is_said"), [(49, 0, False), (50, 0, True), (400, 1, False)]
    )
    def test_threshold(self, n, n_wrong, is_said):
        z, _ = draw(n, 4)
        y = z.argmax(axis=1)
        y[:n_wrong] = z[:n_wrong].argmin(axis=1)
        assert ("looks-like-training-rows" in noted(rows(z, y))) == is_said

    @pytest.mark.parametrize(("n", "is_said"), [(60, False), (180, False), (200, True)])
    def test_a_few_rows_of_a_good_model_are_right_by_chance(self, n, is_said):
        # Confidence 98.4 %: 60 rows without an error are a coincidence.
        z = np.zeros((n, 3))
        z[np.arange(n), np.arange(n) % 3] = 4.8 + 0.01 * np.arange(n) / n
        found = noted(rows(z, np.arange(n) % 3))
        assert ("looks-like-training-rows" in found) == is_said
        if n == 60:
            assert "looks-like-training-rows" in noted(rows(z / 2, np.arange(n) % 3))


class TestIdInTwoRoles:
    def own(self, ids, **more):
        z, y = draw(200, 4)
        split = ["calibration", "test"] * 100
        return rows(z, y, id=ids, split=split, **more)

    def test_fires_within_a_file(self):
        ids = [f"case {i // 2}" if i < 6 else f"case {i}" for i in range(200)]
        found = noted(self.own(ids))
        assert list(found) == ["id-in-two-roles"]
        text = found["id-in-two-roles"]
        assert text.startswith("3 of 100 test rows share their id")
        assert "'case 0' (rows 1 and 2)" in text

    def test_same_role_or_no_id_or_random_split_is_silent(self):
        ids = [f"case {i - 2}" if i in (2, 3) else f"case {i}" for i in range(200)]
        assert noted(self.own(ids)) == {}
        assert noted(self.own([None] * 100 + list(range(100)))) == {}
        twice = np.arange(200) // 2
        found = noted(self.own(twice), Settings(split="cross-fit"))
        assert found["id-in-two-roles"].startswith("1")
        assert "rows 1 and 2)" in found["id-in-two-roles"]

    def test_rows_shared_with_a_calibration_file_are_said(self):
        z, y = draw(300, 4)
        fit = rows(z[:200], y[:200], id=np.arange(200))
        own = rows(z[100:], y[100:], id=np.arange(100, 300))
        overview = measure(Study(own, fit=fit), Settings(n_resamples=100))
        said = {note.code: note.text for note in overview.notes}
        assert said["shared-with-fit-file"].startswith("100 evaluation rows")


class TestDuplicatedRows:
    @pytest.mark.parametrize("kind", ["logits", "probabilities"])
    @pytest.mark.parametrize("k", [2, 3, 10])
    def test_a_few_copies_in_fine_scores(self, k, kind):
        z, y = draw(400, k, spread=1)
        p = z if kind == "logits" else softmax(z)
        p, y = np.vstack([p, p[10:20]]), np.append(y, y[10:20])
        found = noted(rows(p, y, kind))
        assert list(found) == ["duplicated-rows"]
        assert "20 of 410 rows" in found["duplicated-rows"]
        assert "rows 11 and 401" in found["duplicated-rows"]

    @pytest.mark.parametrize("decimals", [1, 2])
    def test_many_copies_in_coarse_scores(self, decimals):
        z, y = draw(1000, 2, spread=0.5)
        p = softmax(z)[:, 1].round(decimals)
        assert noted(rows(p, y, "probabilities")) == {}
        # Copies of rows that coincide anyway are told by labels that never differ.
        fine = softmax(z)[:, 1].round(5)
        p, y = np.append(fine, fine[:300]), np.append(y, y[:300])
        assert "duplicated-rows" in noted(rows(p, y, "probabilities"))

    def test_a_file_pasted_twice(self):
        z, y = draw(40, 3, spread=1)
        found = noted(rows(np.vstack([z, z]), np.append(y, y)))
        assert "80 of 80 rows" in found["duplicated-rows"]
        assert "rows 1 and 41" in found["duplicated-rows"]

    @pytest.mark.parametrize(("n_copies", "is_said"), [(1, False), (2, True)])
    def test_threshold_of_copies(self, n_copies, is_said):
        z, y = draw(2000, 5, spread=1)
        z, y = (
            np.vstack([z[n_copies:], z[-n_copies:]]),
            np.append(y[n_copies:], y[-n_copies:]),
        )
        assert ("duplicated-rows" in noted(rows(z, y))) == is_said

    def test_another_label_is_no_copy(self):
        z, y = draw(400, 4, spread=1)
        z, y = np.vstack([z, z[:20]]), np.append(y, (y[:20] + 1) % 4)
        assert noted(rows(z, y)) == {}

    def test_copies_in_one_group_are_known(self):
        z, y = draw(400, 4, spread=1)
        group = np.append(np.arange(400), np.arange(20))
        own = rows(np.vstack([z, z[:20]]), np.append(y, y[:20]), group=group)
        assert noted(own) == {}

    def test_confidence_files(self):
        rng = np.random.default_rng(0)
        c = rng.uniform(0.3, 0.99, 300)
        right = rng.random(300) < c
        again = np.append(c, c[:20]), np.append(right, right[:20])
        own = Predictions.from_arrays(
            input_kind="confidence", confidence=again[0], correct=again[1]
        )
        assert "40 of 320 rows" in noted(own)["duplicated-rows"]

    @pytest.mark.parametrize("seed", range(5))
    def test_leaves_of_a_tree_are_no_copies(self, seed):
        rng = np.random.default_rng(seed)
        leaves = rng.dirichlet(np.ones(4), 30)
        p = leaves[rng.integers(0, 30, 800)]
        y = (rng.random((800, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 3)
        assert noted(rows(p, y, "probabilities")) == {}

    def test_identical_rows_as_a_naive_loop_finds_them(self):
        z, _ = draw(120, 3, seed=3)
        z = z.round(0)
        own = rows(z, np.zeros(120, int))
        unit = _identical(_Evidence(*measured(own), len(own), None, {}))
        same = (z[:, None] == z[None]).all(axis=2)
        np.testing.assert_array_equal(unit[:, None] == unit[None], same)

    def test_ten_thousand_rows_of_a_thousand_classes(self):
        rng = np.random.default_rng(0)
        z = rng.standard_normal((10_000, 1000), dtype=np.float32)
        y = rng.integers(0, 1000, 10_000)
        z[5000:6000], y[5000:6000] = z[:1000], y[:1000]
        known = measured(Predictions.from_arrays(z, y, copy=False))
        start = time.process_time()
        found = {note.code: note.text for note in doubts(*known)}
        assert time.process_time() - start < 0.3
        assert "2,000 of 10,000 rows" in found["duplicated-rows"]

    def test_labels_of_one_class_agree_by_themselves(self):
        z, _ = draw(1000, 3, spread=0.5)
        found = noted(rows(z.round(1), np.zeros(1000, int)))
        assert set(found) == {"one-class"}


class TestNothingToRepair:
    def test_is_said_without_alarm(self):
        z, y = draw(900, 4)
        own = rows(z, y)
        found = doubts(*measured(own), verdict=CALIBRATED, estimates=NUMBERS)
        assert [(note.code, note.severity) for note in found] == [
            ("nothing-to-repair", "info")
        ]
        assert "+0.2 points (-1.0 to +1.4)" in found[0].text
        assert "2.0 %, where a calibrated model shows 1.0 to 3.0 %" in found[0].text

    @pytest.mark.parametrize("kind", ["too-few", "uneven", "overconfident"])
    def test_other_verdicts_say_it_not(self, kind):
        own = rows(*draw(900, 4))
        said = replace(CALIBRATED, kind=kind)
        assert noted(own, verdict=said, estimates=NUMBERS) == {}

    def test_in_a_measurement(self):
        overview = measure(Study(rows(*draw(900, 4))), Settings(n_resamples=200))
        assert overview.verdict.kind == "calibrated"
        assert [note.code for note in overview.notes] == ["nothing-to-repair"]


class TestNoFalseAlarm:
    """Well-behaved files of all sizes and kinds: not one doubt."""

    @pytest.mark.parametrize("k", [2, 3, 10, 100])
    @pytest.mark.parametrize("n", [5, 30, 100, 1000])
    def test_random_models(self, n, k):
        for seed in range(25):
            rng = np.random.default_rng([n, k, seed])
            t, spread = rng.uniform(0.5, 3), rng.uniform(0.5, 4)
            z, y = draw(n, k, t, seed=seed + 100, spread=spread)
            p = softmax(z)
            files = {
                "logits": rows(z, y),
                "float16": rows(z.astype(np.float16).astype(np.float32), y),
                "one decimal": rows(z.round(1), y),
                "float32": rows(p.astype(np.float32), y, "probabilities"),
            }
            right = p.argmax(axis=1) == y
            files["confidence"] = Predictions.from_arrays(
                input_kind="confidence", confidence=p.max(axis=1), correct=right
            )
            files["two decimals"] = Predictions.from_arrays(
                input_kind="confidence",
                confidence=p.max(axis=1).round(2),
                correct=right,
            )
            for name, own in files.items():
                # A file with one label, or with no error, says so rightly.
                found = set(noted(own)) - {"one-class"}
                if right.mean() >= 0.998:
                    found -= {"looks-like-training-rows"}
                assert not found, (name, seed, noted(own))

    @pytest.mark.parametrize("name", ["digits_noisy.csv", "breast_cancer_binary.csv"])
    def test_bundled_samples(self, root, name):
        study, _ = open_study(root / "sample_data" / name, Settings())
        assert noted(study.evaluation) == {}

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_tiny_files(self, n):
        for seed in range(50):
            found = noted(rows(*draw(n, 3, seed=seed)))
            assert set(found) <= {"one-class"}
        same = rows(np.ones((n, 3)), np.zeros(n, int))
        assert set(noted(same)) <= {"one-class"}


def test_the_cost_is_small_beside_an_evaluation(root):
    study, _ = open_study(root / "sample_data" / "digits_noisy.csv", Settings())
    known = measured(study.evaluation)
    doubts(*known)
    times = []
    for _ in range(5):
        start = time.process_time()
        doubts(*known)
        times.append(time.process_time() - start)
    assert min(times) < 0.02


def test_every_doubt_names_figures_and_an_action():
    z, y = draw(600, 4, spread=4)
    files = [
        rows(z, (y + 1) % 4),
        rows(z, np.random.default_rng(1).permutation(y)),
        rows(softmax(softmax(z)), y, "probabilities"),
        rows(np.tile(z[:1], (600, 1)), y),
        rows(np.vstack([z, z]), np.append(y, y)),
    ]
    found = [note for own in files for note in doubts(*measured(own))]
    assert len({note.code for note in found}) == len(files)
    for note in found:
        assert note.severity == ("question" if "?" in note.text else "warning")
        assert re.search(r"\d", note.text)
        assert len(note.text) < 480
