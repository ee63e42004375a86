"""Auto: the lowest cross-validated loss, the reason, and what is exported."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from core.analysis import analyze
from core.calibrators import CALIBRATORS, AutoCalibration, Calibrator
from core.calibrators.auto import DETECTABLE, FEWEST_PER_CLASS, N_FOLDS
from core.export import export, from_json, to_json
from core.folds import fold_numbers
from core.predictions import Predictions, Study
from core.settings import Settings
from core.softmax import softmax


def draw(n=1200, k=4, shift=1.5, seed=0):
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, k))
    p = softmax(z / 2 + shift * np.linspace(-1, 1, k))
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return z, y


def naive_losses(name, z, y, keep):
    """Cross-validate one candidate by hand."""
    fold, found = fold_numbers(y, None, N_FOLDS, 0), np.empty(len(y))
    for number in range(N_FOLDS):
        into = fold == number
        made = CALIBRATORS[name]().fit(z[~into], y[~into])
        made.keeps_predictions_ = keep and not made.is_accuracy_preserving
        log_p = made.transform(z[into])
        found[into] = -log_p[np.arange(len(log_p)), y[into]]
    return found


@pytest.fixture(scope="module")
def shifted():
    z, y = draw()
    return z, y, AutoCalibration().fit(z, y)


def test_the_lowest_loss_wins_with_its_standard_error(shifted):
    z, y, made = shifted
    names = list(made.losses_)
    assert names == [
        *("temperature", "ensemble-temperature"),
        *("structured-vector", "structured-matrix"),
    ]
    losses = {name: naive_losses(name, z, y, keep=True) for name in names}
    for name in names:
        assert made.losses_[name] == pytest.approx(losses[name].mean(), rel=1e-6)
    chosen = made.chosen_.method_id
    assert chosen == min(names, key=lambda name: losses[name].mean())
    step = losses[chosen] - losses["temperature"]
    assert made.difference_ == pytest.approx(step.mean(), rel=1e-4)
    error = step.std(ddof=1) / np.sqrt(step.size)
    assert made.standard_error_ == pytest.approx(error, rel=1e-4)
    assert f"{-step.mean():.3f}"[:5] in made.reason_
    assert re.search(r"paired standard error 0\.0\d+", made.reason_)
    assert "auto-choice" in [note.code for note in made.notes_]


def test_a_gain_that_cannot_be_told_from_luck_is_no_reason():
    z, y = draw(shift=0.0, seed=3)
    made = AutoCalibration().fit(z, y)
    assert made.chosen_.method_id == "temperature"
    lowest = min(made.losses_, key=lambda name: made.losses_[name])
    if lowest != "temperature":
        assert -made.difference_ < DETECTABLE * made.standard_error_
        assert "is not detectable" in made.reason_


def test_predictions_stay_unless_they_may_change(shifted):
    z, y, made = shifted
    new = draw(seed=1)[0]
    assert (made.predict(new) == new.argmax(axis=1)).all()
    assert made.keeps_predictions
    free = AutoCalibration(keep_predictions=False).fit(z, y)
    assert not free.keeps_predictions
    assert (free.predict(new) != new.argmax(axis=1)).any()


def test_few_rows_per_class_get_one_temperature():
    z, y = draw(n=FEWEST_PER_CLASS * 4 - 1)
    made = AutoCalibration().fit(z, y)
    assert made.chosen_.method_id == "temperature"
    assert not made.losses_
    assert "fewer than 20 per class" in made.reason_
    grouped = AutoCalibration().fit(*draw(200), groups=np.arange(200) // 60)
    assert grouped.chosen_.method_id == "temperature"


def test_two_classes_have_candidates_of_their_own():
    z, y = draw(k=2, shift=0.8)
    made = AutoCalibration().fit(z, y)
    assert set(made.losses_) == {"temperature", "ensemble-temperature", "platt", "beta"}
    score = AutoCalibration().fit(z[:, 1:] - z[:, :1], y)
    assert score.chosen_.method_id == made.chosen_.method_id


def test_groups_widen_the_standard_error():
    z, y = draw(400)
    rows = np.repeat(np.arange(400), 3)
    alone = AutoCalibration().fit(z[rows], y[rows])
    together = AutoCalibration().fit(z[rows], y[rows], groups=rows)
    assert together.standard_error_ > 1.3 * alone.standard_error_


def test_exports_are_those_of_the_chosen_one(shifted):
    z, _, made = shifted
    again, _ = from_json(to_json(made, {}))
    assert again.method_id == made.chosen_.method_id
    np.testing.assert_array_equal(again.predict_proba(z), made.predict_proba(z))
    restored = Calibrator.from_dict(json.loads(json.dumps(made.to_dict())))
    assert isinstance(restored, AutoCalibration)
    assert restored.reason_ == made.reason_
    with pytest.raises(ValueError, match="version can read"):
        Calibrator.from_dict(
            made.to_dict()
            | {"parameters": {"chosen": {"method": "isotonic"}, "losses": {}}}
        )


def test_an_analysis_exports_auto_by_its_choice():
    z, y = draw(300, k=3)
    own = Predictions.from_arrays(z, y, classes=("a", "b", "c"))
    chosen = Settings(calibrators=("auto",), method="auto", n_folds=2, n_resamples=100)
    found = analyze(Study(own), chosen)
    made = export(found, "auto", "json")
    assert made.verification.ok, made.verification.problem
    document = json.loads(made.text)
    assert document["method"] == found.fitted["auto"].calibrator.chosen_.method_id
    assert document["fit"]["chosen_by"] == "auto"
    assert document["fit"]["metrics"]["after"]["nll"]
    assert any(note.code == "auto-choice" for note in found.notes)
