"""What is taken home is what was shown: round trips, clean processes, hostile names."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import EXPORTED, WRITTEN

from core.analysis import Analysis, analyze
from core.calibrators import (
    CALIBRATORS,
    Calibrator,
    IsotonicCalibration,
    TemperatureScaling,
    Uncalibrated,
)
from core.export import (
    export,
    export_metadata,
    exported_calibrator,
    from_json,
    to_json,
    to_python,
    verification,
    verify,
)
from core.export.methods import EXPORTS
from core.messages import DataError
from core.predictions import Predictions, Study
from core.settings import Settings

EVIL = (
    'a"""b',
    "a'''b",
    "back\\slash\\",
    "line\nend\r\u2028",
    "\"); __import__('os').system('echo hacked > hacked') #",
    "{}@CODE@ @CONSTANTS@ %s {0}",
    "naïve 日本語 🎯 \u202e reversed \ud800",
    "\x00\t\x1b[31m",
    "",
)


def labelled(
    k: int, n: int = 300, scale: float = 3.0, seed: int = 0, temperature: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits with labels drawn at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * scale
    noise = rng.gumbel(size=(n, k))
    return logits, (logits / temperature + noise).argmax(axis=1)


def fitted(method: str, k: int = 4, **options: Any) -> tuple[Calibrator, np.ndarray]:
    logits, labels = labelled(k, **options)
    return CALIBRATORS[method]().fit(logits, labels), logits


def at_temperature(value: float, k: int) -> Calibrator:
    return Calibrator.from_dict(
        {
            "method": "temperature",
            "options": {},
            "input": "logits",
            "n_scores": k,
            "n_classes": k,
            "parameters": {"temperature": value},
        }
    )


def module_of(calibrator: Calibrator, metadata: dict[str, Any]) -> dict[str, Any]:
    """Run the module's source in this process and return its names."""
    names: dict[str, Any] = {"__name__": "exported"}
    exec(compile(to_python(calibrator, metadata), "exported.py", "exec"), names)  # noqa: S102
    return names


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    logits, labels = labelled(3, n=400)
    chosen = Settings(calibrators=("temperature", "isotonic"), n_resamples=100)
    own = Predictions.from_arrays(logits, labels, classes=("=a", "b", "c"), name="rows")
    return analyze(Study(own), chosen)


@pytest.fixture(scope="module")
def of_probabilities() -> Analysis:
    logits, labels = labelled(3, n=400)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[:5, 0], p[:5, 1] = 0.0, 1.0 - p[:5, 2]
    own = Predictions.from_arrays(p, labels, input_kind="probabilities")
    chosen = Settings(calibrators=("temperature", "isotonic"), n_resamples=100)
    return analyze(Study(own), chosen)


# ------------------------------------------------------------------ the registry


def test_every_calibrator_has_a_writer() -> None:
    assert set(EXPORTS) == set(WRITTEN)


@pytest.mark.parametrize("kind", ["json", "python"])
@pytest.mark.parametrize("method", EXPORTED)
def test_every_calibrator_runs_in_a_clean_interpreter(method: str, kind: Any) -> None:
    calibrator, logits = fitted(method)
    write = to_json if kind == "json" else to_python
    found = verify(kind, write(calibrator, {}), calibrator, logits)
    assert found.ok, found.problem
    assert found.max_difference <= 1e-12
    assert found.n_rows == found.n_total == len(logits)
    assert found.n_label_changes == 0
    assert "clean interpreter" in found.sentence


@pytest.mark.parametrize("method", EXPORTED)
@pytest.mark.parametrize("k", [2, 5])
def test_json_restores_the_calibrator_exactly(method: str, k: int) -> None:
    calibrator, logits = fitted(method, k)
    again, _ = from_json(to_json(calibrator, {}))
    assert again.to_dict() == calibrator.to_dict()
    assert np.array_equal(again.predict_proba(logits), calibrator.predict_proba(logits))


@given(st.floats(1e-3, 1e3), st.integers(2, 6))
@settings(max_examples=25)
def test_any_temperature_round_trips(temperature: float, k: int) -> None:
    calibrator = at_temperature(temperature, k)
    again, _ = from_json(to_json(calibrator, {}))
    assert isinstance(again, TemperatureScaling)
    assert again.temperature_ == temperature
    logits = np.random.default_rng(k).normal(size=(20, k)) * 5
    found = module_of(calibrator, {})["calibrate"](logits)
    np.testing.assert_allclose(
        found, calibrator.predict_proba(logits), rtol=0, atol=1e-12
    )


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(3, 60))
@settings(max_examples=25)
def test_any_isotonic_fit_round_trips(seed: int, k: int, n: int) -> None:
    logits, labels = labelled(k, n=n, scale=1.0, seed=seed)
    calibrator = IsotonicCalibration().fit(logits, labels)
    again, _ = from_json(to_json(calibrator, {}))
    assert again.to_dict() == calibrator.to_dict()
    found = module_of(calibrator, {})["calibrate"](logits)
    np.testing.assert_allclose(
        found, calibrator.predict_proba(logits), rtol=0, atol=1e-12
    )


