"""Exports of the calibrators that map the probability of each class by a curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from core.export.curves import interpolation, steps
from core.export.methods.base import (
    Export,
    FloatArray,
    GraphWriter,
    State,
    TorchWriter,
    Writer,
)
from core.export.methods.parts import (
    LOG_CHANCES,
    RENORMALISED,
    TORCH_FROM_SCORES,
    TORCH_MAPPED,
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

_ISOTONIC = (
    '''

def calibrated(z):
    """Map each class by its curve, renormalise, mix with what was there before."""
    p = np.exp(log_softmax(z))
    curves = [(np.array(curve["x"]), np.array(curve["y"])) for curve in CURVES]
    mapped = np.empty(p.shape)
    if p.shape[1] == 2:
        mapped[:, 1] = np.interp(p[:, 1], *curves[0])
        mapped[:, 0] = 1.0 - mapped[:, 1]
    else:
        for column, curve in enumerate(curves):
            mapped[:, column] = np.interp(p[:, column], *curve)
    return (1.0 - MIXING) * renormalised(mapped, z) + MIXING * p
'''
    + RENORMALISED
)

_PLATT = (
    '''

def calibrated(z):
    """Map the log-odds of each class by a sigmoid, renormalise."""
    log_p, log_rest = log_chances(z)
    odds = (log_p - log_rest)[:, -len(SLOPE) :]
    return from_scores(np.array(SLOPE) * odds + np.array(INTERCEPT), z)
'''
    + LOG_CHANCES
    + RENORMALISED
)

_BETA = (
    '''

def calibrated(z):
    """Map each class by a ratio of beta densities, renormalise."""
    log_p, log_rest = (part[:, -len(A) :] for part in log_chances(z))
    return from_scores(np.array(A) * log_p - np.array(B) * log_rest + np.array(C), z)
'''
    + LOG_CHANCES
    + RENORMALISED
)

_HISTOGRAM = (
    '''

def calibrated(z):
    """Look each class up in its bins, (lo, hi] with 0 in the first; renormalise."""
    p = np.exp(log_softmax(z))
    mapped = np.empty(p.shape)
    for column, bins in enumerate(BINS if len(BINS) > 1 else BINS * 2):
        place = np.searchsorted(bins["edges"][1:-1], p[:, column], side="left")
        mapped[:, column] = np.array(bins["values"])[place]
    if len(BINS) == 1:
        mapped[:, 0] = 1.0 - mapped[:, 1]
    return renormalised(mapped, z)
'''
    + RENORMALISED
)


def _are_curves(state: Mapping[str, Any], k: int) -> bool:
    """One curve per class, or one for two classes, from [0, 1] to [0, 1]."""
    curves = [
        np.array(curve[axis], dtype=np.float64)
        for curve in state["maps"]
        for axis in ("x", "y")
    ]
    inside = [c.ndim == 1 and bool(((c >= 0) & (c <= 1)).all()) for c in curves]
    n_curves = 1 if k == 2 else k
    return len(curves) == 2 * n_curves and all(inside) and 0 < state["mixing"] < 1


def _are_bins(state: Mapping[str, Any], k: int) -> bool:  # noqa: ARG001
    """From 0 to 1; the rest is the calibrator's to check."""
    ends = [(bins["edges"][0], bins["edges"][-1]) for bins in state["maps"]]
    return all(first == 0 and last == 1 for first, last in ends)


def _isotonic(graph: Graph, logits: str, state: State, k: int) -> str:
    p = graph.softmax(logits)
    curves = [interpolation(curve["x"], curve["y"]) for curve in state["maps"]]
    found = graph.renormalised(mapped(graph, p, curves, k), logits)
    share = float(state["mixing"])
    kept = graph.op("Mul", found, 1.0 - share)
    return graph.op("Add", kept, graph.op("Mul", p, share))


def _histogram(graph: Graph, logits: str, state: State, k: int) -> str:
    curves = [steps(bins["edges"], bins["values"]) for bins in state["maps"]]
    found = mapped(graph, graph.softmax(logits), curves, k)
    return graph.renormalised(found, logits)


