"""ONNX models of calibrators: every method, both precisions, extremes, metadata."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from methods import CHEAP, EXPORTED, QUICK, WRITTEN

from app import cli
from core.analysis import Analysis, analyze
from core.calibrators import CALIBRATORS, Calibrator
from core.export import FILES, export, export_metadata, to_json, verify
from core.export.curves import interpolation, steps
from core.export.methods import EXPORTS
from core.export.onnx import to_onnx
from core.export.portable import exported_calibrator, predict_given
from core.export.verification import TOLERANCES
from core.messages import DataError
from core.predictions import Predictions, Study

PRECISIONS = ("float64", "float32")
TOLERANCE = {"float64": TOLERANCES["onnx"], "float32": TOLERANCES["onnx32"]}
FLOAT32_ONLY = {"Softplus", "Hardmax", "Erf"}  # in onnxruntime on the CPU

every_method = pytest.mark.parametrize("method", EXPORTED)
both = pytest.mark.parametrize("precision", PRECISIONS)


def labelled(k: int, n: int = 300, scale: float = 3.0) -> tuple[Any, Any]:
    """Return logits with labels drawn at temperature 2."""
    rng = np.random.default_rng(k)
    logits = np.clip(rng.normal(size=(n, k)) * scale, -100, 100)
    return logits, (logits / 2 + rng.gumbel(size=(n, k))).argmax(axis=1)


@functools.cache
def fitted(method: str, k: int) -> Calibrator:
    return CALIBRATORS[method]().fit(*labelled(k))  # type: ignore[no-any-return]


@functools.cache
def session(method: str, k: int, precision: Any) -> onnxruntime.InferenceSession:
    return opened(to_onnx(fitted(method, k), {}, precision))


def opened(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, scores: np.ndarray) -> tuple[Any, Any]:
    """Return probabilities and labels of scores, in the type that the model takes."""
    inner = session.get_inputs()[0]
    dtype = np.float32 if inner.type == "tensor(float)" else np.float64
    return tuple(
        session.run(["probabilities", "label"], {inner.name: scores.astype(dtype)})
    )


def expected_of(calibrator: Calibrator, logits: np.ndarray, precision: str) -> Any:
    return calibrator.predict_proba(logits.astype(precision).astype(np.float64))


# ------------------------------------------------------------------ the registry


def test_every_calibrator_has_a_graph() -> None:
    assert set(EXPORTS) == set(WRITTEN)


# A thousand classes take long to fit: one of three methods in every run (the others in
# other formats), all of them among the slow tests.
SIZES = [
    pytest.param(method, k, marks=[pytest.mark.slow] if k == 1000 and turn % 3 else [])
    for turn, method in enumerate(EXPORTED)
    for k in (2, 3, 1000)
]


@both
@pytest.mark.parametrize(("method", "k"), SIZES)
def test_model_says_what_the_calibrator_says(
    method: str, precision: Any, k: int
) -> None:
    calibrator = fitted(method, k)
    model = opened(to_onnx(calibrator, {}, precision))  # a thousand curves: 100 MB
    logits = labelled(k)[0]
    expected = expected_of(calibrator, logits, precision)
    found, label = run(model, logits)
    assert found.dtype == precision
    assert label.dtype == np.int64
    assert np.abs(found - expected).max() <= TOLERANCE[precision]
    assert (expected[np.arange(len(label)), label] == expected.max(axis=1)).all()
    one, _ = run(model, logits[:1])
    np.testing.assert_allclose(one, found[:1], atol=TOLERANCE[precision])
    none, no_label = run(model, logits[:0])
    assert (none.shape, no_label.shape) == ((0, k), (0,))


@every_method
@both
def test_shape_of_the_model(method: str, precision: Any) -> None:
    model = onnx.load_model_from_string(to_onnx(fitted(method, 3), {}, precision))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert not {node.op_type for node in model.graph.node} & FLOAT32_ONLY
    places = [*model.graph.input, *model.graph.output]
    assert [p.name for p in places] == ["logits", "probabilities", "label"]
    rows = [p.type.tensor_type.shape.dim[0].dim_param for p in places]
    assert rows == ["N", "N", "N"]
    real = onnx.TensorProto.FLOAT if precision == "float32" else onnx.TensorProto.DOUBLE
    assert [p.type.tensor_type.elem_type for p in places] == [
        real,
        real,
        onnx.TensorProto.INT64,
    ]
    inner = {t.data_type for t in model.graph.initializer} - {onnx.TensorProto.INT64}
    needs_double = EXPORTS[method].graph.needs_double
    assert inner <= {onnx.TensorProto.DOUBLE if needs_double else real}
    assert len(model.SerializeToString()) < 1 << 20


ROWS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.just(3)),
    elements=st.one_of(
        st.floats(-100, 100, width=32),
        st.sampled_from([-100.0, -1.0, 0.0, 1.0, 100.0]),
        st.just(-np.inf),
    ),
)


@given(ROWS, st.sampled_from(sorted(EXPORTED)), st.sampled_from(PRECISIONS))
@settings(max_examples=150)
def test_any_logits(logits: np.ndarray, method: str, precision: str) -> None:
    logits[np.isneginf(logits).all(axis=1), 0] = 0.0
    expected = expected_of(fitted(method, 3), logits, precision)
    found, label = run(session(method, 3, precision), logits)
    assert np.abs(found - expected).max() <= TOLERANCE[precision]
    chosen = expected[np.arange(len(label)), label]
    assert (expected.max(axis=1) - chosen).max() <= TOLERANCE[precision]


@both
@pytest.mark.parametrize("temperature", [0.001, 0.01, 1.0, 1000.0])
def test_any_temperature_within_its_bounds(precision: Any, temperature: float) -> None:
    state = {"method": "temperature", "parameters": {"temperature": temperature}}
    shape = {"options": {}, "input": "logits", "n_scores": 5, "n_classes": 5}
    calibrator = Calibrator.from_dict({**state, **shape})
    logits = np.random.default_rng(0).uniform(-100, 100, size=(2000, 5))
    logits[::3] = 100 - np.abs(logits[::3]) * temperature / 10
    found, label = run(opened(to_onnx(calibrator, {}, precision)), logits)
    expected = expected_of(calibrator, logits, precision)
    assert np.abs(found - expected).max() <= TOLERANCE[precision]
    assert (label == logits.astype(precision).argmax(axis=1)).all()


def saturated(low: float, high: float) -> tuple[Calibrator, np.ndarray]:
    """Return a curve fitted where probabilities are all but 1, and its rows."""
    rng = np.random.default_rng(0)
    logits = np.zeros((4000, 2))
    logits[:, 1] = np.float32(rng.uniform(low, high, size=4000))
    chance = 1 / (1 + np.exp(-(logits[:, 1] - (low + high) / 2) / 3))
    labels = (rng.random(4000) < chance).astype(int)
    return CALIBRATORS["isotonic"]().fit(logits, labels), logits


@both
def test_knots_next_to_one_are_not_merged(precision: Any) -> None:
    """float32 has two numbers between 0.9999999 and 1; the logits have many."""
    calibrator, logits = saturated(8, 20)
    found, _ = run(opened(to_onnx(calibrator, {}, precision)), logits)
    expected = expected_of(calibrator, logits, precision)
    assert len(calibrator.maps_[0][0]) > 10
    assert np.abs(found - expected).max() <= TOLERANCE[precision]


@both
@pytest.mark.parametrize("smoothing", ["laplace", "none"])
@pytest.mark.parametrize("k", [2, 4])
def test_ties_on_the_edges_of_bins(precision: Any, smoothing: str, k: int) -> None:
    """Rows of equal logits have probabilities that are edges: 1/2 and 1/4."""
    logits, labels = labelled(k)
    calibrator = CALIBRATORS["histogram"](
        n_bins=4, strategy="uniform", smoothing=smoothing
    ).fit(logits, labels)
    z = np.repeat(np.arange(-100.0, 101.0, 10.0)[:, None], k, axis=1)
    z = np.vstack([z, np.where(np.arange(k) < k // 2, z, -np.inf), logits])
    found, _ = run(opened(to_onnx(calibrator, {}, precision)), z)
    expected = expected_of(calibrator, z, precision)
    assert np.abs(found - expected).max() <= TOLERANCE[precision]


def test_one_lies_in_the_last_bin_however_near_the_edge() -> None:
    edges = np.array([0.0, 0.5, np.nextafter(1.0, 0.0), 1.0])
    made = steps(edges, np.array([0.1, 0.2, 0.9]))
    np.testing.assert_array_equal(made(np.array([0.4, 0.7, 1.0])), [0.1, 0.2, 0.9])


@both
def test_separable_rows(precision: Any) -> None:
    """Without a finite optimum coefficients are large, and scores too."""
    logits = np.linspace(-40, 40, 200)[:, None] * np.array([[-0.5, 0.5]])
    labels = (logits[:, 1] > 0).astype(int)
    for method in ("platt", "beta", "vector", "temperature", "isotonic"):
        calibrator = CALIBRATORS[method]().fit(logits, labels)
        found, _ = run(opened(to_onnx(calibrator, {}, precision)), logits)
        expected = expected_of(calibrator, logits, precision)
        assert np.abs(found - expected).max() <= TOLERANCE[precision], method


# ------------------------------------------------------------------ curves


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=60)
def test_curves_are_those_of_numpy(seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.random(m)), np.sort(rng.random(m).round(2))
    p = np.concatenate([rng.random(200), x, [0.0, 1.0]])
    curve = interpolation(x, y)
    np.testing.assert_allclose(curve(p), np.interp(p, x, y), rtol=0, atol=1e-11)
    np.testing.assert_allclose(curve(x), y, rtol=0, atol=1e-13)
    assert (np.diff(curve.start) > 0).all()


def test_steep_curves_keep_their_knots_under_rounding() -> None:
    x = 1 - np.array([1e-3, 1e-9, 9e-10, 1e-14, 0.9e-14])
    y = np.array([0.1, 0.3, 0.5, 0.8, 0.9])
    curve = interpolation(x, y)
    for ulp in (-2, 0, 2):
        moved = x + ulp * np.spacing(x)
        assert np.array_equal(curve(moved)[:3], y[:3])
    assert curve(np.array([0.0]))[0] == 0.1
    assert curve(np.array([1.0]))[0] == 0.9


def test_steps_belong_to_the_bin_below() -> None:
    edges = np.linspace(0, 1, 6)
    values = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    curve = steps(edges, values)
    p = np.random.default_rng(0).random(1000)
    assert np.array_equal(curve(p), values[np.ceil(p * 5).astype(int) - 1])
    assert np.array_equal(curve(edges[1:]), values)
    assert np.array_equal(curve(np.nextafter(edges[1:-1], 1)), values[:-1])
    assert np.array_equal(curve(edges[1:-1] + 1e-12), values[1:])
    assert curve(np.zeros(1))[0] == 0.1


# ------------------------------------------------------------------ what it says

FIT = {
    "classes": ["cat", "naïve 日本語", ""],
    "input": "logits",
    "file": "rows \ud800.csv",
    "fingerprint": "ab" * 32,
    "n_rows": 400,
    "n_fit_rows": 200,
    "split": None,
    "metrics": {"before": {"nll": {"value": 0.5}}, "after": {"nll": {"value": 0.25}}},
    "notes": [],
    "versions": {"python": "3.11"},
    "date": "2026-11-23T00:00:00+00:00",
}


def test_golden_metadata() -> None:
    calibrator = Calibrator.from_dict(
        {
            "method": "temperature",
            "options": {},
            "input": "logits",
            "n_scores": 3,
            "n_classes": 3,
            "parameters": {"temperature": 2.5},
        }
    )
    model = opened(to_onnx(calibrator, FIT, "float32"))
    assert model.get_modelmeta().producer_name == "Plumbline"
    assert model.get_modelmeta().custom_metadata_map == {
        "format": "plumbline-calibrator",
        "version": "1",
        "method": "temperature",
        "convention": "softmax(z / T); one binary score z means the logits (0, z)",
        "input": "logits",
        "classes": '["cat", "na\\u00efve \\u65e5\\u672c\\u8a9e", ""]',
        "temperature": "2.5",
        "label": "place of the most probable class in `classes`, from 0",
        "file": "rows \\ud800.csv",
        "fingerprint": "ab" * 32,
        "n_rows": "400",
        "n_fit_rows": "200",
        "metrics": '{"before": {"nll": {"value": 0.5}}, "after": {"nll": '
        '{"value": 0.25}}}',
        "notes": "[]",
        "versions": '{"python": "3.11"}',
        "date": "2026-11-23T00:00:00+00:00",
    }


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    logits, labels = labelled(3, n=400)
    logits[::7, 0] = -np.inf
    labels = np.where(np.isneginf(logits[:, 0]) & (labels == 0), 1, labels)
    own = Predictions.from_arrays(logits, labels, classes=("a", "b", "c"))
    return analyze(Study(own), replace(QUICK, n_bins=10))


@pytest.fixture(scope="module")
def of_probabilities() -> Analysis:
    logits, labels = labelled(3, n=400)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[:5, 0], p[:5, 1] = 0.0, 1.0 - p[:5, 2]
    own = Predictions.from_arrays(p, labels, input_kind="probabilities")
    return analyze(Study(own), QUICK)


# One worker fits everything, and tries every file.
@pytest.mark.xdist_group("onnx_analysis")
@pytest.mark.usefixtures("ready_interpreter")
@pytest.mark.parametrize("method", CHEAP)
@pytest.mark.parametrize("kind", ["onnx", "onnx32"])
@pytest.mark.parametrize("source", ["analysis", "of_probabilities"])
def test_export_of_an_analysis(
    source: str, method: str, kind: Any, request: pytest.FixtureRequest
) -> None:
    chosen: Analysis = request.getfixturevalue(source)
    if method not in chosen.fitted and method != "uncalibrated":
        pytest.fail(f"{method} was not fitted")
    artefact = export(chosen, method, kind)
    proof = artefact.verification
    assert proof.ok, proof.problem
    assert proof.n_rows == 400
    assert proof.max_difference <= proof.tolerance == TOLERANCES[kind]
    assert proof.n_label_changes == 0
    assert f"{proof.n_bin_changes} their bin" in proof.sentence
    written = exported_calibrator(chosen, method)  # of Auto, the one that it chose
    assert artefact.file_name.startswith(written.method_id)
    assert list(artefact.files) == list(FILES[kind])
    said = opened(artefact.files[FILES[kind][0]]).get_modelmeta().custom_metadata_map
    known = export_metadata(chosen, method)
    assert said["fingerprint"] == chosen.study.fingerprint
    assert json.loads(said["classes"]) == known["classes"]
    assert json.loads(said["metrics"]) == known["metrics"]
    assert said["convention"] == known["convention"]


@pytest.mark.xdist_group("onnx_analysis")
def test_zero_probabilities_take_the_floor_of_the_file(
    of_probabilities: Analysis,
) -> None:
    artefact = export(of_probabilities, "temperature", "onnx")
    model = opened(artefact.files["calibrator.onnx"])
    assert model.get_inputs()[0].name == "uncalibrated_probabilities"
    logits = of_probabilities.study.evaluation.logits
    assert logits is not None
    p = np.exp(logits)
    p[:5, 0] = 0.0  # as in the file
    expected = of_probabilities.fitted["temperature"].calibrator.predict_proba(logits)
    np.testing.assert_allclose(run(model, p)[0], expected, rtol=0, atol=1e-12)


def test_calibrator_fitted_on_one_binary_column() -> None:
    logits, labels = labelled(2)
    calibrator = CALIBRATORS["temperature"]().fit(logits[:, 1:], labels)
    model = opened(to_onnx(calibrator, {}, "float64"))
    expected = predict_given(calibrator, logits, "logits")
    np.testing.assert_allclose(run(model, logits)[0], expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------ verification


def other_temperature(factor: float) -> tuple[bytes, Calibrator]:
    """Return the model of another temperature, and the calibrator itself."""
    calibrator = fitted("temperature", 4)
    values = calibrator.to_dict()
    values["parameters"] = {"temperature": calibrator.temperature_ * factor}
    return to_onnx(Calibrator.from_dict(values), {}, "float64"), calibrator


def test_rows_beyond_the_tolerance_are_counted_and_not_ticked() -> None:
    model, calibrator = other_temperature(1.5)
    found = verify("onnx", "", calibrator, labelled(4)[0], binary=model)
    assert not found.ok
    assert not found.is_offered
    assert found.max_difference > 1e-3
    assert found.n_beyond > 250
    assert found.n_label_changes == 0
    assert found.n_bin_changes > 100
    assert "failed" in found.sentence


def test_a_few_rows_beyond_the_tolerance_are_offered_with_a_warning() -> None:
    model, calibrator = other_temperature(1 + 1e-9)
    logits = np.zeros((300, 4))
    logits[:2] = [[3, 2, 1, 0], [0, 3, 2, 1]]
    found = verify("onnx", "", calibrator, logits, binary=model)
    assert not found.ok
    assert found.is_offered
    assert found.n_beyond == 2
    assert "in 2 rows by more than 1e-12" in found.problem
    assert "not within the tolerance" in found.sentence
    text = to_json(calibrator, {})
    value = repr(calibrator.temperature_)
    nearly = text.replace(value, repr(calibrator.temperature_ * (1 + 1e-9)))
    assert not verify("json", nearly, calibrator, logits).is_offered


def test_rows_that_the_last_bit_decides_are_reported() -> None:
    calibrator, logits = saturated(20, 36)
    model = to_onnx(calibrator, {}, "float64")
    found = verify("onnx", "", calibrator, logits, binary=model)
    assert not found.ok
    assert 0 < found.n_beyond < len(logits)
    assert f"in {found.n_beyond:,} rows" in found.problem


@pytest.mark.parametrize("model", [b"", b"not a model", b"\x08\x08" * 40])
def test_broken_models_fail(model: bytes) -> None:
    calibrator = fitted("temperature", 3)
    found = verify("onnx", "", calibrator, labelled(3)[0], binary=model)
    assert not found.ok
    assert not found.is_offered
    assert found.problem.startswith("it ended with")


def test_scores_that_float32_does_not_hold_fail() -> None:
    calibrator = fitted("temperature", 3)
    logits = labelled(3)[0].copy()
    logits[0, 0] = 1e39
    model = to_onnx(calibrator, {}, "float32")
    found = verify("onnx32", "", calibrator, logits, binary=model)
    assert not found.is_offered
    assert "float32" in found.problem
    model = to_onnx(calibrator, {}, "float64")
    assert verify("onnx", "", calibrator, logits, binary=model).ok


def test_a_label_output_that_lies_is_noticed() -> None:
    calibrator = fitted("temperature", 3)
    model = onnx.load_model_from_string(to_onnx(calibrator, {}, "float64"))
    model.graph.node[-2].op_type = "ArgMin"
    logits = labelled(3)[0]
    data = model.SerializeToString()
    found = verify("onnx", "", calibrator, logits, binary=data)
    assert found.n_label_changes == len(logits)


# ------------------------------------------------------------------ command line

FEW = ("--n-resamples", "100", "--json")


def test_formats_of_the_command_line(
    tmp_path: Any, root: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(root / "sample_data" / "breast_cancer_binary.csv")
    out = tmp_path / "out"
    argv = ["calibrate", file, "--out", str(out), "--formats", "onnx32, ONNX", *FEW]
    assert cli.main(argv) == 0
    document = json.loads(capsys.readouterr().out)
    names = ["calibrator.onnx", "calibrator_float32.onnx"]
    assert document["files"] == [*names, "calibrated.csv", "report.json"]
    assert sorted(p.name for p in out.iterdir()) == sorted(document["files"])
    for name in names:
        proof = document["verification"][name]
        assert proof["ok"]
        assert proof["n_label_changes"] == 0
        assert proof["n_rows"] > 400


def test_command_line_warns_of_a_file_beyond_the_tolerance(
    tmp_path: Any,
    root: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from core.export import verification

    monkeypatch.setitem(verification.TOLERANCES, "onnx", 0.0)
    monkeypatch.setattr(verification, "_FEW", 1.0)
    file = str(root / "sample_data" / "breast_cancer_binary.csv")
    argv = ["calibrate", file, "--out", str(tmp_path), "--formats", "onnx", *FEW]
    assert cli.main(argv) == 1
    said = capsys.readouterr()
    assert "Warning: calibrator.onnx was written, but" in said.err
    assert "rows change their label" in " ".join(said.err.split())
    document = json.loads(said.out)
    assert "calibrator.onnx" in document["files"]
    assert document["verification"]["calibrator.onnx"]["n_beyond"] > 0


@pytest.mark.parametrize("text", ["pickle", "onnx,pickle", "", ","])
def test_unknown_formats_are_refused(text: str) -> None:
    from app.cli_export import chosen_formats

    with pytest.raises(DataError) as caught:
        chosen_formats(text)
    assert "onnx32" in caught.value.how_to_fix


def test_all_formats() -> None:
    from app.cli_export import chosen_formats

    assert chosen_formats("all") == tuple(FILES)
    assert chosen_formats(" torch ,json") == ("json", "torch")