# --------------------------------------------------------------- extreme scores


def extreme(name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    if name == "masked":
        logits = rng.normal(size=(200, 6)) * 4
        logits[rng.random(logits.shape) < 0.3] = -np.inf
        logits[:, 2] = 0.0
        return logits
    if name == "ties":
        return np.zeros((50, 3))
    if name == "float32":
        return (rng.normal(size=(200, 5)) * 9).astype(np.float32)
    if name == "1,000 classes":
        return rng.normal(size=(200, 1000)) * 5
    near = rng.choice([-1e4, 1e4], size=(200, 1)) + rng.normal(size=(200, 5))
    return np.where(rng.random(near.shape) < 0.2, -near, near)


# A thousand classes take long to fit: one of three methods in every run (the others in
# other formats, as the million parameters of "dirichlet"), all of them among the slow.
EXTREMES = [
    pytest.param(
        *(name, method),
        marks=[pytest.mark.slow]
        if name == "1,000 classes" and ((turn + 2) % 3 or method == "dirichlet")
        else [],
    )
    for name in ("masked", "ties", "float32", "1,000 classes", "huge")
    for turn, method in enumerate(EXPORTED)
]


@pytest.mark.parametrize(("name", "method"), EXTREMES)
def test_extreme_scores(name: str, method: str) -> None:
    logits = extreme(name)
    best = np.isfinite(logits).argmax(axis=1)
    labels = np.where(np.arange(len(logits)) % 3, logits.argmax(axis=1), best)
    calibrator = CALIBRATORS[method]().fit(logits, labels)
    found = module_of(calibrator, {})["calibrate"](logits)
    expected = calibrator.predict_proba(logits.astype(np.float64))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert (found[np.isneginf(logits)] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-9)


def test_large_logits_of_many_classes() -> None:
    rng = np.random.default_rng(0)
    logits = 1e4 + rng.normal(size=(300, 100))
    calibrator = at_temperature(0.37, 100)
    found = module_of(calibrator, {})["calibrate"](logits)
    expected = calibrator.predict_proba(logits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_saturated_isotonic_fit() -> None:
    calibrator, logits = fitted("isotonic", 10, n=10_000, scale=10.0, temperature=7)
    found = module_of(calibrator, {})["calibrate"](logits)
    expected = calibrator.predict_proba(logits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", ["(n,)", "(n, 1)", "(n, 2)"])
def test_binary_scores_in_every_shape(shape: str) -> None:
    calibrator, logits = fitted("temperature", 2)
    logits[:, 1] -= logits[:, 0]
    logits[:, 0] = 0
    given_scores = {"(n,)": logits[:, 1], "(n, 1)": logits[:, 1:], "(n, 2)": logits}
    found = module_of(calibrator, {})["calibrate"](given_scores[shape])
    expected = calibrator.predict_proba(logits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_calibrator_fitted_on_one_binary_column() -> None:
    logits, labels = labelled(2)
    calibrator = TemperatureScaling().fit(logits[:, 1:], labels)
    for kind, text in (
        ("python", to_python(calibrator, {})),
        ("json", to_json(calibrator, {})),
    ):
        assert verify(kind, text, calibrator, logits).ok  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 2])
def test_calibrator_that_takes_probabilities(k: int) -> None:
    logits, labels = labelled(2)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(logits)[:, -k:]
    calibrator = TemperatureScaling(input="probabilities").fit(p, labels)
    text = to_python(calibrator, {})
    assert verify("python", text, calibrator, logits, input_kind="probabilities").ok
    found = module_of(calibrator, {})["calibrate_probabilities"](p)
    np.testing.assert_allclose(found, calibrator.predict_proba(p), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros((3, 5)),
        np.zeros(3),
        [[np.nan] * 4],
        [[np.inf, 0, 0, 0]],
        [[-np.inf] * 4],
    ],
)
def test_module_refuses_what_it_cannot_use(scores: Any) -> None:
    calibrator, _ = fitted("temperature")
    with pytest.raises(ValueError, match=r"expected|finite"):
        module_of(calibrator, {})["calibrate"](scores)


def test_blocks_do_not_change_the_result() -> None:
    calibrator, logits = fitted("isotonic")
    names = module_of(calibrator, {})
    whole = names["calibrate"](logits)
    names["BLOCK"] = 30
    assert np.array_equal(names["calibrate"](logits), whole)
    assert names["calibrate"](logits[:0]).shape == (0, 4)


# ------------------------------------------------------------------ hostile names


def test_names_are_data(tmp_path: Path) -> None:
    calibrator, logits = fitted("temperature", len(EVIL))
    metadata = {"classes": list(EVIL), "file": EVIL[4], "notes": [{"text": EVIL[0]}]}
    text = to_python(calibrator, metadata)
    names = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
    }
    assert tuple(names["CLASSES"]) == EVIL
    assert names["FIT"]["file"] == EVIL[4]
    assert not any(
        name in (ast.get_docstring(ast.parse(text)) or "") for name in EVIL[:7]
    )
    shape = [type(node) for node in ast.parse(text).body]
    plain = to_python(calibrator, {"classes": list("abcdefghi"), "file": "x"})
    assert shape == [type(node) for node in ast.parse(plain).body]
    assert verify("python", text, calibrator, logits).ok
    text = to_json(calibrator, metadata)
    assert verify("json", text, calibrator, logits).ok
    assert from_json(text)[1]["classes"] == list(EVIL)


