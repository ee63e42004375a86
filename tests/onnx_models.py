"""ONNX models that the tests make: a linear classifier, and what comes after it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from core.calibrators import CALIBRATORS, Calibrator

K, D = 4, 6
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


@functools.cache
def fitted(method: str, k: int = K) -> Calibrator:
    rng = np.random.default_rng(k)
    logits = rng.normal(size=(300, k)) * 3
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return CALIBRATORS[method]().fit(logits, labels)  # type: ignore[no-any-return]


def weights(width: int, dtype: Any = np.float32) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(0)
    values = {"w": rng.normal(size=(D, width)) * 2, "b": rng.normal(size=width)}
    return [numpy_helper.from_array(v.astype(dtype), n) for n, v in values.items()]


def classifier(
    width: int = K,
    *,
    opset: int = 17,
    ir_version: int = 8,
    real: int = FLOAT,
    rows: Any = "batch",
    output: str = "logits",
    after: Callable[[str], list[onnx.NodeProto]] | None = None,
    others: tuple[onnx.ValueInfoProto, ...] = (),
    shape: list[Any] | None = None,
    opsets: tuple[onnx.OperatorSetIdProto, ...] = (),
) -> onnx.ModelProto:
    """Return x @ w + b, and what `after` makes of the value "scores"."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["scores"], name="gemm")]
    nodes += (
        [helper.make_node("Identity", ["scores"], [output])]
        if after is None
        else after(output)
    )
    dtype = helper.tensor_dtype_to_np_dtype(real)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mine",
        [info("x", real, [rows, D])],
        [info(output, real, [rows, width] if shape is None else shape), *others],
        weights(width, dtype),
    )
    imports = [helper.make_opsetid("", opset), *opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def run(model: bytes, inputs: np.ndarray) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": inputs}), strict=True))


def features(n: int = 50, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, D)).astype(dtype)


def ending(kind: str, **attributes: Any) -> bytes:
    """Return a model that ends with one operator."""

    def nodes(output: str) -> list[onnx.NodeProto]:
        return [helper.make_node(kind, ["scores"], [output], **attributes)]

    domain = attributes.get("domain", "")
    opsets = (helper.make_opsetid(domain, 1),) if domain else ()
    return classifier(after=nodes, opsets=opsets).SerializeToString()


def two_outputs(k: int = K) -> bytes:
    """Return a model of which two outputs could hold the scores."""

    def nodes(output: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Identity", ["scores"], [n]) for n in (output, "aux")]

    info = helper.make_tensor_value_info("aux", FLOAT, ["batch", k])
    return classifier(k, after=nodes, others=(info,)).SerializeToString()


WHOLE = classifier().SerializeToString()
