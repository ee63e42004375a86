"""The bundled out-of-distribution sets as files of their own, and their network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"
STRANGE = SAMPLES / "digits_ood.npz"
REFERENCE = SAMPLES / "digits_reference.npz"


def parts() -> dict[str, bytes]:
    """Return the sample as files of their own: rows, sets and the last layer."""
    with np.load(STRANGE, allow_pickle=False) as archive:
        arrays = dict(archive)
    found = {}
    for name in ("digits", "near_held_out", "far_noise"):
        keep = arrays["dataset"] == name
        given = {key: arrays[key][keep] for key in ("logits", "features")}
        if name == "digits":
            more = ("labels", "split", "id", "group")
            given |= {key: arrays[key][keep] for key in more}
            given["classes"] = arrays["classes"]
        found[name] = packed(**given)
    found["head"] = packed(weight=arrays["head_weight"], bias=arrays["head_bias"])
    return found


def packed(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def model() -> bytes:
    """Return the last layer of the sample's network as an ONNX model."""
    with np.load(STRANGE, allow_pickle=False) as archive:
        weight, bias = archive["head_weight"], archive["head_bias"]
    info, real = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["logits"])],
        "mine",
        [info("x", real, ["n", weight.shape[1]])],
        [info("logits", real, ["n", len(bias)])],
        [
            numpy_helper.from_array(weight.T.copy(), "w"),
            numpy_helper.from_array(bias, "b"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(made.SerializeToString())
