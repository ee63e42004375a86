"""ONNX models that users bring: read, checked, and refused where they must be.

Nothing that was uploaded is checked, converted or run by compiled code in this
process: that happens in the clean interpreter. Here its parts are only read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from core.export.graphs import OPSET
from core.export.runners import PREPARE_MODEL, run_clean
from core.messages import DataError

__all__ = ["MAX_BYTES", "check_size", "graphs_of", "opset_of", "read_model"]

MAX_BYTES = 512 * 2**20
"""Largest model that is read."""

_FIRST_OPSET = 13  # in which Softmax and the reductions are what they are today
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # what onnxruntime brings
_OUTSIDE = {"EPContext"}  # operators that read other files
_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive, as torch.save writes"),
    (b"\x80", "a pickle"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer; fetch the file with `git lfs pull`",
    ),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
)
_HOW = "Export it again with torch.onnx.export, tf2onnx or skl2onnx, in one file."


def read_model(
    data: bytes, name: str = "model.onnx", *, timeout: float = 60.0
) -> onnx.ModelProto:
    """Return a model that onnxruntime could run by itself, with shapes inferred.

    Parameters
    ----------
    data : bytes
        One file of at most `MAX_BYTES`.
    name : str, default="model.onnx"
        What to call the file in errors.
    timeout : float, default=60.0
        Seconds that checking and converting may take.

    Returns
    -------
    ModelProto
        Of opset 13 or later; earlier ones are converted to 17.

    Raises
    ------
    DataError
        For anything else: another kind of file, weights in other files, operators
        that onnxruntime does not bring along, newer versions than are known.
    """
    _check_contents(_parsed(data, name), name)
    return _prepared(data, name, timeout)


def check_size(n_bytes: int, name: str) -> None:
    """Refuse a model of more than `MAX_BYTES`."""
    if n_bytes > MAX_BYTES:
        raise DataError(
            f"The model has {n_bytes / 2**20:,.0f} MB; at most "
            f"{MAX_BYTES / 2**20:,.0f} MB are read.",
            name,
            "Take the calibrator by itself and run it behind your model.",
        )


def _parsed(data: bytes, name: str) -> onnx.ModelProto:
    """Return the message; nothing in it is checked."""
    check_size(len(data), name)
    for start, what in _MAGIC:
        if data.startswith(start):
            raise DataError(f"This is not an ONNX model but {what}.", name, _HOW)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise DataError(
            "This is not an ONNX model, or it is cut off.", name, _HOW
        ) from None
    if not model.graph.node or not model.ir_version:
        raise DataError("This is not an ONNX model: it has no graph.", name, _HOW)
    return model


def _check_contents(model: onnx.ModelProto, name: str) -> None:
    """Refuse what lies outside the file, and what onnxruntime does not bring."""
    own = {(function.domain, function.name) for function in model.functions}
    for graph in graphs_of(model):
        for tensor in _tensors(graph):
            if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
                raise DataError(
                    f"The weights {tensor.name!r} lie in another file.",
                    name,
                    "Save the model in one file: onnx.save(onnx.load(path), new_path).",
                )
        for node in graph.node:
            is_known = node.domain in _DOMAINS or (node.domain, node.op_type) in own
            if not is_known or node.op_type in _OUTSIDE:
                raise DataError(
                    f"The model uses the operator {node.domain}:{node.op_type}, which "
                    "onnxruntime does not bring along.",
                    name,
                    "Take the calibrator by itself and run it behind your model.",
                )
    newest = onnx.defs.onnx_opset_version()
    if opset_of(model) > newest or model.ir_version > onnx.IR_VERSION:
        raise DataError(
            f"The model is of opset {opset_of(model)} and IR version "
            f"{model.ir_version}; known are {newest} and {onnx.IR_VERSION}.",
            name,
            "Export it for an older opset, such as 17.",
        )


def graphs_of(
    model: onnx.ModelProto,
) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield the graph, the functions, and all graphs inside of their nodes."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += list(attribute.graphs)


def _tensors(
    graph: onnx.GraphProto | onnx.FunctionProto,
) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a graph holds."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_parts = list(attribute.sparse_tensors)
            if attribute.HasField("sparse_tensor"):
                sparse_parts.append(attribute.sparse_tensor)
            for sparse in sparse_parts:
                yield from (sparse.values, sparse.indices)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators; 17 where none are used."""
    found = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    return max(found, default=OPSET)


def _prepared(data: bytes, name: str, timeout: float) -> onnx.ModelProto:
    """Check, convert and infer shapes in the clean interpreter."""
    with tempfile.TemporaryDirectory(prefix="fuse-") as folder:
        place = Path(folder)
        (place / "model.onnx").write_bytes(data)
        (place / "prepare.py").write_text(PREPARE_MODEL, encoding="utf-8")
        asked = np.array([_FIRST_OPSET, OPSET])
        _, problem = run_clean(place, "prepare.py", asked, timeout)
        made = place / "prepared.onnx"
        if problem or not made.is_file():
            raise DataError(
                f"The model is not valid ONNX, or cannot be converted to opset "
                f"{OPSET}: {problem.removeprefix('it ended with: ') or 'no result'}",
                name,
                "Check it with onnx.checker.check_model, or export it for opset 17.",
            )
        model: onnx.ModelProto = onnx.ModelProto.FromString(made.read_bytes())
        return model
