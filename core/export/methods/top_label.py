"""Exports of top-versus-all: a curve of the confidence, the rest rescaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from core.calibrators.one_vs_rest import LOWEST_LOG
from core.export.curves import Segments, interpolation, steps
from core.export.methods.base import (
    Export,
    FloatArray,
    GraphWriter,
    State,
    TorchWriter,
    Writer,
)
from core.export.methods.parts import as_they_are, stacked
from core.export.methods.row_temperature import (
    RAISED,
    TORCH_RAISED,
    divided,
)
from core.export.methods.row_temperature import raised as graph_raised
from core.export.methods.scaling import EXPORTS as SCALING

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

# --------------------------------------------------------------------------- NumPy

_CALIBRATED = (
    '''

def calibrated(z):
    """Map the confidence at T by a curve; the other classes share the rest."""
    place, here = z.argmax(axis=1), np.arange(len(z))
    others = z.copy()
    others[here, place] = -np.inf
    second = others.max(axis=1)
    is_open = second > -np.inf
    shift = np.where(is_open, second, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = np.exp((others - shift[:, None]) / TEMPERATURE).sum(axis=1)
        log_rest = np.log(mass) - (z[here, place] - second) / TEMPERATURE
        log_q = -np.logaddexp(0.0, log_rest)
        change = log_odds(log_q, log_rest + log_q) + log_rest
    logs = log_softmax(z, TEMPERATURE)
    return raised(logs, place, np.where(is_open, change, 0.0))
'''
    + RAISED
)

_PLATT = '''

def log_odds(log_q, log_rest):
    """Return A * logit(q) + B."""
    log_q, log_rest = np.maximum(log_q, -700.0), np.maximum(log_rest, -700.0)
    return SLOPE[0] * log_q - SLOPE[0] * log_rest + INTERCEPT[0]
'''

_BETA = '''

def log_odds(log_q, log_rest):
    """Return a * log(q) - b * log(1 - q) + c."""
    log_q, log_rest = np.maximum(log_q, -700.0), np.maximum(log_rest, -700.0)
    return A[0] * log_q - B[0] * log_rest + C[0]
'''

_ISOTONIC = '''

def log_odds(log_q, log_rest):
    """Return the log-odds of the curve, linear between knots, mixed with q."""
    q, rest = np.exp(log_q), np.exp(np.maximum(log_rest, -700.0))
    found = np.interp(q, CURVES[0]["x"], CURVES[0]["y"])
    right = (1.0 - MIXING) * found + MIXING * q
    return np.log(right) - np.log((1.0 - MIXING) * (1.0 - found) + MIXING * rest)
'''

_HISTOGRAM = '''

def log_odds(log_q, log_rest):
    """Return the log-odds of the value of the bin (lo, hi] of q."""
    edges, values = np.array(BINS[0]["edges"]), np.array(BINS[0]["values"])
    place = np.searchsorted(edges[1:-1], np.exp(log_q), side="left")
    return np.log(values[place]) - np.log(1.0 - values[place])
'''

# ---------------------------------------------------------------------------- ONNX

LogOdds = Callable[["Graph", str, str, State], str]


def _writer(log_odds: LogOdds) -> GraphWriter:
    def write(graph: Graph, logits: str, state: State, k: int) -> str:
        place = graph.op("ArgMax", logits, axis=1, keepdims=1)
        is_top = graph.op("Equal", np.arange(k)[None, :], place)
        scores = divided(graph, logits, float(state["temperature"]))
        others = graph.op("Where", is_top, -np.inf, scores)
        second = graph.reduce("ReduceMax", others)
        is_open = graph.is_open(second)
        shift = graph.op("Where", is_open, second, 0.0)
        mass = graph.reduce(
            "ReduceSum", graph.op("Exp", graph.op("Sub", others, shift))
        )
        log_rest = graph.op("Add", graph.op("Log", mass), second)
        # A row with one open class has no rest; any number will do, it is not used.
        log_rest = graph.op("Where", is_open, log_rest, 0.0)
        log_q = graph.op("Neg", _soft_plus(graph, log_rest))
        odds = log_odds(graph, log_q, graph.op("Add", log_rest, log_q), state)
        change = graph.op("Where", is_open, graph.op("Add", odds, log_rest), 0.0)
        return graph_raised(graph, scores, place, change, k)

    return GraphWriter(write, needs_double=True)


def _soft_plus(graph: Graph, x: str) -> str:
    """Return log(1 + exp(x)), in operators that exist in float64."""
    tail = graph.op("Exp", graph.op("Neg", graph.op("Abs", x)))
    tail = graph.op("Log", graph.op("Add", tail, 1.0))
    return graph.op("Add", graph.op("Max", x, 0.0), tail)


def _platt(graph: Graph, log_q: str, log_rest: str, state: State) -> str:
    odds = graph.op("Sub", *(graph.op("Max", x, LOWEST_LOG) for x in (log_q, log_rest)))
    scaled = graph.op("Mul", odds, float(state["slope"][0]))
    return graph.op("Add", scaled, float(state["intercept"][0]))


def _beta(graph: Graph, log_q: str, log_rest: str, state: State) -> str:
    log_q, log_rest = (graph.op("Max", x, LOWEST_LOG) for x in (log_q, log_rest))
    rising = graph.op("Mul", log_q, float(state["a"][0]))
    falling = graph.op("Mul", log_rest, float(state["b"][0]))
    return graph.op("Add", graph.op("Sub", rising, falling), float(state["c"][0]))


def _isotonic(graph: Graph, log_q: str, log_rest: str, state: State) -> str:
    q = graph.op("Exp", log_q)
    rest = graph.op("Exp", graph.op("Max", log_rest, LOWEST_LOG))
    found = graph.piecewise(q, [_isotonic_curve(state)])
    share = float(state["mixing"])
    sides = []
    for value, own in ((found, q), (graph.op("Sub", 1.0, found), rest)):
        kept = graph.op("Mul", value, 1.0 - share)
        sides.append(
            graph.op("Log", graph.op("Add", kept, graph.op("Mul", own, share)))
        )
    return graph.op("Sub", *sides)


def _histogram(graph: Graph, log_q: str, log_rest: str, state: State) -> str:
    del log_rest  # the bins are those of q
    found = graph.piecewise(graph.op("Exp", log_q), [_histogram_curve(state)])
    rest = graph.op("Log", graph.op("Sub", 1.0, found))
    return graph.op("Sub", graph.op("Log", found), rest)


def _isotonic_curve(state: State) -> Segments:
    return interpolation(state["maps"][0]["x"], state["maps"][0]["y"])


def _histogram_curve(state: State) -> Segments:
    return steps(state["maps"][0]["edges"], state["maps"][0]["values"])


# --------------------------------------------------------------------------- torch

_TORCH_CALIBRATED = (
    '''
    def calibrated(self, z):
        """Map the confidence at T by a curve; the other classes share the rest."""
        place = z.argmax(1, keepdim=True)
        scores = (z - z.amax(dim=1, keepdim=True)) / self.temperature
        log_rest = scores.scatter(1, place, -torch.inf).logsumexp(1, keepdim=True)
        is_open = ~torch.isneginf(log_rest)
        log_rest = torch.where(is_open, log_rest, 0.0)
        log_q = -nn.functional.softplus(log_rest, threshold=800.0)
        change = self.log_odds(log_q, log_rest + log_q) + log_rest
        return self.raised(scores, place, torch.where(is_open, change, 0.0))
'''
    + TORCH_RAISED
)

_TORCH_PLATT = '''
    def log_odds(self, log_q, log_rest):
        """Return A * logit(q) + B."""
        log_q, log_rest = log_q.clamp(min=-700.0), log_rest.clamp(min=-700.0)
        return self.slope * (log_q - log_rest) + self.intercept
'''

_TORCH_BETA = '''
    def log_odds(self, log_q, log_rest):
        """Return a * log(q) - b * log(1 - q) + c."""
        log_q, log_rest = log_q.clamp(min=-700.0), log_rest.clamp(min=-700.0)
        return self.a * log_q - self.b * log_rest + self.c
'''

_TORCH_CURVE = '''
    def curve(self, q):
        """Return the piecewise linear curve at q."""
        at = torch.searchsorted(self.start[0], q, right=True) - 1
        return self.value[0][at] + self.slope[0][at] * (q - self.start[0][at])
'''

_TORCH_ISOTONIC = (
    '''
    def log_odds(self, log_q, log_rest):
        """Return the log-odds of the curve mixed with q."""
        q, rest = log_q.exp(), log_rest.clamp(min=-700.0).exp()
        found, kept = self.curve(q), 1.0 - self.mixing
        right = kept * found + self.mixing * q
        return torch.log(right) - torch.log(kept * (1.0 - found) + self.mixing * rest)
'''
    + _TORCH_CURVE
)

_TORCH_HISTOGRAM = (
    '''
    def log_odds(self, log_q, log_rest):
        """Return the log-odds of the value of the bin of q."""
        found = self.curve(log_q.exp())
        return torch.log(found) - torch.log(1.0 - found)
'''
    + _TORCH_CURVE
)


def _isotonic_tensors(state: State) -> dict[str, FloatArray]:
    own = {key: np.array(state[key]) for key in ("temperature", "mixing")}
    return own | stacked([_isotonic_curve(state)])


def _histogram_tensors(state: State) -> dict[str, FloatArray]:
    own = {"temperature": np.array(state["temperature"])}
    return own | stacked([_histogram_curve(state)])


def _entry(
    formula: str,
    constants: dict[str, str],
    code: str,
    log_odds: LogOdds,
    torch: TorchWriter,
) -> Export:
    return Export(
        Writer(
            formula=f"{formula}, q = largest of softmax(z / T); other ratios are kept",
            constants={"TEMPERATURE": "temperature"} | constants,
            code=_CALIBRATED + code,
        ),
        _writer(log_odds),
        torch,
    )


EXPORTS = {
    "top-versus-all": SCALING["temperature"],
    "top-versus-all-platt": _entry(
        "q -> sigmoid(A * logit(q) + B)",
        {"SLOPE": "slope", "INTERCEPT": "intercept"},
        _PLATT,
        _platt,
        TorchWriter(_TORCH_CALIBRATED + _TORCH_PLATT, as_they_are),
    ),
    "top-versus-all-beta": _entry(
        "q -> sigmoid(a * log(q) - b * log(1 - q) + c)",
        {"A": "a", "B": "b", "C": "c"},
        _BETA,
        _beta,
        TorchWriter(_TORCH_CALIBRATED + _TORCH_BETA, as_they_are),
    ),
    "top-versus-all-isotonic": _entry(
        "q -> (1 - m) * f(q) + m * q",
        {"MIXING": "mixing", "CURVES": "maps"},
        _ISOTONIC,
        _isotonic,
        TorchWriter(_TORCH_CALIBRATED + _TORCH_ISOTONIC, _isotonic_tensors),
    ),
    "top-versus-all-histogram": _entry(
        "q -> value of the bin of q",
        {"BINS": "maps"},
        _HISTOGRAM,
        _histogram,
        TorchWriter(_TORCH_CALIBRATED + _TORCH_HISTOGRAM, _histogram_tensors),
    ),
}
"""By id of the calibrator."""
