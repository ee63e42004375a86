"""Calibrators as ONNX models: scores in, calibrated probabilities and labels out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from core.calibrators import CALIBRATORS, Calibrator
from core.export.graphs import OPSET, TYPES, Graph, Precision
from core.export.methods import EXPORTS, Export
from core.export.methods.keeping import KEPT
from core.export.portable import INPUT_NAMES, document_of, properties

__all__ = [
    "IR_VERSION",
    "LABEL",
    "PROBABILITIES",
    "add_calibrator",
    "inner_precision",
    "set_properties",
    "to_onnx",
]

IR_VERSION = 8
PROBABILITIES, LABEL, COPIES = "probabilities", "label", "copies"


def to_onnx(
    calibrator: Calibrator, metadata: Mapping[str, Any], precision: Precision
) -> bytes:
    """Return the calibrator as an ONNX model of its own.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted, of a method that has an entry in `core.export.methods.EXPORTS`.
    metadata : mapping
        From `export_metadata`; may be empty.
    precision : {"float32", "float64"}
        Type of the input and of the probabilities.

    Returns
    -------
    bytes
        Opset 17, IR version 8. Input `logits` (N, k), or `uncalibrated_probabilities`
        where the rows of the fit were probabilities; outputs `probabilities` (N, k)
        and `label` (N,), the place of the most probable class as int64. N is free.
        Where the fit had m transformed copies of each row, a second input `copies`
        (m, N, k) holds theirs.
        The names of the classes and where the calibrator comes from are in the
        metadata properties (see `core.export.portable.properties`).
    """
    document = document_of(calibrator, metadata)
    graph = Graph(inner_precision(document, precision))
    name, k = INPUT_NAMES[document["input"]], len(document["classes"])
    scores = name if graph.dtype == precision else graph.to_inner(name)
    real = TYPES[precision]
    inputs = [helper.make_tensor_value_info(name, real, ["N", k])]
    n_copies, copies = document.get("n_copies", 0), ""
    if n_copies:
        shape = [n_copies, "N", k]
        inputs.append(helper.make_tensor_value_info(COPIES, real, shape))
        copies = COPIES if graph.dtype == precision else graph.to_inner(COPIES)
    add_calibrator(graph, scores, document, precision, copies=copies)
    made = helper.make_graph(
        graph.nodes,
        "calibrator",
        inputs,
        [
            helper.make_tensor_value_info(PROBABILITIES, real, ["N", k]),
            helper.make_tensor_value_info(LABEL, TensorProto.INT64, ["N"]),
        ],
        graph.constants,
    )
    model = helper.make_model(
        made,
        producer_name="Plumbline",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    set_properties(model, properties(document))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def inner_precision(document: Mapping[str, Any], precision: Precision) -> Precision:
    """Return the type to compute in: float64 where float32 would merge knots.

    Logarithms of probabilities are taken in float64 too: float32 has no room between
    0.9999999 and 1.
    """
    needs_double = _entry(document).graph.needs_double
    is_logits = document["input"] == "logits"
    return precision if is_logits and not needs_double else "float64"


def _entry(document: Mapping[str, Any]) -> Export:
    return EXPORTS[document["method"]].of(document["parameters"])


def add_calibrator(
    graph: Graph,
    scores: str,
    document: Mapping[str, Any],
    precision: Precision,
    outputs: tuple[str, str] = (PROBABILITIES, LABEL),
    copies: str = "",
) -> None:
    """Append a calibrator to a graph.

    Parameters
    ----------
    graph : Graph
    scores : str
        Name of the scores (N, k), in the inner type of the graph.
    document : mapping
        From `document_of`.
    precision : {"float32", "float64"}
        Type of the probabilities.
    outputs : tuple of str
        Names of the probabilities and of the labels.
    copies : str, default=""
        Name of the scores of transformed copies (m, N, k), where they are read.
    """
    k, logits = len(document["classes"]), _logits(graph, scores, document)
    more: dict[str, Any] = {}
    if copies:
        places = range(document["n_copies"])
        each = [graph.op("Gather", copies, np.array(i), axis=0) for i in places]
        more["copies"] = [_logits(graph, copy, document) for copy in each]
    writer = _entry(document).graph
    probabilities = writer.write(graph, logits, document["parameters"], k, **more)
    # Where the order of the classes is kept, labels come from the scores: rounded
    # probabilities may tie.
    is_kept = CALIBRATORS[document["method"]].is_accuracy_preserving
    is_kept |= bool(document["parameters"].get(KEPT))
    best = logits if is_kept else probabilities
    graph.give(probabilities, outputs[0], precision)
    graph.give(graph.op("ArgMax", best, axis=1, keepdims=0), outputs[1])


def _logits(graph: Graph, scores: str, document: Mapping[str, Any]) -> str:
    """Return the logits of scores as they are given."""
    logits = scores
    if document["input"] == "probabilities":
        is_positive = graph.op("Greater", scores, 0.0)
        floor = float(document["log_floor"])
        logits = graph.op("Where", is_positive, graph.op("Log", scores), floor)
    if document["n_scores"] == 1 < len(document["classes"]):
        logits = graph.op("Sub", logits, graph.column(logits, 0))
    return logits


def set_properties(model: onnx.ModelProto, values: Mapping[str, str]) -> None:
    """Set properties of a model; others that it has are kept."""
    kept = {item.key: item.value for item in model.metadata_props}
    helper.set_model_props(model, {**kept, **values})
