"""Values of users' ONNX models: which one holds the scores, and free names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from core.export.graphs import OPSET, Graph, Precision
from core.export.onnx import IR_VERSION
from core.export.user_model import graphs_of
from core.messages import DataError

__all__ = [
    "REAL",
    "ScoreOutput",
    "check_meaning",
    "chosen_scores",
    "class_scores",
    "extend",
    "make_room",
    "rename",
    "row_dimension",
    "unused_name",
]

REAL: dict[int, Precision] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float32",
    TensorProto.BFLOAT16: "float32",
    TensorProto.DOUBLE: "float64",
}
"""Types of real numbers, and the type in which results are given."""

_OF_PROBABILITIES = {"Softmax", "Sigmoid"}
_OF_LOGITS = {"Gemm", "MatMul", "LogSoftmax", "Conv"}


@dataclass(frozen=True, slots=True)
class ScoreOutput:
    """The output of a model that holds the scores."""

    name: str
    type: int
    rank: int
    width: int | None


def chosen_scores(
    model: onnx.ModelProto, wanted: str | None, document: Mapping[str, Any], name: str
) -> ScoreOutput:
    """Return the output that holds the scores, or say why there is none."""
    k = len(document["classes"])
    found: dict[str, ScoreOutput | str] = {
        item.name: _as_scores(item, k) for item in model.graph.output
    }
    if wanted is not None and wanted not in found:
        raise DataError(
            f"The model has no output called {wanted!r}.",
            name,
            f"Its outputs are: {', '.join(found)}.",
        )
    usable = {key: item for key, item in found.items() if isinstance(item, ScoreOutput)}
    if wanted is not None and wanted in usable:
        return usable[wanted]
    if wanted is None and len(usable) == 1:
        return next(iter(usable.values()))
    if wanted is None and usable:
        raise DataError(
            f"Several outputs could hold the {document['input']}: {', '.join(usable)}.",
            name,
            "Name one of them (--fuse-output).",
        )
    asked = found if wanted is None else {wanted: found[wanted]}
    why = "; ".join(f"{key} {reason}" for key, reason in asked.items())
    raise DataError(
        f"No output can hold the {document['input']} of {k} classes: {why}."
        if wanted is None
        else f"The output {why}; the calibrator has {k} classes.",
        name,
        "Choose the output of shape (rows, classes) that your file was made from. "
        "For skl2onnx, export with options={'zipmap': False}.",
    )


def _as_scores(item: onnx.ValueInfoProto, k: int) -> ScoreOutput | str:
    """Return the output as scores of k classes, or what is wrong with it."""
    if not item.type.HasField("tensor_type"):
        return "is not a tensor"
    given = item.type.tensor_type
    if given.elem_type not in REAL:
        return f"is of type {TensorProto.DataType.Name(given.elem_type).lower()}"
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in given.shape.dim]
    rank = len(sizes) if given.HasField("shape") else 2
    if rank not in (1, 2) or (rank == 1 and k != 2):
        return f"has {rank} dimensions"
    width = 1 if rank == 1 else (sizes[1] if sizes else None)
    if width not in (None, k, *([1] if k == 2 else [])):
        return f"has {width} columns"
    return ScoreOutput(item.name, given.elem_type, rank, width)


def check_meaning(
    model: onnx.ModelProto, scores: ScoreOutput, document: Mapping[str, Any], name: str
) -> None:
    """Refuse probabilities where logits are meant, and the reverse, if it is plain."""
    makers = {out: node for node in model.graph.node for out in node.output}
    at = scores.name
    while at in makers and makers[at].op_type in ("Identity", "Cast", "Squeeze"):
        at = makers[at].input[0]
    kind = makers[at].op_type if at in makers else ""
    wants_logits = document["input"] == "logits"
    if kind not in (_OF_PROBABILITIES if wants_logits else _OF_LOGITS):
        return
    found = "probabilities" if wants_logits else "logits"
    raise DataError(
        f"The output {scores.name!r} is made by {kind}: these are {found}, and the "
        f"calibrator was fitted on {document['input']}.",
        name,
        f"Give the model that made the {document['input']} of your file, or fit on a "
        f"file of {found}.",
    )


def unused_name(model: onnx.ModelProto, start: str) -> str:
    """Return `start`, lengthened until no name in the model begins with it."""
    names = {
        name
        for graph in graphs_of(model)
        for node in graph.node
        for name in (node.name, *node.input, *node.output)
    }
    names |= {item.name for item in (*model.graph.input, *model.graph.initializer)}
    while any(name.startswith(start) for name in names):
        start += "_"
    return start


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value of the graph another name, wherever it is used."""
    waiting = [graph]
    while waiting:
        part = waiting.pop()
        places = (part.input, part.output, part.value_info, part.initializer)
        for item in (item for place in places for item in place):
            if item.name == old:
                item.name = new
        for node in part.node:
            for names in (node.input, node.output):
                for number, found in enumerate(names):
                    if found == old:
                        names[number] = new
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += list(attribute.graphs)


def make_room(
    model: onnx.ModelProto, names: Sequence[str], where: str
) -> dict[str, str]:
    """Give values that are called as new outputs another name.

    Parameters
    ----------
    model : ModelProto
    names : sequence of str
        Of the new outputs.
    where : str
        What to call the file in errors.

    Returns
    -------
    dict of str to str
        Old name -> new one, of every name.

    Raises
    ------
    DataError
        If an input of the model has such a name.
    """
    found = {}
    for taken in names:
        if any(item.name == taken for item in model.graph.input):
            raise DataError(
                f"The model has an input called {taken!r}, as the new output would be.",
                where,
                "Rename the input, and export the model again.",
            )
        found[taken] = unused_name(model, f"uncalibrated_{taken}")
        rename(model.graph, taken, found[taken])
    return found


def class_scores(
    graph: Graph, scores: ScoreOutput, k: int, *, is_probabilities: bool
) -> str:
    """Return the scores of every class (N, k), in the inner type of a graph."""
    values = graph.to_inner(scores.name)
    if scores.rank == 1:
        values = graph.op("Unsqueeze", values, np.array([1]))
    if scores.width == 1 < k:
        first = graph.op("Sub", values, values)  # one score z means (0, z)
        if is_probabilities:
            first = graph.op("Sub", 1.0, values)
        values = graph.op("Concat", first, values, axis=1)
    return values


def extend(model: onnx.ModelProto, graph: Graph) -> None:
    """Put the nodes and constants of a graph into a model."""
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    if not any(o.domain in ("", "ai.onnx") for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = max(model.ir_version, IR_VERSION)


def row_dimension(model: onnx.ModelProto, output: str) -> int | str:
    """Return the first dimension of an output as the user's model has it."""
    item = next(item for item in model.graph.output if item.name == output)
    dimensions = item.type.tensor_type.shape.dim
    if not dimensions:
        return "N"
    if dimensions[0].HasField("dim_value"):
        return int(dimensions[0].dim_value)
    return dimensions[0].dim_param or "N"
