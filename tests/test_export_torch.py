"""Torch modules of calibrators: source, parameters, and what torch itself says."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.make_torch import beside, digest
from methods import AS_MODULES, CHEAP, QUICK, WRITTEN
from safetensors.numpy import load

from app import cli
from core.analysis import Analysis, analyze
from core.calibrators import CALIBRATORS, Calibrator
from core.export import export, export_metadata, verify
from core.export.methods import EXPORTS
from core.export.portable import properties
from core.export.torch_module import to_torch
from core.predictions import Predictions, Study

GOLDEN = [
    json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "golden" / "torch").glob("*.json"))
]
CASES = [case for document in GOLDEN for case in document["cases"]]
HAS_TORCH = find_spec("torch") is not None

every_method = pytest.mark.parametrize("method", AS_MODULES)
golden_case = pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda c: f"{c['calibrator']['method']}-{c['calibrator']['n_classes']}",
)


def labelled(k: int, n: int = 300) -> tuple[Any, Any]:
    rng = np.random.default_rng(k)
    logits = rng.normal(size=(n, k)) * 3
    return logits, (logits / 2 + rng.gumbel(size=(n, k))).argmax(axis=1)


def fitted(method: str, k: int) -> Calibrator:
    logits, labels = labelled(k)
    more = beside(method, logits)
    return CALIBRATORS[method]().fit(logits, labels, **more)  # type: ignore[no-any-return]


def names_of(source: str) -> dict[str, Any]:
    """Return the constants of a module, without running it."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            assert isinstance(node.targets[0], ast.Name)
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


# ------------------------------------------------------------------ what torch said


def test_every_calibrator_has_a_module_that_torch_has_run() -> None:
    assert set(EXPORTS) == set(WRITTEN)
    run = {(c["calibrator"]["method"], c["calibrator"]["n_classes"]) for c in CASES}
    assert {(m, k) for m in AS_MODULES for k in (2, 3, 8)} <= run


