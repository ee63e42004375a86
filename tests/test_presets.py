"""What other libraries print: stored values, and scikit-learn itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from core.analysis import measure
from core.metrics import METRICS
from core.metrics.presets import PRESETS, peer_numbers
from core.on_demand import peers
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings

STORED = json.loads(
    (Path(__file__).parent / "golden" / "peers.json").read_text(encoding="utf-8")
)


def ours(metric, view):
    return 0.0


def arrays(case):
    return np.array(case["y"]), np.array(case["p"])


def printed(y, p, **options):
    """Return (library and start of the call) -> number."""
    found = peer_numbers(y, p, ours=ours, **options)
    return {f"{item.library} {item.call}": item for item in found}


@pytest.mark.parametrize("case", STORED["presets"], ids=["binary", "multiclass"])
def test_presets_print_what_the_libraries_print(case):
    y, p = arrays(case)
    found = printed(y, p)
    for name, value in case["values"].items():
        library, word = name.split()
        matches = [
            item
            for key, item in found.items()
            if key.startswith(library)
            and (word in key if library != "MAPIE" else _is_mapie(key, word))
            and (library != "torchmetrics" or f'norm="{word}"' in key)
        ]
        assert len(matches) == 1, name
        # torchmetrics sums some of its terms in float32.
        assert matches[0].value == pytest.approx(value, rel=2e-6), name


def _is_mapie(key, word):
    if word == "classwise":
        return "classwise=True" in key
    return f"MAPIE {word}" in key and "classwise" not in key


@pytest.mark.parametrize("case", STORED["presets"], ids=["binary", "multiclass"])
def test_scikit_learn_prints_the_same(case):
    y, p = arrays(case)
    found = printed(y, p)
    values = {key: item.value for key, item in found.items() if "scikit" in key}
    brier, log_loss, curve = values.values()
    k = p.shape[1]
    given = p[:, 1] if k == 2 else p
    assert brier == pytest.approx(sk.brier_score_loss(y, given, labels=range(k)))
    assert log_loss == pytest.approx(sk.log_loss(y, given, labels=range(k)))
    one, hit = (given, y) if k == 2 else (p.max(axis=1), p.argmax(axis=1) == y)
    true, predicted = calibration_curve(hit, one, n_bins=15)
    assert curve == pytest.approx(np.abs(true - predicted).mean(), abs=1e-12)


@pytest.mark.parametrize("case", STORED["smooth"])
def test_smooth_ece_of_relplot(case):
    f, o = np.array(case["f"]), np.array(case["o"])
    p = np.column_stack([1 - f, f])
    value = METRICS["smooth-ece-relplot"](o, p, view="positive-class")
    assert value == pytest.approx(case["value"], rel=1e-9)


def test_the_phantom_bin_holds_rows_at_exactly_one():
    # Two rows at .95 that are right, two at exactly 1 of which one is wrong.
    p = np.array([[0.05, 0.95]] * 2 + [[0.0, 1.0]] * 2)
    y = np.array([1, 1, 1, 0])
    found = printed(y, p, n_bins=10)
    value = next(i.value for key, i in found.items() if 'norm="l1"' in key)
    assert value == pytest.approx(0.5 * 0.05 + 0.5 * 0.5)
    assert METRICS["ece"](y, p, n_bins=10) == pytest.approx(0.225)
    why = next(i.why for key, i in found.items() if 'norm="l1"' in key)
    assert "Rows at exactly 1: 2." in why


def test_fifteen_of_mapie_are_fourteen_bins():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 400)
    y = rng.integers(0, 3, 400)
    found = printed(y, p)
    value = next(i.value for key, i in found.items() if "MAPIE expected" in key)
    assert value == pytest.approx(METRICS["ece"](y, p, n_bins=14), abs=1e-12)


def test_every_preset_says_why_and_names_one_of_our_metrics():
    for preset in PRESETS:
        assert preset.metric in METRICS
        assert preset.why.endswith(".")
        assert len(preset.why) <= 200
    assert {preset.library for preset in PRESETS} == {
        "scikit-learn",
        "netcal",
        "torchmetrics",
        "MAPIE",
        "relplot",
    }


def study_of(z, y, **roles):
    weight = roles.pop("weight", None)
    if weight is not None:
        import pandas as pd

        roles = {
            "metadata": pd.DataFrame({"w": weight}),
            "roles": ColumnRoles(weight="w"),
        }
    return Study(Predictions.from_arrays(z, y, **roles))


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_peers_of_a_study_stand_beside_our_numbers(k, weighted):
    rng = np.random.default_rng(1)
    z = 2 * rng.normal(size=(300, k))
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    weight = rng.gamma(2.0, size=300) if weighted else None
    study = study_of(z, y, weight=weight)
    settings = Settings(n_resamples=100, n_folds=2)
    overview = measure(study, settings)
    found = peers(study, settings, overview)
    assert len(found) == len(PRESETS)
    for item in found:
        estimates = overview.views[item.view].estimates
        if item.metric in estimates:
            assert item.ours == pytest.approx(estimates[item.metric].value, rel=1e-9)
        assert ("weights" in item.why) == weighted
        assert item.why.startswith("The same number") == item.is_same
        assert "{" not in item.call + item.why
    same = {item.call for item in found if item.is_same}
    assert any(call.startswith("brier") for call in same) != weighted


def test_files_of_confidences_have_peers_too():
    rng = np.random.default_rng(2)
    c = rng.uniform(0.5, 1.0, 200)
    correct = rng.random(200) < c
    found = peer_numbers(None, None, confidence=c, correct=correct, ours=ours)
    assert {"netcal", "torchmetrics", "MAPIE", "relplot", "scikit-learn"} == {
        item.library for item in found
    }
    assert all("confidence" in item.call for item in found)
    with pytest.raises(ValueError, match="peer_numbers needs"):
        peer_numbers(None, None, ours=ours)


def test_without_labels_there_is_nothing_to_print():
    study = study_of(np.zeros((5, 3)), None)
    settings = Settings()
    assert peers(study, settings, measure(study, settings)) == ()
