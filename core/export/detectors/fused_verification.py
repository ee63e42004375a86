"""Does a model with a detector behind it say what was shown? Run both and compare."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from core.calibrators import Calibrator
from core.export.detectors.fitted import FittedDetector
from core.export.detectors.fused import FusedDetector, fuse_detector
from core.export.detectors.onnx import ACCEPTED, SCORE
from core.export.detectors.verification import (
    DetectorVerification,
    Shown,
    judge_scores,
    shown_rows,
)
from core.export.fuse import about_scores, two_columns
from core.export.onnx import LABEL, PROBABILITIES
from core.export.portable import predict_given
from core.export.runners import RUN_BOTH, run_on_archive
from core.export.verification import MAX_CELLS, TOLERANCES, judge, row_differences
from core.messages import DataError
from core.ood.rows import layers_of
from core.predictions import Predictions

__all__ = ["export_fused_detector", "verify_fused_detector"]

FloatArray = NDArray[np.floating[Any]]

_N_INPUTS = 32
_SAME = 1e-3  # how far values may lie from those of the file, relative to the largest
_SCORES = {"logits", "probabilities"}
_REFUSES = ("it ended with: it refuses inputs", "it ended with: its inputs are text")


def export_fused_detector(
    item: FittedDetector,
    rows: Sequence[Predictions],
    data: bytes,
    calibrator: Calibrator | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    scores: str | None = None,
    features: str | Mapping[str, str] | None = None,
    inputs: FloatArray | None = None,
    bins: tuple[int, str] = (15, "uniform"),
    name: str = "model.onnx",
    timeout: float = 120.0,
) -> tuple[FusedDetector, DetectorVerification]:
    """Append a detector, and a calibrator, to a user's model, and run what was made.

    Parameters
    ----------
    item : FittedDetector
    rows : sequence of Predictions
        Rows of the user.
    data, calibrator, metadata, scores, features, name
        As in `fuse_detector`.
    inputs : ndarray, optional
        What the model was given for all of these rows, one after the other. Without
        it, features of the file that the model takes, else made-up inputs.
    bins : tuple of int and str, default=(15, "uniform")
        In which confidences are counted.
    timeout : float, default=120.0
        Seconds that the interpreter may take.

    Returns
    -------
    fused : FusedDetector
        Its `model` is the file; one returns calibrated probabilities, label,
        `ood_score` and `accepted`.
    proof : DetectorVerification
        `calibration` holds that of the probabilities.
    """
    fused = fuse_detector(
        data,
        item,
        calibrator,
        metadata,
        scores=scores,
        features=features,
        name=name,
    )
    proof = verify_fused_detector(
        data,
        fused,
        item,
        rows,
        calibrator=calibrator,
        inputs=inputs,
        bins=bins,
        timeout=timeout,
    )
    return fused, proof


def verify_fused_detector(
    data: bytes,
    fused: FusedDetector,
    item: FittedDetector,
    rows: Sequence[Predictions],
    *,
    calibrator: Calibrator | None = None,
    inputs: FloatArray | None = None,
    bins: tuple[int, str] = (15, "uniform"),
    timeout: float = 120.0,
) -> DetectorVerification:
    """Run both models on the same inputs, and compare with detector and calibrator.

    The score is compared with what the detector makes of the scores and features that
    the same model gives, probabilities with what the calibrator makes of its scores,
    and these with those of the user's model. Where the inputs are those of the file,
    scores and features must also be those of the file.

    Parameters
    ----------
    data : bytes
        The user's model.
    fused : FusedDetector
        From `fuse_detector`.
    item, rows, calibrator, inputs, bins, timeout
        As in `export_fused_detector`.

    Returns
    -------
    DetectorVerification
        With ``is_run=False`` where the user's model refuses every input that can be
        made up.
    """
    start = time.perf_counter()
    shown, candidates = _candidates(item, rows, inputs)
    found, problem = _run(data, fused, calibrator, shown, candidates, inputs, timeout)
    tolerance = TOLERANCES["onnx" if fused.precision == "float64" else "onnx32"]
    is_of_file = bool(found.pop("is_of_file", np.array(0)))
    n = len(found.get(SCORE, ()))
    facts: dict[str, Any] = {
        "n_total": shown.n_total if is_of_file else n,
        "seconds": time.perf_counter() - start,
        "interpreter": f"Python {platform.python_version()}, onnxruntime "
        f"{version('onnxruntime')}",
        "is_made_up": not is_of_file,
        "tolerance": tolerance,
    }
    if problem.startswith(_REFUSES):
        return DetectorVerification(
            max_difference=float("nan"),
            n_rows=0,
            ok=False,
            n_decision_changes=0,
            problem=f"not run here: {problem.removeprefix('it ended with: ')}",
            is_run=False,
            is_offered=True,
            **facts,
        )
    k = int(calibrator.classes_.size) if calibrator else item.detector.n_classes_
    scores = two_columns(found.get(fused.scores), k, item.input_kind)
    given = _given(item, fused, found, scores)
    if not problem:
        problem = _about(item, fused, found, scores, given)
    if not problem and is_of_file:
        problem = _about_file(given, shown, fused)
    expected: FloatArray = np.zeros(n) if problem else item.score(given)
    accepted = shown.accepted[:n] if is_of_file else item.accepts(expected)
    proof = judge_scores(found, problem, expected, accepted, may_differ=True, **facts)
    if calibrator is None:
        return proof
    p: FloatArray = np.zeros((n, k))
    if not problem and scores is not None:
        p = predict_given(calibrator, scores, item.input_kind)
    facts |= {"n_rows": n}
    named = {"out": PROBABILITIES, "label": LABEL}
    beside = judge(
        {key: found[name] for key, name in named.items() if name in found},
        problem,
        row_differences(found.get(PROBABILITIES), p),
        p,
        bins=bins,
        may_differ=True,
        **facts,
    )
    return replace(
        proof,
        calibration=beside,
        ok=proof.ok and beside.ok,
        is_offered=proof.is_offered and beside.is_offered,
        problem=proof.problem or beside.problem,
    )


def _candidates(
    item: FittedDetector, rows: Sequence[Predictions], inputs: FloatArray | None
) -> tuple[Shown, list[FloatArray]]:
    """Return rows of the user, and what the model could have been given for them."""
    n_total = sum(map(len, rows))
    if inputs is not None and len(inputs) != n_total:
        raise DataError(
            f"There are {len(inputs):,} inputs of the model for {n_total:,} rows.",
            "inputs",
            "Give one input for each row, in the same order.",
        )
    every = [inputs] if inputs is not None else _layers(rows)
    widths = [int(np.prod(array.shape[1:])) for array in every]
    shown = shown_rows(item, rows, most=MAX_CELLS // max(1, *widths, 1))
    return shown, [array[shown.places] for array in every]


def _layers(rows: Sequence[Predictions]) -> list[FloatArray]:
    """Return every layer that all of the rows have, one after the other."""
    parts = [layers_of(own.features) for own in rows]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return [np.concatenate([part[name] for part in parts]) for name in names]


def _run(
    data: bytes,
    fused: FusedDetector,
    calibrator: Calibrator | None,
    shown: Shown,
    candidates: Sequence[FloatArray],
    inputs: FloatArray | None,
    timeout: float,
) -> tuple[dict[str, Any], str]:
    """Return values of the fused model by name, with `theirs` of the user's own."""
    names = [o.name for o in onnx.ModelProto.FromString(data).graph.output]
    every = [o.name for o in onnx.ModelProto.FromString(fused.probe).graph.output]
    first = every.index(ACCEPTED) + 1  # where the user's outputs begin
    theirs = dict(zip(every[first:], names, strict=False))
    read = [*([fused.scores] if fused.scores else []), *fused.features.values()]
    wanted = list(dict.fromkeys([SCORE, ACCEPTED, *read]))
    wanted += [PROBABILITIES, LABEL] if calibrator is not None else []
    ours = [name for name in read if name in theirs]
    arrays: dict[str, NDArray[Any]] = {
        "n": np.array(_N_INPUTS),
        "wanted": np.array(wanted),
        "theirs": np.array([theirs[name] for name in ours], dtype=np.str_),
        "is_given": np.array(inputs is not None),
    }
    arrays |= {f"rows_{place}": array for place, array in enumerate(candidates)}
    for place, name in enumerate(ours):
        of_file = _of_file(name, fused, shown)
        if of_file is not None:
            arrays[f"expected_{place}"] = of_file
    with tempfile.TemporaryDirectory(prefix="fuse-") as folder:
        there = Path(folder)
        (there / "model.onnx").write_bytes(data)
        (there / "fused.onnx").write_bytes(fused.probe)
        (there / "run.py").write_text(RUN_BOTH, encoding="utf-8")
        found, problem = run_on_archive(there, "run.py", arrays, timeout)
    values: dict[str, Any] = {
        name: found[f"value_{place}"]
        for place, name in enumerate(wanted)
        if f"value_{place}" in found
    }
    values["theirs"] = {
        name: found[f"theirs_{place}"]
        for place, name in enumerate(ours)
        if f"theirs_{place}" in found
    }
    return values | {"is_of_file": found.get("is_of_file", np.array(0))}, problem