@golden_case
def test_torch_says_what_the_calibrator_says(case: dict[str, Any]) -> None:
    calibrator = Calibrator.from_dict(case["calibrator"])
    rows = GOLDEN[0]["scores"][str(case["calibrator"]["n_classes"])]
    scores = np.array([[float(value) for value in row] for row in rows])
    more = beside(case["calibrator"]["method"], scores)
    expected = calibrator.predict_proba(scores, **more)
    found = np.array(case["probabilities"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.isneginf(scores).any()
    assert np.abs(scores[np.isfinite(scores)]).max() > 50


@golden_case
def test_the_module_is_the_one_that_torch_has_run(case: dict[str, Any]) -> None:
    """If this fails, run tests/golden/make_torch.py where torch is installed."""
    source, parameters = to_torch(Calibrator.from_dict(case["calibrator"]), {})
    assert digest(source, parameters) == case["sha256"]


# ------------------------------------------------------------------ source and tensors


# A thousand classes take long to fit: one of three methods in every run (the others in
# other formats), all of them among the slow tests.
SIZES = [
    pytest.param(
        method, k, marks=[pytest.mark.slow] if k == 1000 and (turn + 1) % 3 else []
    )
    for turn, method in enumerate(AS_MODULES)
    for k in (2, 3, 1000)
]


@pytest.mark.parametrize(("method", "k"), SIZES)
def test_source_and_parameters(method: str, k: int) -> None:
    calibrator = fitted(method, k)
    source, parameters = to_torch(calibrator, {})
    compile(source, "calibrator_torch.py", "exec")
    imported = {
        name.name.partition(".")[0]
        if isinstance(node, ast.Import)
        else (node.module or "").partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported == {"json", "math", "sys", "pathlib", "torch"}
    assert max(len(line) for line in source.splitlines()) <= 88
    assert "@" not in source.replace("@classmethod", "")
    tensors = load(parameters)
    constants = names_of(source)
    assert constants["SHAPES"] == {n: list(t.shape) for n, t in tensors.items()}
    assert all(tensor.dtype == np.float64 for tensor in tensors.values())
    expected = np.array(constants["EXAMPLE_OUTPUTS"])
    given = np.array(constants["EXAMPLE_INPUTS"], dtype=np.float64)
    more = {}
    if "copies" in calibrator.reads:
        more["copies"] = np.array(constants["EXAMPLE_COPIES"], dtype=np.float64)
    np.testing.assert_array_equal(calibrator.predict_proba(given, **more), expected)


def test_parameters_are_exact_and_say_where_they_come_from() -> None:
    calibrator = fitted("temperature", 3)
    metadata = {"classes": ["a", "\u202eb", ""], "fingerprint": "ab" * 32}
    source, parameters = to_torch(calibrator, metadata)
    assert load(parameters)["temperature"] == calibrator.temperature_
    assert names_of(source)["CLASSES"] == ["a", "\u202eb", ""]
    assert "\u202e" not in source
    size = int.from_bytes(parameters[:8], "little")
    said = json.loads(parameters[8 : 8 + size])["__metadata__"]
    assert said["temperature"] == repr(calibrator.temperature_)
    assert said["fingerprint"] == "ab" * 32
    assert json.loads(said["classes"]) == ["a", "\u202eb", ""]


def test_names_are_data() -> None:
    evil = ['"""); import os', "@CODE@ @CONSTANTS@", "line\nend", "\ud800"]
    calibrator = fitted("temperature", 4)
    source, parameters = to_torch(calibrator, {"classes": evil, "file": evil[0]})
    assert names_of(source)["CLASSES"] == evil
    assert load(parameters)
    plain, _ = to_torch(calibrator, {"classes": list("abcd"), "file": "x"})
    shape = [type(node) for node in ast.walk(ast.parse(source))]
    assert shape == [type(node) for node in ast.walk(ast.parse(plain))]


def test_curves_are_padded_with_segments_that_nothing_reaches() -> None:
    calibrator = fitted("isotonic", 3)
    tensors = load(to_torch(calibrator, {})[1])
    assert tensors["start"].shape == tensors["slope"].shape == tensors["value"].shape
    p = np.random.default_rng(0).random(500)
    for row, (x, y) in enumerate(calibrator.maps_):
        at = np.searchsorted(tensors["start"][row], p, side="right") - 1
        found = tensors["value"][row][at]
        found = found + tensors["slope"][row][at] * (p - tensors["start"][row][at])
        np.testing.assert_allclose(found, np.interp(p, x, y), rtol=0, atol=1e-12)


# ------------------------------------------------------------------ the product


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    logits, labels = labelled(3, n=400)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = Predictions.from_arrays(p, labels, input_kind="probabilities")
    return analyze(Study(own), QUICK)


# One worker fits everything, and tries every file.
@pytest.mark.xdist_group("torch_analysis")
def test_without_torch_nothing_is_claimed(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.export import verification

    monkeypatch.setitem(verification._PACKAGES, "torch", ("torch", "no-such-package"))
    artefact = export(analysis, "temperature", "torch")
    proof = artefact.verification
    assert (proof.ok, proof.is_run, proof.is_offered) == (False, False, True)
    assert proof.n_rows == 0
    assert proof.problem == "not run here: torch is not installed"
    assert proof.sentence == "Not run here: torch is not installed."
    assert list(artefact.files) == [
        "calibrator_torch.py",
        "calibrator_torch.safetensors",
    ]


@pytest.mark.xdist_group("torch_analysis")
@pytest.mark.parametrize("method", CHEAP)
def test_export_of_an_analysis(method: str, analysis: Analysis) -> None:
    artefact = export(analysis, method, "torch")
    assert artefact.verification.is_offered
    assert artefact.verification.ok == artefact.verification.is_run == HAS_TORCH
    source = artefact.files["calibrator_torch.py"].decode()
    assert "def forward(self, p):" in source
    tensors = load(artefact.files["calibrator_torch.safetensors"])
    assert tensors["log_floor"] == export_metadata(analysis, method)["log_floor"]


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not a dependency of the tests")
@every_method
def test_modules_run_where_torch_is(method: str) -> None:
    calibrator = fitted(method, 4)
    source, parameters = to_torch(calibrator, {})
    logits = labelled(4)[0]
    more = beside(method, logits)
    found = verify("torch", source, calibrator, logits, binary=parameters, **more)
    assert found.ok, found.problem


def test_properties_are_text() -> None:
    document = {"format": "f", "version": 1, "method": "m", "convention": "c"}
    document |= {"input": "logits", "classes": [], "parameters": {}, "fit": {"x": None}}
    found = properties(document)
    assert all(isinstance(value, str) for value in found.values())
    assert "x" not in found


def test_command_line_writes_both_files_and_says_what_was_not_run(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(root / "sample_data" / "breast_cancer_binary.csv")
    argv = ["calibrate", file, "--out", str(tmp_path), "--formats", "torch"]
    assert cli.main([*argv, "--n-resamples", "100"]) == 0
    said = capsys.readouterr().out
    assert ("torch is not installed" in said) != HAS_TORCH
    assert load((tmp_path / "calibrator_torch.safetensors").read_bytes())
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["verification"]["calibrator_torch.py"]["is_run"] == HAS_TORCH