def test_strings_that_know_their_own_source_are_made_plain() -> None:
    class Sly(str):
        def __repr__(self) -> str:
            return "__import__('os').abort()"

    calibrator, _ = fitted("temperature", 2)
    text = to_python(calibrator, {"classes": [Sly("a"), np.str_("b")], "n": 3})
    assert "__import__" not in text
    assert 'CLASSES = ["a", "b"]' in text


def test_module_imports_numpy_and_nothing_else() -> None:
    calibrator, _ = fitted("isotonic")
    tree = ast.parse(to_python(calibrator, {}))
    imported = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported == {"sys", "numpy"}


# ------------------------------------------------------------------ as a program


def run(text: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "taken_home.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-I", "taken_home.py", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_program_tests_itself_and_calibrates_files(tmp_path: Path) -> None:
    calibrator, logits = fitted("temperature")
    text = to_python(calibrator, {})
    assert run(text, tmp_path).stdout.startswith("OK")
    np.save(tmp_path / "in.npy", logits)
    done = run(text, tmp_path, "in.npy", "out.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(
        found, calibrator.predict_proba(logits), rtol=0, atol=1e-12
    )
    assert run(text, tmp_path, "in.npy").returncode == 2


def test_program_notices_that_it_was_changed(tmp_path: Path) -> None:
    calibrator, _ = fitted("temperature")
    right = f"TEMPERATURE = {calibrator.parameters()['temperature']!r}"
    text = to_python(calibrator, {})
    assert right in text
    done = run(text.replace(right, "TEMPERATURE = 1.0"), tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED")


# ------------------------------------------------------------------ verification


@pytest.mark.parametrize("kind", ["json", "python"])
def test_tampered_export_fails(kind: Any) -> None:
    calibrator, logits = fitted("temperature")
    write = to_json if kind == "json" else to_python
    value = calibrator.parameters()["temperature"]
    text = write(calibrator, {})
    assert repr(value) in text
    found = verify(kind, text.replace(repr(value), "1.25"), calibrator, logits)
    assert not found.ok
    assert found.max_difference > 1e-3
    assert found.problem
    assert "failed" in found.sentence


def test_small_and_large_disagreement_is_measured() -> None:
    calibrator, logits = fitted("temperature")
    text = to_python(calibrator, {})
    nearly = text.replace(
        "np.exp(log_softmax(z, TEMP", "1e-11 + np.exp(log_softmax(z, TEMP"
    )
    found = verify("python", nearly, calibrator, logits)
    assert not found.ok
    assert found.max_difference == pytest.approx(1e-11, rel=1e-3)
    other = text.replace(
        "    result[rows] = calibrated(z[rows])",
        "    result[rows] = calibrated(-z[rows])",
    )
    found = verify("python", other, calibrator, logits)
    assert found.n_label_changes > len(logits) / 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import core", "ModuleNotFoundError"),
        ("import time; time.sleep(30)", "longer than"),
        ("pass", "no array"),
        ("import sys; sys.exit(3)", "no message"),
        ("open('out.npy', 'w').write('x')", "no array"),
    ],
)
def test_broken_programs_fail(text: str, said: str) -> None:
    calibrator, logits = fitted("uncalibrated")
    timeout = 0.5 if "sleep" in text else 60.0
    found = verify("python", text, calibrator, logits, timeout=timeout)
    assert not found.ok
    assert np.isnan(found.max_difference)
    assert said in found.problem


