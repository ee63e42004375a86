"""A user's own ONNX model with the calibrator behind it, in one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from methods import EXPORTED
from onnx import TensorProto, helper, numpy_helper
from onnx_models import (
    DOUBLE,
    FLOAT,
    INT64,
    WHOLE,
    D,
    K,
    classifier,
    ending,
    features,
    fitted,
    run,
)

from app import cli
from core.export import from_json
from core.export.fuse import fuse, verify_fused
from core.export.portable import predict_given

# In an interpreter started anew they are run in test_app_fuse.py.
pytestmark = pytest.mark.usefixtures("ready_interpreter")


def check(
    model: onnx.ModelProto, method: str = "temperature", **options: Any
) -> tuple[dict[str, Any], Any]:
    """Fuse, verify, and return what the fused model says and the model itself."""
    data, calibrator = model.SerializeToString(), fitted(method)
    fused = fuse(data, calibrator, {}, **options)
    proof = verify_fused(data, fused, calibrator)
    assert proof.ok, proof.problem
    assert proof.is_made_up
    assert "made-up inputs" in proof.sentence
    onnx.checker.check_model(onnx.load_model_from_string(fused.model))
    dtype = np.float64 if fused.precision == "float64" else np.float32
    found = run(fused.model, features(dtype=dtype))
    scores = np.float64(found[fused.scores])
    expected = predict_given(calibrator, scores, "logits")
    tolerance = 1e-12 if fused.precision == "float64" else 1e-5
    assert found["probabilities"].dtype == fused.precision
    assert np.abs(found["probabilities"] - expected).max() <= tolerance
    chosen = expected[np.arange(len(expected)), found["label"]]
    assert (expected.max(axis=1) - chosen).max() <= tolerance
    return found, onnx.load_model_from_string(fused.model)


# ------------------------------------------------------------------ what is fused


@pytest.mark.parametrize("method", EXPORTED)
@pytest.mark.parametrize("real", [FLOAT, DOUBLE])
def test_every_method_behind_a_model(method: str, real: int) -> None:
    found, model = check(classifier(real=real), method)
    assert list(found) == ["probabilities", "label", "logits"]
    shape = model.graph.output[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", K)


@pytest.mark.parametrize("opset", [9, 12, 13, 17, 18, 22])
@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_opsets_are_kept_or_converted(opset: int, method: str) -> None:
    ir_version = 4 if opset < 15 else 10
    _, model = check(classifier(opset=opset, ir_version=ir_version), method)
    versions = {o.domain: o.version for o in model.opset_import}
    assert versions == {"": 17 if opset < 13 else opset}
    assert model.ir_version == max(8, ir_version)


def test_names_that_would_appear_twice_are_changed() -> None:
    def nodes(output: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Identity", ["scores"], [output]),
            helper.make_node("ArgMax", [output], ["label"], axis=1, keepdims=0),
            helper.make_node(
                "Abs", [output], ["calibrator/Sub_1"], name="calibrator/a"
            ),
        ]

    info = helper.make_tensor_value_info
    others = (
        info("label", INT64, ["batch"]),
        info("calibrator/Sub_1", FLOAT, ["batch", K]),
    )
    model = classifier(output="probabilities", after=nodes, others=others)
    found, _ = check(model, output="probabilities")
    assert list(found) == [
        "probabilities",
        "label",
        "uncalibrated_probabilities",
        "uncalibrated_label",
        "calibrator/Sub_1",
    ]
    own = run(model.SerializeToString(), features())
    assert np.array_equal(own["label"], found["uncalibrated_label"])
    assert np.array_equal(own["probabilities"], found["uncalibrated_probabilities"])


def test_names_inside_of_branches_are_changed_too() -> None:
    def nodes(output: str) -> list[onnx.NodeProto]:
        def branch(kind: str) -> onnx.GraphProto:
            out = helper.make_tensor_value_info(f"{kind}_out", FLOAT, ["batch", K])
            made = helper.make_node(kind, ["label"], [f"{kind}_out"])
            return helper.make_graph([made], kind, [], [out])

        always = numpy_helper.from_array(np.array(True), "always")
        return [
            helper.make_node("Identity", ["scores"], ["label"]),
            helper.make_node("Constant", [], ["always"], value=always),
            helper.make_node(
                "If",
                ["always"],
                [output],
                then_branch=branch("Identity"),
                else_branch=branch("Neg"),
            ),
        ]

    check(classifier(after=nodes))


@pytest.mark.parametrize("shape", [["batch", 1], ["batch"]])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_one_binary_score(shape: list[Any], kind: str) -> None:
    def nodes(output: str) -> list[onnx.NodeProto]:
        made = []
        value = "scores"
        if kind == "probabilities":
            made.append(helper.make_node("Sigmoid", [value], ["p"]))
            value = "p"
        if len(shape) == 1:
            axis = numpy_helper.from_array(np.array([1]), "axis")
            made.append(helper.make_node("Constant", [], ["axis"], value=axis))
            made.append(helper.make_node("Squeeze", [value, "axis"], [output]))
        else:
            made.append(helper.make_node("Identity", [value], [output]))
        return made

    calibrator = fitted("platt", 2)
    data = classifier(1, after=nodes, shape=shape).SerializeToString()
    fused = fuse(data, calibrator, {"input": kind})
    proof = verify_fused(data, fused, calibrator, input_kind=kind)
    assert proof.ok, proof.problem
    found = run(fused.model, features())
    score = np.float64(found[fused.scores]).reshape(-1, 1)
    rows = np.hstack([np.zeros_like(score), score])
    if kind == "probabilities":
        rows = np.hstack([1 - score, score])
    expected = predict_given(calibrator, rows, kind)
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-5)


def test_a_fixed_batch_stays_fixed() -> None:
    data = classifier(rows=1).SerializeToString()
    calibrator = fitted("isotonic")
    fused = fuse(data, calibrator, {})
    assert verify_fused(data, fused, calibrator).ok
    model = onnx.load_model_from_string(fused.model)
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_half_precision_becomes_float32() -> None:
    def nodes(output: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Cast", ["scores"], [output], to=TensorProto.FLOAT16)]

    model = classifier(after=nodes)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    check(model)


def test_the_one_output_that_fits_is_taken() -> None:
    def nodes(output: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Identity", ["scores"], [output]),
            helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
            helper.make_node("Concat", ["x", "scores"], ["wide"], axis=1),
        ]

    info = helper.make_tensor_value_info
    others = (info("class", INT64, ["batch"]), info("wide", FLOAT, ["batch", D + K]))
    found, _ = check(classifier(after=nodes, others=others))
    assert list(found) == ["probabilities", "label", "logits", "class", "wide"]


def test_functions_inside_of_the_model_are_not_custom_operators() -> None:
    def nodes(output: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Twice", ["scores"], [output], domain="mine")]

    model = classifier(after=nodes, opsets=(helper.make_opsetid("mine", 1),))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_function("mine", "Twice", ["a"], ["b"], body, opsets)
    model.functions.append(made)
    check(model)


def test_metadata_of_both_are_kept() -> None:
    model = classifier()
    helper.set_model_props(model, {"version": "mine", "names": "x"})
    calibrator = fitted("temperature")
    fused = fuse(model.SerializeToString(), calibrator, {"fingerprint": "ab"})
    made = onnxruntime.InferenceSession(fused.model)
    said = made.get_modelmeta().custom_metadata_map
    assert said["version"] == "mine"
    assert said["calibrator.version"] == "1"
    assert said["calibrator.temperature"] == repr(calibrator.temperature_)
    assert said["calibrator.scores"] == "logits"
    assert said["calibrator.fingerprint"] == "ab"


# ------------------------------------------------------------------ what is verified


def test_what_cannot_be_seen_is_found_when_it_is_run() -> None:
    data = ending("Softplus")  # above 0, and no sum of 1
    calibrator = fitted("temperature")
    fused = fuse(data, calibrator, {"input": "probabilities"})
    found = verify_fused(data, fused, calibrator, input_kind="probabilities")
    assert not found.ok
    assert not found.is_offered
    assert "its scores are logits" in found.problem


def test_another_model_is_noticed() -> None:
    calibrator = fitted("temperature")
    fused = fuse(WHOLE, calibrator, {})
    other = classifier()
    other.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((D, K), np.float32), "w")
    )
    found = verify_fused(other.SerializeToString(), fused, calibrator)
    assert not found.is_offered
    assert "differ from those of your model" in found.problem


def test_features_of_the_file_are_the_inputs_where_they_can_be() -> None:
    calibrator, x = fitted("temperature"), features(500)
    logits = np.float64(run(WHOLE, x)["logits"])
    fused = fuse(WHOLE, calibrator, {})
    found = verify_fused(WHOLE, fused, calibrator, rows=(x, logits))
    assert found.ok, found.problem
    assert (found.n_rows, found.is_made_up) == (500, False)
    assert "made-up" not in found.sentence
    other = verify_fused(WHOLE, fused, calibrator, rows=(x, logits[::-1]))
    assert not other.is_offered
    assert "not those of your file" in other.problem
    wide = np.hstack([x, x])
    made_up = verify_fused(WHOLE, fused, calibrator, rows=(wide, logits))
    assert made_up.ok
    assert made_up.is_made_up


def test_another_calibrator_is_noticed() -> None:
    fused = fuse(WHOLE, fitted("temperature"), {})
    found = verify_fused(WHOLE, fused, fitted("isotonic"))
    assert not found.is_offered
    assert found.n_beyond > 0


def test_inputs_that_cannot_be_made_up_are_said() -> None:
    model = classifier()
    text = helper.make_tensor_value_info("name", TensorProto.STRING, ["batch"])
    model.graph.input.append(text)
    data, calibrator = model.SerializeToString(), fitted("temperature")
    found = verify_fused(data, fuse(data, calibrator, {}), calibrator)
    assert (found.ok, found.is_run, found.is_offered) == (False, False, True)
    assert found.sentence.startswith("Not run here: its inputs are text")


# ------------------------------------------------------------------ command line


def test_command_line(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last layer of the sample, with the calibrator behind it."""
    sample = np.load(root / "sample_data" / "digits_features.npz", allow_pickle=False)
    parts = {"w": sample["head_weight"].T, "b": sample["head_bias"]}
    made = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["logits"])],
        "head",
        [helper.make_tensor_value_info("x", FLOAT, ["N", parts["w"].shape[0]])],
        [helper.make_tensor_value_info("logits", FLOAT, ["N", 10])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in parts.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "head.onnx"
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=9), path)
    file = str(root / "sample_data" / "digits_features.npz")
    out = tmp_path / "out"
    argv = ["calibrate", file, "--out", str(out), "--n-resamples", "100"]
    assert cli.main([*argv, "--formats", "json", "--fuse", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "head_calibrated.onnx" in document["files"]
    proof = document["verification"]["head_calibrated.onnx"]
    assert proof["ok"]
    assert not proof["is_made_up"]  # the file holds the features that it takes
    assert proof["n_rows"] == len(sample["features"])
    calibrator, _ = from_json((out / "calibrator.json").read_text(encoding="utf-8"))
    found = onnxruntime.InferenceSession(str(out / "head_calibrated.onnx")).run(
        ["probabilities", "label", "logits"], {"x": sample["features"][:50]}
    )
    expected = calibrator.predict_proba(np.float64(found[2]))
    assert np.abs(found[0] - expected).max() <= 1e-5
    assert cli.main([*argv, "--fuse", str(tmp_path / "nothing.onnx")]) == 2
    elsewhere = ["--out", str(tmp_path / "other")]
    assert cli.main([*argv, *elsewhere, "--fuse", file]) == 2
    assert "not an ONNX model" in capsys.readouterr().err
    assert cli.main([*argv, "--fuse", str(path), "--fuse-output", "no"]) == 2
    assert "no output called" in capsys.readouterr().err


def test_evaluate_needs_nothing_of_the_exports(root: Path) -> None:
    file = str(root / "sample_data" / "breast_cancer_binary.csv")
    code = (
        "import sys\nfrom app.cli import main\n"
        f"main(['evaluate', {file!r}, "
        "'--n-resamples', '100', '--no-calibrators', '--json'])\n"
        "heavy = {'onnx', 'onnxruntime', 'torch'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
