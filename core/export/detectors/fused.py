"""A user's own ONNX model with a detector, and a calibrator, behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto, helper

from core.calibrators import Calibrator
from core.export.detectors.fitted import FittedDetector, Input
from core.export.detectors.onnx import (
    ACCEPTED,
    SCORE,
    add_detector,
    inner_type,
    properties,
)
from core.export.fuse import append_calibrator, check_reads
from core.export.graphs import TYPES, Graph, Precision
from core.export.model_outputs import (
    REAL,
    ScoreOutput,
    check_meaning,
    chosen_scores,
    class_scores,
    extend,
    make_room,
    row_dimension,
    unused_name,
)
from core.export.onnx import LABEL, PROBABILITIES, set_properties
from core.export.portable import document_of
from core.export.portable import properties as calibrator_properties
from core.export.user_model import opset_of, read_model
from core.messages import DataError

__all__ = ["FusedDetector", "fuse_detector"]

_PASSED = {"Identity", "Cast", "Squeeze", "Softmax", "LogSoftmax", "Add"}
_LINEAR = {"Gemm", "MatMul"}


@dataclass(frozen=True, slots=True)
class FusedDetector:
    """A user's model with a detector, and perhaps a calibrator, behind it.

    Parameters
    ----------
    model : bytes
        Outputs `probabilities` and `label` where there is a calibrator, `ood_score`,
        `accepted`, then every output of the user's model; of those, names that would
        appear twice begin with `uncalibrated_`.
    scores : str
        Output, in `model`, that holds the class scores; empty where none are read.
    features : mapping of str to str
        Input of the detector -> value, in `model`, that holds it.
    precision : {"float32", "float64"}
        Type of probabilities and score.
    probe : bytes
        The same model, whose outputs also hold the features: to verify it.
    """

    model: bytes
    scores: str
    features: Mapping[str, str]
    precision: Precision
    probe: bytes

    @property
    def sentence(self) -> str:
        """Which values of the model are read, in a few words."""
        parts = [f"scores from {self.scores}"] if self.scores else []
        parts += [f"{name} from {value}" for name, value in self.features.items()]
        return ", ".join(parts)


def fuse_detector(
    data: bytes,
    item: FittedDetector,
    calibrator: Calibrator | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    scores: str | None = None,
    features: str | Mapping[str, str] | None = None,
    name: str = "model.onnx",
    timeout: float = 60.0,
) -> FusedDetector:
    """Append a detector, and a calibrator, to the model that made their rows.

    Parameters
    ----------
    data : bytes
        The user's ONNX model (see `core.export.user_model.read_model`).
    item : FittedDetector
    calibrator : Calibrator, optional
        Without it the model gains the score and what is accepted only.
    metadata : mapping, optional
        Of the calibrator, from `export_metadata`, or as `from_json` returns it.
    scores : str, optional
        Which output holds the class scores; needed where several could.
    features : str or mapping of str to str, optional
        Which value holds the features, by layer where several are read. It need not be
        an output. By default the one output of the right width, else what enters the
        last linear layer.
    name : str, default="model.onnx"
        What to call the file in errors.
    timeout : float, default=60.0
        Seconds that checking and converting the model may take.

    Raises
    ------
    DataError
        For what `read_model` refuses, and for a model in which the scores or the
        features cannot be found.
    FitError
        If the detector is too large to be written.
    """
    item.check_size()
    document = None
    if calibrator is not None:
        check_reads(calibrator)
        document = document_of(calibrator, metadata or {})
        _check_same_rows(document, item, name)
    model = read_model(data, name, timeout=timeout)
    chosen = None
    wanted = next((e for e in item.inputs if e.holds != "features"), None)
    if document is not None or wanted is not None:
        asked = document or {
            "input": item.input_kind,
            "classes": [""] * item.detector.n_classes_,
        }
        chosen = chosen_scores(model, scores, asked, name)
        check_meaning(model, chosen, asked, name)
    values = _feature_values(model, item, chosen, features, name)
    taken = [SCORE, ACCEPTED]
    if document is not None:
        taken += [PROBABILITIES, LABEL]
    renamed = make_room(model, taken, name)
    values = {key: renamed.get(value, value) for key, value in values.items()}
    if chosen is not None:
        chosen = replace(chosen, name=renamed.get(chosen.name, chosen.name))
    precision = _precision(model, chosen, values)
    own, outputs = list(model.graph.output), []
    if document is not None and chosen is not None:
        outputs += append_calibrator(model, chosen, document, precision)
        said = {
            f"calibrator.{k}": v for k, v in calibrator_properties(document).items()
        }
        set_properties(model, said)
    outputs += _append_detector(model, item, chosen, values, precision)
    del model.graph.output[:]
    model.graph.output.extend([*outputs, *own])
    fused = FusedDetector(
        b"", "" if chosen is None else chosen.name, values, precision, b""
    )
    said = {f"detector.{key}": value for key, value in properties(item).items()}
    set_properties(model, said | {"detector.reads": fused.sentence})
    whole = model.SerializeToString()
    inside = set(values.values()) - {entry.name for entry in model.graph.output}
    model.graph.output.extend(_described(model, value) for value in sorted(inside))
    return replace(fused, model=whole, probe=model.SerializeToString())


def _check_same_rows(
    document: Mapping[str, Any], item: FittedDetector, name: str
) -> None:
    """Refuse a calibrator and a detector that were fitted on other kinds of rows."""
    k, own = len(document["classes"]), item.detector.n_classes_
    reads = any(entry.holds != "features" for entry in item.inputs)
    if reads and own not in (0, k):
        raise DataError(
            f"The calibrator has {k} classes, the detector {own}.",
            name,
            "Give a calibrator and a detector that were fitted on the same classes.",
        )
    if reads and document["input"] != item.input_kind:
        raise DataError(
            f"The calibrator takes {document['input']}, the detector "
            f"{item.input_kind}.",
            name,
            "Fit both on files of the same kind.",
        )


def _feature_values(
    model: onnx.ModelProto,
    item: FittedDetector,
    scores: ScoreOutput | None,
    named: str | Mapping[str, str] | None,
    where: str,
) -> dict[str, str]:
    """Return which value holds each of the features that a detector reads."""
    wanted = [entry for entry in item.inputs if entry.holds == "features"]
    if isinstance(named, str):
        if len(wanted) > 1:
            layers = ", ".join(entry.name for entry in wanted)
            raise DataError(
                f"The detector reads several layers: {layers}.",
                where,
                "Name a value of the model for each (LAYER=VALUE).",
            )
        named = {entry.name: named for entry in wanted}
    chosen = dict(named or {})
    found = {}
    for entry in wanted:
        value = chosen.get(entry.name, chosen.get(entry.layer))
        if value is None:
            value = _found(model, entry, scores, where)
        elif value not in _values(model):
            outputs = ", ".join(given.name for given in model.graph.output)
            raise DataError(
                f"The model has no value called {value!r}.",
                where,
                f"Its outputs are: {outputs}. Values inside of it can be named too.",
            )
        _check_width(model, value, entry, where)
        found[entry.name] = value
    return found


def _found(
    model: onnx.ModelProto, entry: Input, scores: ScoreOutput | None, where: str
) -> str:
    """Return the value that must be the features, or say why none is."""
    own = "" if scores is None else scores.name
    shapes = {given.name: _width(given) for given in model.graph.output}
    usable = [n for n, width in shapes.items() if width == entry.width and n != own]
    if len(usable) > 1:
        usable = [n for n in usable if n in (entry.layer, entry.name)] or usable
    if len(usable) == 1:
        return str(usable[0])
    if not usable:
        inside = _into_last_layer(model, own)
        known = _infos(model)
        width = _width(known[inside]) if inside in known else None
        if inside and width in (None, entry.width):
            return inside
    seen = ", ".join(f"{n} ({w or 'any'} columns)" for n, w in shapes.items())
    if usable:
        raise DataError(
            f"Several outputs could hold the {entry.width:,} features: "
            f"{', '.join(usable)}.",
            where,
            "Name one of them (--fuse-features).",
        )
    raise DataError(
        f"No output of the model can hold the {entry.width:,} columns of "
        f"{entry.name}: it has {seen}.",
        where,
        "Export the model with these features as one more output, or name the value "
        "inside of it (--fuse-features).",
    )


def _into_last_layer(model: onnx.ModelProto, scores: str) -> str:
    """Return the value that enters the linear layer before the scores."""
    makers = {out: node for node in model.graph.node for out in node.output}
    fixed = _constants(model)
    at = scores or (str(model.graph.output[0].name) if model.graph.output else "")
    while at in makers:
        node = makers[at]
        free = [given for given in node.input if given and given not in fixed]
        if node.op_type not in _PASSED | _LINEAR or len(free) != 1:
            return ""
        if node.op_type in _LINEAR:
            return str(free[0]) if node.input[0] == free[0] else ""
        at = str(free[0])
    return ""


def _constants(model: onnx.ModelProto) -> set[str]:
    """Return the values that do not depend on the inputs."""
    found = {item.name for item in model.graph.initializer}
    for node in model.graph.node:  # in the order in which they can be computed
        if all(not given or given in found for given in node.input):
            found |= set(node.output)
    return found


def _infos(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    graph = model.graph
    return {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}


def _values(model: onnx.ModelProto) -> set[str]:
    made = {out for node in model.graph.node for out in node.output if out}
    return made | {given.name for given in model.graph.input}


def _width(info: onnx.ValueInfoProto) -> int | None:
    """Return how many numbers a row has; None where the model does not say."""
    shape = info.type.tensor_type.shape
    if not info.type.HasField("tensor_type") or info.type.tensor_type.elem_type not in (
        *REAL,
    ):
        return 0
    if not info.type.tensor_type.HasField("shape"):
        return None
    if len(shape.dim) < 2:
        return 1
    width = 1
    for size in shape.dim[1:]:
        if not size.HasField("dim_value"):
            return None
        width *= size.dim_value
    return width


def _check_width(model: onnx.ModelProto, value: str, entry: Input, where: str) -> None:
    known = _infos(model)
    width = _width(known[value]) if value in known else None
    if width not in (None, entry.width):
        raise DataError(
            f"{value!r} has {width:,} numbers in a row; the detector was fitted on "
            f"{entry.width:,} features.",
            where,
            "Name the value that your features were saved from (--fuse-features).",
        )


def _precision(
    model: onnx.ModelProto, scores: ScoreOutput | None, values: Mapping[str, str]
) -> Precision:
    """Return the type of the results: double where what is read is."""
    known = _infos(model)
    types = [] if scores is None else [scores.type]
    types += [
        known[value].type.tensor_type.elem_type
        for value in values.values()
        if value in known
    ]
    is_double = bool(types) and all(kind == TensorProto.DOUBLE for kind in types)
    return "float64" if is_double else "float32"


def _append_detector(
    model: onnx.ModelProto,
    item: FittedDetector,
    scores: ScoreOutput | None,
    values: Mapping[str, str],
    precision: Precision,
) -> list[onnx.ValueInfoProto]:
    """Append the nodes of a detector to a model and return its outputs."""
    graph = Graph(
        inner_type(item, precision),
        opset=opset_of(model),
        prefix=unused_name(model, "detector") + "/",
    )
    given = {}
    for entry in item.inputs:
        if entry.holds == "features":
            inner = graph.to_inner(values[entry.name])
            given[entry.name] = graph.op("Flatten", inner, axis=1)
        elif scores is not None:
            given[entry.name] = class_scores(
                graph,
                scores,
                entry.width,
                is_probabilities=entry.holds == "probabilities",
            )
    add_detector(graph, given, item, precision)
    extend(model, graph)
    rows: int | str = "N"
    if scores is not None:
        rows = row_dimension(model, scores.name)
    elif model.graph.output:
        rows = row_dimension(model, model.graph.output[0].name)
    info = helper.make_tensor_value_info
    return [
        info(SCORE, TYPES[precision], [rows]),
        info(ACCEPTED, TensorProto.BOOL, [rows]),
    ]


def _described(model: onnx.ModelProto, value: str) -> onnx.ValueInfoProto:
    """Return the type of a value inside of a model, as one of its outputs has it."""
    known = _infos(model)
    if value in known:
        return known[value]
    made = onnx.ValueInfoProto()
    made.name = value
    made.type.tensor_type.elem_type = TensorProto.FLOAT
    return made