def test_environment_of_the_user_does_not_reach_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLUMBLINE_SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", ".")
    calibrator, logits = fitted("uncalibrated")
    text = "import os, sys; sys.exit(str([k for k in os.environ if k[0] == 'P']))"
    assert "[]" in verify("python", text, calibrator, logits).problem


def test_unreadable_json_fails_its_verification() -> None:
    calibrator, logits = fitted("temperature")
    text = to_json(calibrator, {}).replace("plumbline-calibrator", "another")
    found = verify("json", text, calibrator, logits)
    assert not found.ok
    assert "cannot" in found.problem or "can be read" in found.problem


def test_many_rows_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MAX_CELLS", 101)
    calibrator, logits = fitted("temperature")
    found = verify("python", to_python(calibrator, {}), calibrator, logits)
    assert found.ok
    assert (found.n_rows, found.n_total) == (25, 300)
    assert "25 evenly spaced rows of 300" in found.sentence


# ------------------------------------------------------------------ what it says


def test_metadata_says_where_it_comes_from(analysis: Analysis) -> None:
    found = export_metadata(analysis, "ts")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["method"] == "temperature"
    assert found["convention"] == (
        "softmax(z / T); one binary score z means the logits (0, z)"
    )
    assert found["classes"] == ["=a", "b", "c"]
    assert found["fingerprint"] == analysis.study.fingerprint
    assert (found["n_rows"], found["n_fit_rows"]) == (400, 400)
    assert found["split"] == "5-fold cross-fit"
    assert set(found["versions"]) >= {"python", "numpy", "scikit-learn"}
    assert found["date"].endswith("+00:00")
    assert len(found["examples"]) == 5
    assert analysis.comparison is not None
    results = analysis.comparison.views["top-label"]
    for when, name in (("before", "uncalibrated"), ("after", "temperature")):
        for metric in ("gap", "nll", "brier", "accuracy", "ece"):
            estimate = results[name].estimates[metric]
            said = found["metrics"][when][metric]
            assert said["value"] == estimate.value
            assert said.get("low") == estimate.low
            assert said["rows"] == "cross-fitted"
    assert found["metrics"]["after"]["ece"]["null_high"] > 0


@pytest.mark.parametrize("method", ["temperature", "isotonic", "uncalibrated"])
@pytest.mark.parametrize("kind", ["json", "python"])
@pytest.mark.parametrize("source", ["analysis", "of_probabilities"])
def test_export_of_an_analysis(
    source: str, method: str, kind: Any, request: pytest.FixtureRequest
) -> None:
    chosen: Analysis = request.getfixturevalue(source)
    artefact = export(chosen, method, kind)
    assert artefact.verification.ok, artefact.verification.problem
    assert artefact.verification.n_rows == 400
    assert artefact.file_name.startswith(method)
    json.dumps(dataclasses.asdict(artefact), allow_nan=False)
    if kind == "json":
        calibrator, metadata = from_json(artefact.text.encode())
        expected = export_metadata(chosen, method)
        assert metadata.pop("date") <= expected.pop("date")
        assert metadata == expected
        again = exported_calibrator(chosen, method)
        assert calibrator.to_dict() == again.to_dict()


