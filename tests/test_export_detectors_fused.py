"""A user's own ONNX model with a detector and a calibrator behind it, in one file."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from ood_cases import K, network

from core.calibrators import CALIBRATORS, Calibrator
from core.export.detectors import (
    FittedDetector,
    export_fused_detector,
    fuse_detector,
)
from core.export.portable import predict_given
from core.messages import DataError
from core.ood import DETECTORS, choose_threshold
from core.predictions import Predictions

pytestmark = pytest.mark.usefixtures("ready_interpreter")
D_IN, D = 6, 12
FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


@functools.cache
def weights() -> dict[str, np.ndarray]:
    rng, head = np.random.default_rng(5), network()
    return {
        "w1": rng.normal(size=(D_IN, D)),
        "b1": rng.normal(size=D) / 3 + 0.5,
        "w2": head.weight.T.copy(),
        "b2": head.bias,
    }


def mine(
    outputs: dict[str, Any] | None = None,
    *,
    real: int = FLOAT,
    opset: int = 17,
    rows: Any = "batch",
    ending: str = "",
    pooled: bool = False,
) -> bytes:
    """Return a network of two layers; `outputs` are further ones, with their sizes."""
    dtype = helper.tensor_dtype_to_np_dtype(real)
    fixed = [numpy_helper.from_array(v.astype(dtype), n) for n, v in weights().items()]
    last = "raw" if ending else "logits"
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], [last]),
    ]
    if ending:
        nodes.append(helper.make_node(ending, ["raw"], ["logits"], axis=1))
    if pooled:
        shape = numpy_helper.from_array(np.array([-1, D, 1, 1]), "shape")
        fixed.append(shape)
        nodes.append(helper.make_node("Reshape", ["hidden", "shape"], ["pooled"]))
    info = helper.make_tensor_value_info
    more = [info(n, real, [rows, *size]) for n, size in (outputs or {}).items()]
    graph = helper.make_graph(
        nodes,
        "mine",
        [info("x", real, [rows, D_IN])],
        [info("logits", real, [rows, K]), *more],
        fixed,
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    return bytes(made.SerializeToString())


def file_of(
    n: int, seed: int, *, inputs: bool = False, kind: str = "logits"
) -> Predictions:
    """Return what a user saved of this network: float32 rows, hidden layer, logits."""
    rng, w = np.random.default_rng(seed), weights()
    x = (rng.normal(size=(n, D_IN)) * 1.5).astype(np.float32)
    h = np.maximum(x @ w["w1"].astype(np.float32) + w["b1"].astype(np.float32), 0)
    z = h @ w["w2"].astype(np.float32) + w["b2"].astype(np.float32)
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    features = {"pixels": x, "features": h} if inputs else h
    scores = z
    if kind == "probabilities":
        scores = np.exp(z - z.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    return Predictions.from_arrays(scores, y, features=features, input_kind=kind)


def inputs_of(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, D_IN)) * 1.5).astype(np.float32)


@functools.cache
def item_of(method: str, kind: str = "logits", **options: Any) -> FittedDetector:
    made = DETECTORS[method](**options)
    made.fit(file_of(300, 0, kind=kind), head=network())
    threshold = choose_threshold(made.score(file_of(100, 1, kind=kind)))
    return FittedDetector(made, threshold, {"input_kind": kind})


@functools.cache
def temperature(kind: str = "logits") -> Calibrator:
    own = file_of(300, 0, kind=kind)
    made: Calibrator = CALIBRATORS["temperature"]().fit(own.logits, own.labels)
    return made


def run(model: bytes, x: np.ndarray) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


WITH_HIDDEN = {"hidden": [D]}


@pytest.mark.parametrize("method", ["vim", "mahalanobis", "she", "energy"])
@pytest.mark.parametrize("outputs", [None, WITH_HIDDEN], ids=["inside", "output"])
def test_one_file_calibrates_scores_and_decides(method: str, outputs: Any) -> None:
    item, own = item_of(method), file_of(70, 2)
    fused, proof = export_fused_detector(
        item, [own], mine(outputs), temperature(), {}, inputs=inputs_of(70, 2)
    )
    assert proof.ok, proof.problem
    assert not proof.is_made_up
    assert proof.n_rows == proof.n_total == 70
    assert proof.n_decision_changes == 0
    assert proof.calibration is not None
    assert proof.calibration.max_difference <= 1e-5
    assert "0 rows change" in proof.sentence
    found = run(fused.model, inputs_of(70, 2))
    names = ["probabilities", "label", "ood_score", "accepted", "logits"]
    assert list(found) == [*names, *(outputs or {})]
    np.testing.assert_allclose(
        found["ood_score"], item.detector.score(own), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(found["accepted"], proof_of(item, own))
    expected = predict_given(temperature(), np.float64(own.logits), "logits")
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    if method != "energy":
        assert set(fused.features.values()) == {"hidden"}


def proof_of(item: FittedDetector, own: Predictions) -> np.ndarray:
    return item.accepts(item.detector.score(own))


def test_without_a_calibrator_and_without_scores() -> None:
    item, own = item_of("vim"), file_of(50, 2, inputs=True)
    fused, proof = export_fused_detector(item, [own], mine(WITH_HIDDEN))
    assert proof.ok, proof.problem
    assert not proof.is_made_up  # the file holds the pixels, too
    assert proof.calibration is None
    assert list(run(fused.model, inputs_of(3, 0)))[:2] == ["ood_score", "accepted"]
    assert fused.scores == ""
    _, proof = export_fused_detector(item, [file_of(50, 2)], mine(WITH_HIDDEN))
    assert proof.ok
    assert proof.is_made_up
    assert "made-up inputs" in proof.sentence


@pytest.mark.parametrize(
    "options", [{"opset": 13}, {"opset": 18}, {"rows": 1}, {"real": DOUBLE}]
)
def test_other_models(options: dict[str, Any]) -> None:
    own, method = file_of(20, 2, inputs=True), "relative-mahalanobis"
    data = mine(WITH_HIDDEN, **options)
    fused, proof = export_fused_detector(
        item_of(method), [own], data, temperature(), {}
    )
    assert proof.ok, proof.problem
    assert fused.precision == ("float64" if "real" in options else "float32")
    assert proof.tolerance == (1e-12 if "real" in options else 1e-5)
    onnx.checker.check_model(onnx.load_model_from_string(fused.model))


def test_the_last_layer_may_be_a_product_with_transposed_weights() -> None:
    model = onnx.load_model_from_string(mine())
    w2 = next(item for item in model.graph.initializer if item.name == "w2")
    w2.CopyFrom(numpy_helper.from_array(network().weight.astype(np.float32), "w2"))
    del model.graph.node[2]
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["w2"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["hidden", "turned"], ["product"]),
            helper.make_node("Add", ["b2", "product"], ["logits"]),
        ]
    )
    fused = fuse_detector(model.SerializeToString(), item_of("vim"))
    assert fused.features == {"features": "hidden"}


def test_pooled_features_are_flattened() -> None:
    item, own = item_of("vim"), file_of(30, 2)
    data = mine({"pooled": [D, 1, 1]}, pooled=True)
    fused, proof = export_fused_detector(item, [own], data, inputs=inputs_of(30, 2))
    assert proof.ok, proof.problem
    assert fused.features == {"features": "pooled"}


def test_layers_are_found_by_name_or_named() -> None:
    own = file_of(300, 0, inputs=True)
    made = DETECTORS["mahalanobis"](layers="all").fit(own)
    item = FittedDetector(made, choose_threshold(made.score(own)), {})
    data = mine(WITH_HIDDEN)
    with pytest.raises(DataError, match="No output of the model can hold the 6"):
        fuse_detector(data, item)
    _, proof = export_fused_detector(item, [own], data, features={"pixels": "x"})
    assert proof.ok, proof.problem
    assert not proof.is_made_up
    with pytest.raises(DataError, match="several layers: pixels, features"):
        fuse_detector(data, item, features="hidden")


def test_what_holds_other_features_is_not_offered() -> None:
    item, own = item_of("vim"), file_of(30, 2)
    _, proof = export_fused_detector(
        item, [own], mine(), features="before", inputs=inputs_of(30, 2)
    )
    assert not proof.is_offered
    assert "'before' does not hold the features of your file" in proof.problem
    _, proof = export_fused_detector(
        item_of("energy"), [own], mine(), inputs=inputs_of(30, 3)
    )
    assert not proof.is_offered
    assert "'logits' does not hold the logits of your file" in proof.problem
    with pytest.raises(DataError, match="3 inputs of the model for 30 rows"):
        export_fused_detector(item, [own], mine(), inputs=inputs_of(3, 0))
    _, proof = export_fused_detector(
        item, [own], mine(), inputs=inputs_of(30, 2)[:, 1:]
    )
    assert not proof.is_offered
    assert "does not take the inputs" in proof.problem


def test_features_that_cannot_be_found_are_asked_for() -> None:
    item = item_of("vim")
    two = mine({"before": [D], "hidden": [D]})
    with pytest.raises(DataError, match="Several outputs could hold the 12 features"):
        fuse_detector(two, item)
    assert fuse_detector(two, item, features="hidden").features["features"] == "hidden"
    with pytest.raises(DataError, match="no value called 'nothing'"):
        fuse_detector(two, item, features="nothing")
    with pytest.raises(DataError, match="'logits' has 4 numbers in a row"):
        fuse_detector(two, item, features="logits")


def test_probabilities_behind_a_softmax() -> None:
    data, kind = mine(ending="Softmax"), "probabilities"
    own = file_of(40, 2, kind=kind)
    fused, proof = export_fused_detector(
        item_of("gen", kind),
        [own],
        data,
        temperature(kind),
        {"input": kind},
        inputs=inputs_of(40, 2),
    )
    assert proof.ok, proof.problem
    assert fused.scores == "logits"
    with pytest.raises(DataError, match="calibrator takes logits, the detector prob"):
        fuse_detector(data, item_of("gen", kind), temperature(), {})
    with pytest.raises(DataError, match="these are probabilities"):
        fuse_detector(data, item_of("energy"), temperature(), {})


def test_names_that_would_appear_twice_are_changed() -> None:
    own = mine(WITH_HIDDEN)
    model = onnx.load_model_from_string(own)
    for node in model.graph.node:
        node.output[:] = ["accepted" if n == "hidden" else n for n in node.output]
        node.input[:] = ["accepted" if n == "hidden" else n for n in node.input]
    model.graph.output[1].name = "accepted"
    fused, proof = export_fused_detector(
        item_of("vim"),
        [file_of(30, 2)],
        model.SerializeToString(),
        temperature(),
        {},
        inputs=inputs_of(30, 2),
    )
    assert proof.ok, proof.problem
    assert fused.features == {"features": "uncalibrated_accepted"}
    said = {
        e.key: e.value for e in onnx.load_model_from_string(fused.model).metadata_props
    }
    assert said["calibrator.method"] == "temperature"
    assert said["detector.method"] == "vim"
    assert said["detector.reads"].startswith("scores from logits, features from")


def test_a_calibrator_of_other_classes_is_refused() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, K + 1))
    other = CALIBRATORS["temperature"]().fit(z, rng.integers(0, K + 1, 60))
    with pytest.raises(DataError, match="The calibrator has 5 classes, the detector 4"):
        fuse_detector(mine(), item_of("energy"), other, {})
