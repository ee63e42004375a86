"""Exports of the calibrators whose curves have knots, steps, two ends or a bend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from core.export.curves import Segments, interpolation, steps
from core.export.methods.base import (
    Export,
    FloatArray,
    GraphWriter,
    State,
    TorchWriter,
    Writer,
)
from core.export.methods.one_vs_rest import EXPORTS as ONE_VS_REST
from core.export.methods.parts import (
    LOG_CHANCES,
    RENORMALISED,
    TORCH_FROM_SCORES,
    TORCH_RENORMALISED,
    as_they_are,
    from_scores,
    log_chances,
    mapped,
    row,
    stacked,
)

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_STEEP = 1e-11  # knots are widened only where rounding could move a result by as much

# --------------------------------------------------------------------------- NumPy

_VENN_ABERS = (
    '''

def calibrated(z):
    """Merge the two ends of each class, renormalise."""
    p = np.exp(log_softmax(z))
    mapped = np.empty(p.shape)
    for column, curve in enumerate(CURVES if len(CURVES) > 1 else CURVES * 2):
        x = p[:, column]
        low = np.array(curve["low"])[np.searchsorted(curve["low_x"], x, "right")]
        high = np.array(curve["high"])[np.searchsorted(curve["high_x"], x, "left")]
        mapped[:, column] = high / (1.0 - low + high)
    if len(CURVES) == 1:
        mapped[:, 0] = 1.0 - mapped[:, 1]
    return renormalised(mapped, z)
'''
    + RENORMALISED
)

_QUADRATIC = (
    '''

def calibrated(z):
    """Map the log-odds of each class by a parabola, renormalise."""
    log_p, log_rest = log_chances(z)
    odds = np.clip((log_p - log_rest)[:, -len(A) :], LOW, HIGH)
    return from_scores((np.array(A) + np.array(B) * odds) * odds + np.array(C), z)
'''
    + LOG_CHANCES
    + RENORMALISED
)


def _are_ends(state: Mapping[str, Any], k: int) -> bool:  # noqa: ARG001
    """No merged value is 0 or 1; the rest is the calibrator's to check."""
    return all(curve["high"][0] > 0 and curve["low"][-1] < 1 for curve in state["maps"])


# ---------------------------------------------------------------------------- ONNX


def _lower(curve: Mapping[str, Any]) -> Segments:
    """Return p0: steps [lo, hi); scores of fit rows lie a little above them."""
    start = np.concatenate([[0.0], curve["low_x"]])
    value = np.asarray(curve["low"], dtype=np.float64)
    return Segments(start, value, np.zeros(value.size))


def _upper(curve: Mapping[str, Any]) -> Segments:
    """Return p1: steps (lo, hi]; what lies above 1 is never reached."""
    x, value = curve["high_x"], curve["high"]
    if len(x) and x[-1] >= 1.0:
        x, value = x[:-1], value[:-1]
    return steps(np.concatenate([[0.0], x, [1.0]]), np.array(value))


def _slopes(state: State) -> list[Segments]:
    """Return curves on whose slopes, not knots, the rows lie."""
    return [interpolation(c["x"], c["y"], _STEEP) for c in state["maps"]]


def _knots(graph: Graph, logits: str, state: State, k: int) -> str:
    p = graph.softmax(logits)
    found = graph.renormalised(mapped(graph, p, _slopes(state), k), logits)
    share = float(state["mixing"])
    kept = graph.op("Mul", found, 1.0 - share)
    return graph.op("Add", kept, graph.op("Mul", p, share))


def _venn_abers(graph: Graph, logits: str, state: State, k: int) -> str:
    p = graph.softmax(logits)
    p = graph.column(p, 1) if k == 2 else p
    low = graph.piecewise(p, [_lower(curve) for curve in state["maps"]])
    high = graph.piecewise(p, [_upper(curve) for curve in state["maps"]])
    whole = graph.op("Add", graph.op("Sub", 1.0, low), high)
    found = graph.op("Div", high, whole)
    if k == 2:
        found = graph.op("Concat", graph.op("Sub", 1.0, found), found, axis=1)
    return graph.renormalised(found, logits)


