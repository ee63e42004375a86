"""Detectors as ONNX models: rows in, scores and what is accepted out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from core.export.detectors.base import Rows
from core.export.detectors.fitted import FittedDetector
from core.export.detectors.module import needed
from core.export.detectors.registered import EXPORTS, is_double
from core.export.graphs import OPSET, TYPES, Graph, Precision
from core.export.onnx import IR_VERSION, set_properties
from core.export.portable import as_text
from core.ood.base import DETECTORS

__all__ = ["ACCEPTED", "SCORE", "add_detector", "inner_type", "properties", "to_onnx"]

SCORE, ACCEPTED = "ood_score", "accepted"


def to_onnx(item: FittedDetector, precision: Precision) -> bytes:
    """Return the detector as an ONNX model of its own.

    Parameters
    ----------
    item : FittedDetector
    precision : {"float32", "float64"}
        Type of the inputs and of the score.

    Returns
    -------
    bytes
        Opset 17, IR version 8. Inputs as `FittedDetector.inputs` names them; outputs
        `ood_score` (N,), larger = more out-of-distribution, and `accepted` (N,), bool:
        whether the score is at most the threshold. N is free.
    """
    graph, real = Graph(inner_type(item, precision)), TYPES[precision]
    given = {}
    for entry in item.inputs:
        is_inner = graph.dtype == precision
        given[entry.name] = entry.name if is_inner else graph.to_inner(entry.name)
    add_detector(graph, given, item, precision)
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        "detector",
        [info(entry.name, real, ["N", entry.width]) for entry in item.inputs],
        [info(SCORE, real, ["N"]), info(ACCEPTED, TensorProto.BOOL, ["N"])],
        graph.constants,
    )
    model = helper.make_model(
        made,
        producer_name="Plumbline",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    set_properties(model, properties(item))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def inner_type(item: FittedDetector, precision: Precision) -> Precision:
    """Return the type to compute in: float64 where float32 would lose digits."""
    is_logits = item.input_kind == "logits"
    is_single = is_logits and not is_double(item.detector.to_dict())
    return precision if is_single else "float64"


def add_detector(
    graph: Graph,
    given: Mapping[str, str],
    item: FittedDetector,
    precision: Precision,
    outputs: tuple[str, str] = (SCORE, ACCEPTED),
) -> None:
    """Append a detector to a graph.

    Parameters
    ----------
    graph : Graph
    given : mapping of str to str
        Name of each of the detector's inputs -> value in the inner type of the graph.
    item : FittedDetector
    precision : {"float32", "float64"}
        Type of the score.
    outputs : tuple of str
        Names of the score and of what is accepted.
    """
    document = needed(item.detector.to_dict())
    logits, features = "", {}
    for entry in item.inputs:
        value = given[entry.name]
        if entry.holds == "features":
            features[entry.layer] = value
        elif entry.holds == "probabilities":
            is_positive = graph.op("Greater", value, 0.0)
            logs = graph.op("Log", value)
            logits = graph.op("Where", is_positive, logs, item.log_floor)
        else:
            logits = value
    rows = Rows(logits, features)
    column = EXPORTS[item.method].write(graph, rows, document)
    score = graph.op("Squeeze", column, np.array([1]))
    graph.give(score, outputs[0], precision)
    # In double, whatever the rest is: rounding the threshold would move it.
    bound = graph.double(item.threshold.value)
    double = graph.op("Cast", score, to=TensorProto.DOUBLE)
    accepted = graph.op("LessOrEqual", double, bound)
    graph.nodes.append(helper.make_node("Identity", [accepted], [outputs[1]]))


def properties(item: FittedDetector) -> dict[str, str]:
    """Return what a model says of its detector, as text; lists and tables are JSON."""
    found: dict[str, Any] = {
        "format": "plumbline-detector",
        "method": item.method,
        "label": DETECTORS[item.method].label,
        "score": f"{EXPORTS[item.method].formula}; larger = more out-of-distribution",
        "threshold": item.threshold.value,
        "accepted": "whether the score is at most the threshold",
        **{f"fit.{key}": value for key, value in item.metadata.items()},
        "fit.threshold": item.threshold.to_dict(),
    }
    return {key: as_text(value) for key, value in found.items() if value is not None}
