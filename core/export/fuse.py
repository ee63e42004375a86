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
from core.calibrators import CALIBRATORS, Calibrator
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
from core.export.onnx import (
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
from core.export.user_model import opset_of, read_model
from core.export.verification import (
    MAX_CELLS,
    TOLERANCES,
    Verification,
    judge,
    row_differences,
)
from core.messages import DataError

__all__ = [
    "Fused",
    "about_scores",
    "append_calibrator",
    "check_reads",
    "export_fused",
    "fuse",
    "two_columns",
    "verify_fused",
]

FloatArray = NDArray[np.floating[Any]]

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
    check_reads(calibrator)
    model = read_model(data, name, timeout=timeout)
    scores = chosen_scores(model, output, document, name)
    check_meaning(model, scores, document, name)
    renamed = make_room(model, (PROBABILITIES, LABEL), name)
    scores = replace(scores, name=renamed.get(scores.name, scores.name))
    place = [item.name for item in model.graph.output].index(scores.name)
    precision = REAL[scores.type]
    _append(model, scores, document, precision)
    said = {f"calibrator.{key}": v for key, v in properties(document).items()}
    said["calibrator.scores"] = scores.name
    set_properties(model, said)
    return Fused(model.SerializeToString(), scores.name, precision, place)


def check_reads(calibrator: Calibrator) -> None:
    """Refuse a calibrator that reads more than the scores.

    Raises
    ------
    DataError
    """
    if calibrator.reads != {"logits"}:
        what = " and ".join(sorted(calibrator.reads - {"logits"}))
        raise DataError(
            f"This calibrator reads {what} beside the scores, which the model does not "
            "give.",
            CALIBRATORS[calibrator.method_id].label,
            "Use its own ONNX file after the model, or fuse another calibrator.",
        )


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
    scores = two_columns(arrays.get("scores"), k, input_kind)
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
        problem = about_scores(scores, arrays.get("theirs"), input_kind)
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


def two_columns(
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


def about_scores(
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


def _append(
    model: onnx.ModelProto,
    scores: ScoreOutput,
    document: Mapping[str, Any],
    precision: Precision,
) -> None:
    """Append the calibrator's nodes, and make their results the first outputs."""
    made = append_calibrator(model, scores, document, precision)
    own = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([*made, *own])


def append_calibrator(
    model: onnx.ModelProto,
    scores: ScoreOutput,
    document: Mapping[str, Any],
    precision: Precision,
) -> list[onnx.ValueInfoProto]:
    """Append the calibrator's nodes to a model and return its outputs.

    Parameters
    ----------
    model : ModelProto
        Without values called as the new outputs are.
    scores : ScoreOutput
    document : mapping
        From `document_of`.
    precision : {"float32", "float64"}
        Type of the probabilities.
    """
    k, prefix = len(document["classes"]), unused_name(model, "calibrator") + "/"
    graph = Graph(
        inner_precision(document, precision), opset=opset_of(model), prefix=prefix
    )
    is_p = document["input"] == "probabilities"
    values = class_scores(graph, scores, k, is_probabilities=is_p)
    add_calibrator(graph, values, document, precision)
    extend(model, graph)
    rows = row_dimension(model, scores.name)
    info = helper.make_tensor_value_info
    return [
        info(PROBABILITIES, TYPES[precision], [rows, k]),
        info(LABEL, TensorProto.INT64, [rows]),
    ]