def _platt(graph: Graph, logits: str, state: State, k: int) -> str:
    log_p, log_rest = log_chances(graph, logits, k)
    odds = graph.op("Sub", log_p, log_rest)
    scaled = graph.op("Mul", odds, row(state["slope"]))
    return from_scores(
        graph, graph.op("Add", scaled, row(state["intercept"])), logits, k
    )


def _beta(graph: Graph, logits: str, state: State, k: int) -> str:
    log_p, log_rest = log_chances(graph, logits, k)
    rising = graph.op("Mul", log_p, row(state["a"]))
    falling = graph.op("Mul", log_rest, row(state["b"]))
    scores = graph.op("Add", graph.op("Sub", rising, falling), row(state["c"]))
    return from_scores(graph, scores, logits, k)


_TORCH_ISOTONIC = (
    '''
    def calibrated(self, z):
        """Map each class by its curve, renormalise, mix with what was there before."""
        p = torch.log_softmax(z, dim=1).exp()
        mapped = self.renormalised(self.mapped(p), z)
        return (1.0 - self.mixing) * mapped + self.mixing * p
'''
    + TORCH_MAPPED
    + TORCH_RENORMALISED
)

_TORCH_HISTOGRAM = (
    '''
    def calibrated(self, z):
        """Look each class up in its bins; renormalise."""
        return self.renormalised(self.mapped(torch.log_softmax(z, dim=1).exp()), z)
'''
    + TORCH_MAPPED
    + TORCH_RENORMALISED
)

_TORCH_PLATT = (
    '''
    def calibrated(self, z):
        """Map the log-odds of each class by a sigmoid, renormalise."""
        log_p, log_rest = self.log_chances(z)
        return self.from_scores(self.slope * (log_p - log_rest) + self.intercept, z)
'''
    + TORCH_FROM_SCORES
    + TORCH_RENORMALISED
)

_TORCH_BETA = (
    '''
    def calibrated(self, z):
        """Map each class by a ratio of beta densities, renormalise."""
        log_p, log_rest = self.log_chances(z)
        return self.from_scores(self.a * log_p - self.b * log_rest + self.c, z)
'''
    + TORCH_FROM_SCORES
    + TORCH_RENORMALISED
)


def _isotonic_tensors(state: State) -> dict[str, FloatArray]:
    curves = [interpolation(curve["x"], curve["y"]) for curve in state["maps"]]
    return {"mixing": np.array(state["mixing"]), **stacked(curves)}


def _histogram_tensors(state: State) -> dict[str, FloatArray]:
    return stacked([steps(bins["edges"], bins["values"]) for bins in state["maps"]])


EXPORTS = {
    "isotonic": Export(
        Writer(
            formula="(1 - m) * normalised f_k(p_k) + m * p_k, p = softmax(z)",
            constants={"MIXING": "mixing", "CURVES": "maps"},
            code=_ISOTONIC,
            is_sound=_are_curves,
        ),
        GraphWriter(_isotonic, needs_double=True),
        TorchWriter(_TORCH_ISOTONIC, _isotonic_tensors),
    ),
    "platt": Export(
        Writer(
            formula="normalised sigmoid(A_k * logit(p_k) + B_k), p = softmax(z)",
            constants={"SLOPE": "slope", "INTERCEPT": "intercept"},
            code=_PLATT,
        ),
        GraphWriter(_platt, needs_double=True),
        TorchWriter(_TORCH_PLATT, as_they_are),
    ),
    "beta": Export(
        Writer(
            formula=(
                "normalised sigmoid(a_k * log(p_k) - b_k * log(1 - p_k) + c_k), "
                "p = softmax(z)"
            ),
            constants={"A": "a", "B": "b", "C": "c"},
            code=_BETA,
        ),
        GraphWriter(_beta, needs_double=True),
        TorchWriter(_TORCH_BETA, as_they_are),
    ),
    "histogram": Export(
        Writer(
            formula="normalised value of the bin of p_k, p = softmax(z)",
            constants={"BINS": "maps"},
            code=_HISTOGRAM,
            is_sound=_are_bins,
        ),
        GraphWriter(_histogram, needs_double=True),
        TorchWriter(_TORCH_HISTOGRAM, _histogram_tensors),
    ),
}
"""By id of the calibrator."""
