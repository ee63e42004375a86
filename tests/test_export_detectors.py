"""Detectors to take home: every registered one, in every format."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from ood_cases import D, K, features_of, network, of_features, rows, strangers
from scipy import stats

from core.export.detectors import (
    DETECTOR_FILES,
    EXPORTS,
    FittedDetector,
    Shown,
    detector_from_json,
    export_detector,
    fitted_detector,
    shown_rows,
    verify_detector,
)
from core.export.detectors.module import to_python
from core.messages import DataError, FitError
from core.ood import DETECTORS, choose_threshold, detect
from core.ood.base import Detector
from core.ood.rows import layers_of
from core.predictions import Predictions, Study
from core.settings import Settings

pytestmark = pytest.mark.usefixtures("ready_interpreter")
KINDS = list(DETECTOR_FILES)


def taken(made: Detector, own: Predictions, **metadata: Any) -> FittedDetector:
    return FittedDetector(made, choose_threshold(made.score(own)), metadata)


@functools.cache
def item_of(method: str) -> FittedDetector:
    made = DETECTORS[method]().fit(rows(), head=network())
    return taken(made, rows(60, seed=1), classes=list("abcd"))


@functools.cache
def shown_of(method: str) -> Shown:
    return shown_rows(item_of(method), [rows(40, seed=2), strangers(30)])


def check(item: FittedDetector, shown: Shown, *kinds: Any) -> None:
    for kind in kinds:
        proof = export_detector(item, shown, kind).verification
        assert proof.ok, (kind, proof.problem)
        assert proof.max_difference <= (1e-5 if kind == "onnx32" else 1e-12)


def test_every_detector_has_an_entry() -> None:
    assert sorted(EXPORTS) == sorted(DETECTORS)


@pytest.mark.parametrize("method", list(DETECTORS))
def test_every_detector_in_every_format(method: str) -> None:
    item, shown = item_of(method), shown_of(method)
    for kind in KINDS:
        made = export_detector(item, shown, kind)
        proof = made.verification
        assert proof.ok, (kind, proof.problem)
        assert proof.n_rows == proof.n_total == 70
        assert proof.max_difference <= (1e-5 if kind == "onnx32" else 1e-12)
        assert proof.n_decision_changes == 0
        assert "0 rows change" in proof.sentence
        assert made.file_name == f"{method}_{DETECTOR_FILES[kind]}"
    assert 0 < shown.accepted[:40].mean() <= 1


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ash-p": ("ash", {"variant": "p"}),
    "ash-s": ("ash", {"variant": "s", "percentile": 60.0}),
    "gen-2": ("gen", {"n_classes": 2, "gamma": 0.5}),
    "odin-softmax": ("odin", {"form": "softmax", "temperature": 100.0}),
    "energy-2": ("energy", {"temperature": 2.0}),
    "fdbd-origin": ("fdbd", {"norm": "origin"}),
    "she-cosine": ("she", {"metric": "cosine"}),
    "she-euclidean": ("she", {"metric": "euclidean"}),
    "openmax-9": ("openmax", {"alpha": 9, "tail": 10}),
    "ledoit-wolf": ("mahalanobis", {"covariance": "ledoit-wolf"}),
    "knn-all": ("knn", {"k": 1000, "n_reference": 0}),
    "members": ("rank-average", {"members": ("vim", "mahalanobis", "energy")}),
}


@pytest.mark.parametrize("case", list(VARIANTS))
def test_options_in_every_format(case: str) -> None:
    method, options = VARIANTS[case]
    made = DETECTORS[method](**options).fit(rows(), head=network())
    item = taken(made, rows(60, seed=1))
    check(item, shown_rows(item, [rows(40, seed=2), strangers(30)]), "python", "onnx")


@pytest.mark.parametrize("method", ["knn", "nnguide", "vim", "ash", "mahalanobis"])
def test_detectors_of_float32_rows(method: str) -> None:
    made = DETECTORS[method]().fit(rows(dtype=np.float32), head=network())
    item = taken(made, rows(60, 1, np.float32))
    shown = shown_rows(item, [rows(40, 2, np.float32), strangers(30, dtype=np.float32)])
    check(item, shown, *KINDS)


def layered(n: int, seed: int, ending: str = "") -> Predictions:
    h, y = features_of(n, seed)
    rng = np.random.default_rng(seed)
    first = h[:, :5] + rng.normal(size=(n, 5)) / 3
    own = of_features(h, y)
    layers = {"layer1": first, "layer2": h}
    more = {f"{name}{ending}": a + 0.1 for name, a in layers.items()} if ending else {}
    return Predictions.from_arrays(own.logits, y, features=layers | more)


@pytest.mark.parametrize("method", ["mahalanobis", "relative-mahalanobis-normalised"])
def test_several_layers_weighed_together(method: str) -> None:
    made = DETECTORS[method](layers="all").fit(layered(200, 0))
    item = taken(made, layered(60, 1))
    assert [entry.name for entry in item.inputs] == ["layer1", "layer2"]
    check(item, shown_rows(item, [layered(50, 2)]), *KINDS)
    made.tune(layered(40, 3))
    check(item, shown_rows(item, [layered(50, 2)]), "python")


def test_features_of_preprocessed_inputs_are_the_input() -> None:
    made = DETECTORS["mahalanobis"](preprocessed=True).fit(layered(200, 0))
    own = layered(50, 1, ending="_preprocessed")
    item = taken(made, own)
    shown = shown_rows(item, [own])
    given = layers_of(own.features)["layer2_preprocessed"]
    np.testing.assert_array_equal(shown.arrays["features"], given)
    check(item, shown, "json", "onnx")


LOGITS_ONLY = [m for m, e in DETECTORS.items() if e.requires <= {"logits", "labels"}]
LOGITS_ONLY = [m for m in LOGITS_ONLY if DETECTORS[m].requires]


@pytest.mark.parametrize("method", LOGITS_ONLY)
def test_classes_that_are_ruled_out_and_two_classes(method: str) -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(90, 3)) * 4, rng.integers(0, 3, 90)
    z[np.arange(90), y] += 4
    z[::5, 2] = np.where(y[::5] == 2, z[::5, 2], -np.inf)
    z[:6, 0] = 800.0  # so sure that nothing is left for the others
    own = Predictions.from_arrays(z, y)
    made = DETECTORS[method]().fit(own)
    check(taken(made, own), shown_rows(taken(made, own), [own]), "python", "onnx")
    if method == "openmax":
        return
    binary = Predictions.from_arrays(z[:, 1], (y > 0).astype(int))
    made = DETECTORS[method]().fit(binary)
    item = taken(made, binary)
    check(item, shown_rows(item, [binary]), "python", "onnx")
    module: dict[str, Any] = {"__name__": "detector"}
    exec(to_python(item), module)  # noqa: S102 - our own text
    score, accepted = module["detect"](z[:, 1])
    np.testing.assert_allclose(score, made.score(binary), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(accepted, score <= item.threshold.value)


@pytest.mark.parametrize("method", ["entropy", "gen", "kl-matching", "openmax"])
def test_digits_of_rows_that_are_nearly_certain(method: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 20, 300)
    z = rng.normal(size=(300, 20))
    z[np.arange(300), y] += 25  # probabilities of 1 - 1e-10
    own = Predictions.from_arrays(z, y)
    item = taken(DETECTORS[method]().fit(own), own)
    check(item, shown_rows(item, [own]), "python", "onnx")


@pytest.mark.parametrize("method", ["max-softmax", "gen", "kl-matching"])
def test_probabilities_are_taken_as_they_are(method: str) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(K) / 4, 80)
    p[3] = [1, 0, 0, 0]
    own = Predictions.from_arrays(p, rng.integers(0, K, 80), input_kind="probabilities")
    study = Study(own)
    found = detect(study, Settings(), methods=(method,))
    item = fitted_detector(found, method)
    assert [entry.name for entry in item.inputs] == ["probabilities"]
    check(item, shown_rows(item, [own]), *KINDS)


def test_a_study_gives_what_is_known_of_the_rows() -> None:
    study = Study(rows(200), ood={"far": strangers(60)}, head=network())
    settings = Settings(n_resamples=100)
    found = detect(study, settings, methods=("vim", "max-softmax"))
    item = fitted_detector(found, "vim")
    assert item.metadata["classes"] == [f"class {i}" for i in range(K)]
    assert item.metadata["accepted"].keys() == {"in-distribution", "far"}
    text = item.to_json()
    again = detector_from_json(text)
    assert again.to_json() == text
    assert json.loads(text)["metadata"]["inputs"][0]["width"] == D
    model = onnx.load_from_string(
        export_detector(item, [study.evaluation], "onnx").data
    )
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert float(said["threshold"]) == item.threshold.value
    assert said["score"].endswith("larger = more out-of-distribution")
    with pytest.raises(DataError, match="'energy' was not fitted"):
        fitted_detector(found, "energy")


def test_what_differs_is_not_offered() -> None:
    item, shown = item_of("vim"), shown_of("vim")
    for kind in KINDS:
        other = export_detector(item_of("fdbd"), shown, kind).data
        proof = verify_detector(kind, other, item, shown)
        assert not proof.ok
        assert not proof.is_offered
        assert "The exported file failed on 70 rows" in proof.sentence
    proof = verify_detector("python", b"raise SystemExit('no')", item, shown)
    assert not proof.is_offered
    assert "it ended with: no" in proof.problem
    proof = verify_detector("json", b"{}", item, shown)
    assert not proof.is_offered


def test_decisions_that_change_are_counted() -> None:
    item, shown = item_of("energy"), shown_of("energy")
    wrong = replace(shown, accepted=~shown.accepted)
    proof = export_detector(item, wrong, "onnx").verification
    assert proof.n_decision_changes == 70
    assert "70 rows change between accepted and rejected" in proof.sentence


def test_what_float32_cannot_hold_is_not_offered() -> None:
    made = DETECTORS["max-logit"]()
    own = Predictions.from_arrays(np.diag([1e300, 1.0, 2.0]))
    made.fit(own)
    item = taken(made, own)
    assert export_detector(item, [own], "onnx").verification.ok
    proof = export_detector(item, [own], "onnx32").verification
    assert not proof.is_offered
    assert "larger than float32 can hold" in proof.problem


def test_what_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Predictions.from_arrays(
        None, input_kind="confidence", confidence=np.linspace(0.5, 1, 30),
        correct=np.ones(30, dtype=bool),
    )  # fmt: skip
    made = DETECTORS["max-softmax"]().fit(own)
    with pytest.raises(DataError, match="one confidence per row"):
        export_detector(taken(made, own), [own], "json")
    monkeypatch.setattr("core.export.detectors.fitted.MAX_BYTES", 1000)
    with pytest.raises(FitError, match="files of at most"):
        export_detector(item_of("knn"), [rows(5)], "json")
    with pytest.raises(DataError, match="no features"):
        shown_rows(item_of("vim"), [Predictions.from_arrays(np.eye(K))])


def test_the_module_refuses_other_rows() -> None:
    module: dict[str, Any] = {"__name__": "detector"}
    exec(to_python(item_of("she")), module)  # noqa: S102 - our own text
    z, h = np.zeros((3, K)), np.zeros((3, D))
    assert module["detect"]({"logits": z, "features": h})[0].shape == (3,)
    for bad in (
        {"logits": z},
        {"logits": z, "features": h[:, 1:]},
        {"logits": z, "features": h[1:]},
        {"logits": z, "features": h + np.nan},
        {"logits": z + np.inf, "features": h},
    ):
        with pytest.raises(ValueError, match=r"missing|shape|rows|numbers"):
            module["detect"](bad)


@pytest.mark.slow
def test_false_alarms_of_the_exported_threshold_stay_within_the_bound() -> None:
    rng, n, m = np.random.default_rng(0), 200, 400

    def fresh(size: int) -> Predictions:
        h = rng.normal(size=(size, 6)) * [3, 1, 1, 1, 0.5, 2]
        labels = rng.integers(0, 2, size)
        h[:, 0] += 4 * labels
        return Predictions.from_arrays(None, labels, input_kind="features", features=h)

    alarms = []
    for _ in range(500):
        made = DETECTORS["mahalanobis"]().fit(fresh(100))
        module: dict[str, Any] = {"__name__": "detector"}
        exec(to_python(taken(made, fresh(n))), module)  # noqa: S102 - our own text
        _, accepted = module["detect"](fresh(m).features)
        alarms.append(int((~accepted).sum()))
    k = int(np.ceil(0.95 * (n + 1)))
    # The share of fresh rows that are rejected is Beta(n + 1 - k, k) distributed.
    law = stats.betabinom(m, n + 1 - k, k)
    low, high = law.ppf([0.025, 0.975])
    inside = np.mean([low <= found <= high for found in alarms])
    assert 0.925 <= inside <= 0.985
    error = law.std() / np.sqrt(500)
    assert abs(np.mean(alarms) - law.mean()) <= 3 * error