def test_zero_probabilities_take_the_floor_of_the_file(
    of_probabilities: Analysis,
) -> None:
    own = of_probabilities.study.evaluation
    assert own.logits is not None
    metadata = export_metadata(of_probabilities, "temperature")
    calibrator = exported_calibrator(of_probabilities, "temperature")
    assert metadata["log_floor"] == own.logits.min()
    assert "log(1 - p)" in metadata["convention"]
    p = np.exp(own.logits)
    p[:5, 0] = 0.0  # as in the file
    found = module_of(calibrator, metadata)["calibrate_probabilities"](p)
    expected = calibrator.predict_proba(own.logits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", [[[1.5, 0, 0]], [[np.nan, 0, 1]], [[0, 0, 0]], [[[1]]]])
def test_module_refuses_impossible_probabilities(
    p: Any, of_probabilities: Analysis
) -> None:
    metadata = export_metadata(of_probabilities, "temperature")
    calibrator = exported_calibrator(of_probabilities, "temperature")
    with pytest.raises(ValueError, match=r"between 0 and 1|is 0"):
        module_of(calibrator, metadata)["calibrate_probabilities"](p)


def test_masked_examples_survive_json() -> None:
    logits, labels = labelled(3)
    logits[:, 0] = np.where(labels == 0, logits[:, 0], -np.inf)
    own = Predictions.from_arrays(logits, labels)
    chosen = analyze(Study(own), Settings(n_resamples=100))
    assert "-inf" in str(export_metadata(chosen, "temperature")["examples"])
    for kind in ("json", "python"):
        assert export(chosen, "temperature", kind).verification.ok  # type: ignore[arg-type]


def test_what_cannot_be_exported(analysis: Analysis) -> None:
    with pytest.raises(DataError, match="was not fitted"):
        export_metadata(analysis, "platt")
    only = Predictions.from_arrays(
        confidence=np.linspace(0.5, 1, 40),
        correct=np.arange(40) % 3 > 0,
        input_kind="confidence",
    )
    chosen = analyze(Study(only), Settings(n_resamples=100))
    with pytest.raises(DataError, match="every class"):
        export_metadata(chosen, "uncalibrated")
    calibrator, _ = fitted("temperature", 3)
    with pytest.raises(ValueError, match="2 class names for 3"):
        to_json(calibrator, {"classes": ["a", "b"]})


def test_a_calibrator_without_a_writer_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(EXPORTS, "uncalibrated")
    with pytest.raises(NotImplementedError, match="uncalibrated"):
        to_python(Uncalibrated().fit(*labelled(3)), {})


# ------------------------------------------------------------------ unreadable JSON

VALID = json.loads(to_json(at_temperature(2.0, 3), {}))


def changed(**values: Any) -> str:
    return json.dumps({**VALID, **values})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "9" * 10_000,
        b"\xff\xfe\x00",
        "{}",
        changed(format="plumbline-session"),
        changed(version=2),
        changed(method="platt"),
        changed(method=["temperature"]),
        changed(method="isotonic"),
        changed(classes=None),
        changed(classes=[1, 2, 3]),
        changed(classes=[]),
        changed(classes=["a", "a", "b"]),
        changed(classes=["a", "b"]),
        changed(n_scores=10**15),
        changed(n_scores=1),
        changed(n_scores="3"),
        changed(input="pickle"),
        changed(fit=None),
        changed(examples=[]),
        changed(options=[1]),
        changed(options={"os": "system"}),
        changed(options={"input": "nonsense"}),
        changed(parameters=None),
        changed(parameters={}),
        changed(parameters={"temperature": "hot"}),
        changed(parameters={"temperature": -1}),
        changed(parameters={"temperature": float("nan")}),
        changed(parameters={"temperature": 10**400}),
        changed(method="isotonic", parameters={"mixing": 0.1, "maps": []}),
        changed(
            method="isotonic",
            parameters={"mixing": 2.5, "maps": [{"x": [0, 1], "y": [0, 1]}] * 3},
        ),
        changed(
            method="isotonic",
            parameters={"mixing": 0.1, "maps": [{"x": [0, 1], "y": [0, -9]}] * 3},
        ),
        changed(
            method="isotonic",
            parameters={"mixing": 0.1, "maps": [{"x": [0, 1], "y": [0, 1]}] * 4},
        ),
        changed(
            method="isotonic",
            parameters={
                "mixing": 0.1,
                "maps": [{"x": [[0], [1]], "y": [[0], [1]]}] * 3,
            },
        ),
    ],
)
def test_anything_else_is_a_data_error(text: str | bytes) -> None:
    with pytest.raises(DataError):
        from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(sorted(VALID)), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    st.sampled_from(sorted(VALID)),
)
@settings(max_examples=50)
def test_no_document_raises_anything_but_a_data_error(value: Any, key: str) -> None:
    try:
        calibrator, _ = from_json(changed(**{key: value}))
    except DataError:
        return
    assert np.isfinite(calibrator.predict_proba(np.zeros((2, 3)))).all()


def test_document_is_as_promised() -> None:
    assert VALID["format"] == "plumbline-calibrator"
    assert VALID["version"] == 1
    assert VALID["input"] == "logits"
    assert VALID["parameters"] == {"temperature": 2.0}
    assert VALID["convention"].startswith("softmax(z / T)")
    assert isinstance(pd.Series(VALID["examples"]["outputs"][1]).sum(), float)