def _of_file(name: str, fused: FusedDetector, shown: Shown) -> FloatArray | None:
    """Return what the file holds of a value of the model."""
    for entry, values in shown.arrays.items():
        if name == (fused.scores if entry in _SCORES else fused.features.get(entry)):
            return values
    return None


def _given(
    item: FittedDetector,
    fused: FusedDetector,
    found: Mapping[str, Any],
    scores: FloatArray | None,
) -> dict[str, FloatArray]:
    """Return what the fused model gave its detector, by the names of its inputs."""
    given: dict[str, FloatArray] = {}
    for entry in item.inputs:
        values = scores
        if entry.holds == "features":
            values = found.get(fused.features[entry.name])
        if values is not None:
            given[entry.name] = values.reshape(len(values), -1).astype(np.float64)
    return given


def _about(
    item: FittedDetector,
    fused: FusedDetector,
    found: Mapping[str, Any],
    scores: FloatArray | None,
    given: Mapping[str, FloatArray],
) -> str:
    """Return what is wrong with the values that a fused model gives, if anything."""
    for entry in item.inputs:
        values = given.get(entry.name)
        if values is None or values.shape[1] != entry.width:
            return f"its {entry.name} do not have {entry.width:,} columns"
        if not np.isfinite(values).all():
            return f"its {entry.name} are not finite"
    theirs = found["theirs"]
    if fused.scores:
        problem = about_scores(scores, theirs.get(fused.scores), item.input_kind)
        if problem:
            return problem
    for name, own in theirs.items():
        gap = float(np.abs(found[name] - own).max())
        if not gap <= _SAME * max(1.0, float(np.abs(own).max())):
            return f"its {name} differs from that of your model by up to {gap:.1e}"
    return ""


def _about_file(
    given: Mapping[str, FloatArray], shown: Shown, fused: FusedDetector
) -> str:
    """Return what is not as in the file, where the inputs are those of the file."""
    for name, values in given.items():
        own = shown.arrays[name][: len(values)]
        gap = float(np.abs(values - own).max())
        if not gap <= _SAME * max(1.0, float(np.abs(own).max())):
            value = fused.features.get(name, fused.scores)
            return (
                f"{value!r} does not hold the {name} of your file: they differ by up "
                f"to {gap:.1e}"
            )
    return ""