def _quadratic(graph: Graph, logits: str, state: State, k: int) -> str:
    odds = graph.op("Sub", *log_chances(graph, logits, k))
    odds = graph.op("Max", odds, row(state["low"]))
    odds = graph.op("Min", odds, row(state["high"]))
    slope = graph.op("Add", graph.op("Mul", odds, row(state["b"])), row(state["a"]))
    scores = graph.op("Add", graph.op("Mul", slope, odds), row(state["c"]))
    return from_scores(graph, scores, logits, k)


# --------------------------------------------------------------------------- torch

_TORCH_VENN_ABERS = (
    '''
    def calibrated(self, z):
        """Merge the two ends of each class, renormalise."""
        p = torch.log_softmax(z, dim=1).exp()
        columns = p[:, -len(self.low_start) :].T.contiguous()
        ends = []
        for start, value in (
            (self.low_start, self.low_value),
            (self.high_start, self.high_value),
        ):
            at = torch.searchsorted(start, columns, right=True) - 1
            ends.append(value.gather(1, at).T)
        low, high = ends
        found = high / (1.0 - low + high)
        if len(columns) == 1:
            found = torch.cat([1.0 - found, found], dim=1)
        return self.renormalised(found, z)
'''
    + TORCH_RENORMALISED
)

_TORCH_QUADRATIC = (
    '''
    def calibrated(self, z):
        """Map the log-odds of each class by a parabola, renormalise."""
        log_p, log_rest = self.log_chances(z)
        odds = (log_p - log_rest).clamp(min=self.low, max=self.high)
        return self.from_scores((self.a + self.b * odds) * odds + self.c, z)
'''
    + TORCH_FROM_SCORES
    + TORCH_RENORMALISED
)


def _venn_abers_tensors(state: State) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for end, curve_of in (("low", _lower), ("high", _upper)):
        parts = stacked([curve_of(curve) for curve in state["maps"]])
        found |= {f"{end}_start": parts["start"], f"{end}_value": parts["value"]}
    return found


def _knots_tensors(state: State) -> dict[str, FloatArray]:
    return {"mixing": np.array(state["mixing"]), **stacked(_slopes(state))}


def _like(method: str, formula: str) -> Export:
    """Return the entry of a calibrator whose curves are written as another's are."""
    own = ONE_VS_REST[method]
    return replace(own, numpy=replace(own.numpy, formula=formula))


def _through_knots(formula: str) -> Export:
    own = ONE_VS_REST["isotonic"]
    return Export(
        replace(own.numpy, formula=formula),
        GraphWriter(_knots, needs_double=True),
        replace(own.torch, tensors=_knots_tensors),
    )


EXPORTS = {
    "centred-isotonic": _through_knots(
        "(1 - m) * normalised f_k(p_k) + m * p_k, p = softmax(z), f_k linear between "
        "the centres of isotonic blocks",
    ),
    "spline": _through_knots(
        "(1 - m) * normalised f_k(p_k) + m * p_k, p = softmax(z), f_k linear between "
        "the knots of p_k + slope of its cumulative gap",
    ),
    "venn-abers": Export(
        Writer(
            formula=(
                "normalised p1 / (1 - p0 + p1), p0 and p1 steps of p_k, p = softmax(z)"
            ),
            constants={"CURVES": "maps"},
            code=_VENN_ABERS,
            is_sound=_are_ends,
        ),
        GraphWriter(_venn_abers, needs_double=True),
        TorchWriter(_TORCH_VENN_ABERS, _venn_abers_tensors),
    ),
    "bbq": _like(
        "histogram", "normalised averaged value of the bins of p_k, p = softmax(z)"
    ),
    "scaling-binning": _like(
        "histogram", "normalised mean sigmoid of the bin of p_k, p = softmax(z)"
    ),
    "i-max": _like("histogram", "normalised value of the bin of p_k, p = softmax(z)"),
    "quadratic": Export(
        Writer(
            formula=(
                "normalised sigmoid((a_k + b_k * l) * l + c_k), l = logit(p_k) cut to "
                "the range of the fit rows, p = softmax(z)"
            ),
            constants={"A": "a", "B": "b", "C": "c", "LOW": "low", "HIGH": "high"},
            code=_QUADRATIC,
        ),
        GraphWriter(_quadratic, needs_double=True),
        TorchWriter(_TORCH_QUADRATIC, as_they_are),
    ),
}
"""By id of the calibrator."""
