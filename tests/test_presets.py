"""What other libraries print: stored values, and scikit-learn itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from core.analysis import measure
from core.loading import read_predictions, read_study
from core.metrics import METRICS
from core.metrics.presets import PRESETS, peer_numbers
from core.on_demand import peers
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.softmax import softmax

STORED = json.loads(
    (Path(__file__).parent / "golden" / "peers.json").read_text(encoding="utf-8")
)
SAMPLES = Path(__file__).parents[1] / "sample_data"
every_case = pytest.mark.parametrize(
    "case", STORED["presets"], ids=lambda case: case["name"]
)


def ours(metric, view):
    return 0.0


def arrays(case):
    """Return labels and probabilities as a user hands them to a library."""
    if "file" in case:
        own = read_predictions(SAMPLES / f"{case['file']}.csv")
        p = softmax(own.logits)
        if own.input_kind == "probabilities":
            one = pd.read_csv(SAMPLES / f"{case['file']}.csv")["prob_malignant"]
            p = np.column_stack([1 - one, one])
        return own.labels, p
    return np.array(case["y"]), np.array(case["p"])


def printed(y, p, **options):
    """Return (library and start of the call) -> number."""
    found = peer_numbers(y, p, ours=ours, **options)
    return by_call(found)


def by_call(found):
    return {f"{item.library} {item.call}": item for item in found}


@every_case
def test_presets_print_what_the_libraries_print(case):
    y, p = arrays(case)
    assert_printed(printed(y, p), case)


def assert_printed(found, case):
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
        # torchmetrics sums some of its terms in float32, of which digits has many.
        rel = 1e-5 if library == "torchmetrics" and "file" in case else 2e-6
        assert matches[0].value == pytest.approx(value, rel=rel), name


def _is_mapie(key, word):
    if word == "classwise":
        return "classwise=True" in key
    return f"MAPIE {word}" in key and "classwise" not in key


@every_case
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


@pytest.mark.parametrize("file", [c["name"] for c in STORED["presets"] if "file" in c])
def test_a_file_prints_what_the_libraries_print(file):
    case = next(case for case in STORED["presets"] if case["name"] == file)
    settings = Settings(n_resamples=100)
    study = read_study(SAMPLES / f"{file}.csv", settings)
    found = peers(study, settings, measure(study, settings))
    assert_printed(by_call(found), case)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("kind", ["csv", "float32"])
def test_zeros_ones_and_edges_of_a_file_reach_the_libraries(k, kind):
    rng = np.random.default_rng(k)
    p = rng.multinomial(20, np.full(k, 1 / k), 400) / 20  # edges of 20 bins
    p[:60] = np.eye(k)[rng.integers(0, k, 60)]
    y = rng.integers(0, k, 400)
    settings = Settings(n_resamples=100, n_bins=20)
    if kind == "csv":
        names = [f"prob_{i}" for i in range(k)]
        table = pd.DataFrame(p, columns=names).round(2).assign(label=y)
        data = table.to_csv(index=False).encode()
        study = read_study(data, settings)
    else:
        own = Predictions.from_arrays(
            p.astype(np.float32), y, input_kind="probabilities"
        )
        study = Study(own)
    p = np.round(p, 2).astype("float32" if kind == "float32" else float)
    expected = by_call(peer_numbers(y, p, n_bins=20, ours=ours))
    found = by_call(peers(study, settings, measure(study, settings)))
    assert list(found) == list(expected)
    for call, item in found.items():
        assert item.value == pytest.approx(expected[call].value, rel=1e-12), call
    if k == 2:
        theirs = sk.log_loss(y, p[:, 1])
        call = next(call for call in found if "log_loss" in call)
        assert found[call].value == pytest.approx(theirs)


def test_bins_of_equal_counts_are_named_as_a_reason():
    rng = np.random.default_rng(5)
    study = study_of(rng.normal(size=(200, 3)), rng.integers(0, 3, 200))
    settings = Settings(n_resamples=100, strategy="quantile")
    for item in peers(study, settings, measure(study, settings)):
        is_binned = item.metric in ("ece", "rmsce", "mce", "classwise-ece")
        assert ("ours equal counts, as set" in item.why) == is_binned


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
