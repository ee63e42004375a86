"""A user's own ONNX model with the calibrator behind it, in one file."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from core.analysis import Analysis
from core.calibrators import Calibrator
from core.export.graphs import OPSET, TYPES, Graph, Precision
from core.export.onnx import (
    IR_VERSION,
    LABEL,
    PROBABILITIES,
    add_calibrator,
    inner_precision,
    set_properties,
)
from core.export.portable import (
    as_given,
    document_of,
    export_metadata,
    exported_calibrator,
    predict_given,
    properties,
)
from core.export.runners import RUN_FUSED, run_clean
from core.export.user_model import graphs_of, opset_of, read_model
from core.export.verification import (
    MAX_CELLS,
    TOLERANCES,
    Verification,
    judge,
    row_differences,
)
from core.messages import DataError

__all__ = ["Fused", "export_fused", "fuse", "verify_fused"]

FloatArray = NDArray[np.floating[Any]]

_OF_PROBABILITIES = {"Softmax", "Sigmoid"}
_OF_LOGITS = {"Gemm", "MatMul", "LogSoftmax", "Conv"}
_REAL: dict[int, Precision] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float32",
    TensorProto.BFLOAT16: "float32",
    TensorProto.DOUBLE: "float64",
}
_N_INPUTS = 32
_SAME = 1e-4  # how far scores may lie apart, relative to the largest
_SAME_FILE = 1e-3  # how far probabilities may lie from those of the file's scores
_REFUSES = ("it ended with: it refuses inputs", "it ended with: its inputs are text")


@dataclass(frozen=True, slots=True)
class Fused:
    """A user's model with a calibrator behind it.

    Parameters
    ----------
    model : bytes
        Outputs `probabilities` and `label`, then every output of the user's model; of
        those, names that would appear twice begin with `uncalibrated_`.
    scores : str
        Name, in `model`, of the output that the calibrator takes.
    precision : {"float32", "float64"}
        Type of the probabilities.
    place : int
        Number of that output among those of the user's model, from 0.
    """

    model: bytes
    scores: str
    precision: Precision
    place: int


@dataclass(frozen=True, slots=True)
class _Scores:
    """The output of a model that holds the scores."""

    name: str
    type: int
    rank: int
    width: int | None


def fuse(
    data: bytes,
    calibrator: Calibrator,
    metadata: Mapping[str, Any],
    *,
    output: str | None = None,
    name: str = "model.onnx",
    timeout: float = 60.0,
) -> Fused:
    """Append a calibrator to a model whose output is what it was fitted on.

    Parameters
    ----------
    data : bytes
        The user's ONNX model (see `core.export.user_model.read_model`).
    calibrator : Calibrator
    metadata : mapping
        From `export_metadata`; its `input` says whether the model must give logits or
        probabilities.
    output : str, optional
        Which output holds the scores; needed where several could.
    name : str, default="model.onnx"
        What to call the file in errors.
    timeout : float, default=60.0
        Seconds that checking and converting the model may take.

    Returns
    -------
    Fused

    Raises
    ------
    DataError
        For what `read_model` refuses, and for a model without an output of real
        numbers of shape (N, k), or of one column for two classes.
    """
    document = document_of(calibrator, metadata)
    model = read_model(data, name, timeout=timeout)
    scores = _chosen_output(model, output, document, name)
    _check_meaning(model, scores, document, name)
    for taken in (PROBABILITIES, LABEL):
        if any(item.name == taken for item in model.graph.input):
            raise DataError(
                f"The model has an input called {taken!r}, as the new output would be.",
                name,
                "Rename the input, and export the model again.",
            )
        other = _unused(model, f"uncalibrated_{taken}")
        _rename(model.graph, taken, other)
        if scores.name == taken:
            scores = replace(scores, name=other)
    place = [item.name for item in model.graph.output].index(scores.name)
    precision = _REAL[scores.type]
    _append(model, scores, document, precision)
    said = {f"calibrator.{key}": v for key, v in properties(document).items()}
    said["calibrator.scores"] = scores.name
    set_properties(model, said)
    return Fused(model.SerializeToString(), scores.name, precision, place)


def export_fused(
    analysis: Analysis,
    method: str,
    data: bytes,
    *,
    output: str | None = None,
    name: str = "model.onnx",
) -> tuple[Fused, Verification]:
    """Append a fitted calibrator to a user's model, and run what was made.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator, or "uncalibrated".
    data, output, name
        As in `fuse`.
    """
    metadata = export_metadata(analysis, method)
    calibrator = exported_calibrator(analysis, method)
    fused = fuse(data, calibrator, metadata, output=output, name=name)
    chosen, own = analysis.settings, analysis.study.evaluation
    rows = None
    if isinstance(own.features, np.ndarray) and own.logits is not None:
        rows = (own.features, own.logits)
    proof = verify_fused(
        data,
        fused,
        calibrator,
        rows=rows,
        input_kind=metadata["input"],
        bins=(chosen.n_bins, chosen.strategy),
    )
    return fused, proof


def verify_fused(
    data: bytes,
    fused: Fused,
    calibrator: Calibrator,
    *,
    rows: tuple[FloatArray, FloatArray] | None = None,
    input_kind: str = "logits",
    bins: tuple[int, str] = (15, "uniform"),
    timeout: float = 120.0,
) -> Verification:
    """Run both models on the same inputs, and compare with the calibrator.

    What the fused model says is compared with what the calibrator makes of the scores
    that the same model gives, and these scores with those of the user's model. Inputs
    are random, unless the file of the analysis holds features that the model takes:
    then its scores must also be those of the file.

    Parameters
    ----------
    data : bytes
        The user's model.
    fused : Fused
        From `fuse`.
    calibrator : Calibrator
    rows : tuple of ndarray, optional
        Features (n, d) and logits (n, k) of the file.
    input_kind : {"logits", "probabilities"}, default="logits"
    bins : tuple of int and str, default=(15, "uniform")
    timeout : float, default=120.0
        Seconds that the interpreter may take.

    Returns
    -------
    Verification
        With ``is_run=False`` where the user's model refuses every input that can be
        made up.
    """
    start, k = time.perf_counter(), int(calibrator.classes_.size)
    with tempfile.TemporaryDirectory(prefix="fuse-") as folder:
        place = Path(folder)
        (place / "model.onnx").write_bytes(data)
        (place / "fused.onnx").write_bytes(fused.model)
        (place / "run.py").write_text(RUN_FUSED, encoding="utf-8")
        asked = np.array([fused.place, _N_INPUTS])
        if rows is not None:
            rows = _sampled(rows)
            np.save(place / "features.npy", rows[0], allow_pickle=False)
        arrays, problem = run_clean(place, "run.py", asked, timeout)
    scores = _two_columns(arrays.get("scores"), k, input_kind)
    n = 0 if scores is None else len(scores)
    is_of_file = rows is not None and int(arrays.get("of_file", np.array(0))) > 0
    facts: dict[str, Any] = {
        "n_rows": n,
        "n_total": n,
        "seconds": time.perf_counter() - start,
        "interpreter": f"Python {platform.python_version()}, onnxruntime "
        f"{version('onnxruntime')}",
        "is_made_up": not is_of_file,
    }
    tolerance = TOLERANCES["onnx" if fused.precision == "float64" else "onnx32"]
    if problem.startswith(_REFUSES):
        return Verification(
            max_difference=float("nan"),
            ok=False,
            n_label_changes=0,
            problem=f"not run here: {problem.removeprefix('it ended with: ')}",
            tolerance=tolerance,
            is_run=False,
            is_offered=True,
            **facts,
        )
    if not problem:
        problem = _about_scores(scores, arrays.get("theirs"), input_kind)
    expected: FloatArray = np.zeros((n, k))
    if scores is not None and not problem:
        expected = predict_given(calibrator, scores, input_kind)
    if rows is not None and is_of_file and not problem:
        shown = predict_given(calibrator, as_given(rows[1], input_kind), input_kind)
        gap = float(np.abs(expected - shown).max())
        if not gap <= _SAME_FILE:
            problem = (
                "its scores are not those of your file: calibrated, they differ by up "
                f"to {gap:.1e}"
            )
    return judge(
        arrays,
        problem,
        row_differences(arrays.get("out"), expected),
        expected,
        tolerance=tolerance,
        bins=bins,
        may_differ=True,
        **facts,
    )


def _sampled(rows: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return at most `MAX_CELLS` features and scores, of evenly spaced rows."""
    features, logits = rows
    n = min(len(features), max(1, MAX_CELLS // (features.shape[1] + logits.shape[1])))
    places = np.linspace(0, len(features) - 1, n).round().astype(np.int64)
    return features[places], logits[places]


def _two_columns(
    scores: FloatArray | None, k: int, input_kind: str
) -> FloatArray | None:
    """Return scores (n, k); one binary score z means (0, z)."""
    if scores is None or scores.size == 0:
        return None
    rows = scores[:, None] if scores.ndim == 1 else scores
    if rows.shape[1] == 1 < k:
        first = 1.0 - rows if input_kind == "probabilities" else np.zeros_like(rows)
        rows = np.hstack([first, rows])
    return rows if rows.shape[1] == k else None


def _about_scores(
    scores: FloatArray | None, theirs: FloatArray | None, input_kind: str
) -> str:
    """Return what is wrong with the scores that a fused model gives, if anything."""
    if scores is None or theirs is None:
        return "its scores do not have one column per class"
    if not np.isfinite(scores).all():
        return "its scores are not finite"
    sums = np.abs(scores.sum(axis=1) - 1).max()
    is_probabilities = bool((scores >= 0).all() and sums <= 1e-3)
    if is_probabilities != (input_kind == "probabilities"):
        found = "probabilities" if is_probabilities else "logits"
        return f"its scores are {found}, and the calibrator takes {input_kind}"
    raw = scores[:, -theirs.reshape(len(scores), -1).shape[1] :]
    gap = np.abs(raw - theirs.reshape(raw.shape)).max()
    if not gap <= _SAME * max(1.0, np.abs(theirs).max()):
        return f"its scores differ from those of your model by up to {gap:.1e}"
    return ""


def _chosen_output(
    model: onnx.ModelProto, wanted: str | None, document: Mapping[str, Any], name: str
) -> _Scores:
    """Return the output that holds the scores, or say why there is none."""
    k = len(document["classes"])
    found: dict[str, _Scores | str] = {
        item.name: _as_scores(item, k) for item in model.graph.output
    }
    if wanted is not None and wanted not in found:
        raise DataError(
            f"The model has no output called {wanted!r}.",
            name,
            f"Its outputs are: {', '.join(found)}.",
        )
    usable = {key: item for key, item in found.items() if isinstance(item, _Scores)}
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


def _as_scores(item: onnx.ValueInfoProto, k: int) -> _Scores | str:
    """Return the output as scores of k classes, or what is wrong with it."""
    if not item.type.HasField("tensor_type"):
        return "is not a tensor"
    given = item.type.tensor_type
    if given.elem_type not in _REAL:
        return f"is of type {TensorProto.DataType.Name(given.elem_type).lower()}"
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in given.shape.dim]
    rank = len(sizes) if given.HasField("shape") else 2
    if rank not in (1, 2) or (rank == 1 and k != 2):
        return f"has {rank} dimensions"
    width = 1 if rank == 1 else (sizes[1] if sizes else None)
    if width not in (None, k, *([1] if k == 2 else [])):
        return f"has {width} columns"
    return _Scores(item.name, given.elem_type, rank, width)


def _check_meaning(
    model: onnx.ModelProto, scores: _Scores, document: Mapping[str, Any], name: str
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


def _unused(model: onnx.ModelProto, start: str) -> str:
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


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
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


def _append(
    model: onnx.ModelProto,
    scores: _Scores,
    document: Mapping[str, Any],
    precision: Precision,
) -> None:
    """Append the calibrator's nodes, and make their results the first outputs."""
    k, prefix = len(document["classes"]), _unused(model, "calibrator") + "/"
    graph = Graph(
        inner_precision(document, precision), opset=opset_of(model), prefix=prefix
    )
    values = graph.to_inner(scores.name)
    if scores.rank == 1:
        values = graph.op("Unsqueeze", values, np.array([1]))
    if scores.width == 1 < k:
        first = graph.op("Sub", values, values)  # one score z means (0, z)
        if document["input"] == "probabilities":
            first = graph.op("Sub", 1.0, values)
        values = graph.op("Concat", first, values, axis=1)
    add_calibrator(graph, values, document, precision)
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    own = list(model.graph.output)
    chosen = next(item for item in own if item.name == scores.name)
    del model.graph.output[:]
    rows = _row_dimension(chosen)
    real = TYPES[precision]
    made = helper.make_tensor_value_info
    model.graph.output.extend(
        [
            made(PROBABILITIES, real, [rows, k]),
            made(LABEL, TensorProto.INT64, [rows]),
            *own,
        ]
    )
    if not any(o.domain in ("", "ai.onnx") for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = max(model.ir_version, IR_VERSION)


def _row_dimension(item: onnx.ValueInfoProto) -> int | str:
    """Return the first dimension as the user's model has it."""
    dimensions = item.type.tensor_type.shape.dim
    if not dimensions:
        return "N"
    if dimensions[0].HasField("dim_value"):
        return int(dimensions[0].dim_value)
    return dimensions[0].dim_param or "N"
