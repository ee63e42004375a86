"""Pieces that the exports of several calibrators share, in all three languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.calibrators.one_vs_rest import LOWEST_LOG
from core.export.curves import Segments
from core.export.methods.base import FloatArray, State

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = [
    "LOG_CHANCES",
    "RENORMALISED",
    "TORCH_FROM_SCORES",
    "TORCH_MAPPED",
    "TORCH_RENORMALISED",
    "as_they_are",
    "from_scores",
    "log_chances",
    "mapped",
    "row",
    "stacked",
]

_LOG_OF_ZERO = -1075 * float(np.log(2.0))  # at and below it, exp() is 0

# --------------------------------------------------------------------------- NumPy

RENORMALISED = '''

def renormalised(p, z):
    """Return rows that sum to 1; classes at -inf stay 0, rows of zeros are uniform."""
    p = np.where(z == -np.inf, 0.0, p)
    p = np.where(p.sum(axis=1, keepdims=True) > 0, p, z > -np.inf)
    return p / p.sum(axis=1, keepdims=True)
'''

LOG_CHANCES = '''

def log_chances(z):
    """Return log(p) and log(1 - p), neither below -700."""
    top = z.argmax(axis=1)[:, None]
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    rest = total - e
    np.put_along_axis(e, top, 0.0, axis=1)
    # Near 1, the difference would be rounding noise: add the other classes instead.
    np.put_along_axis(rest, top, e.sum(axis=1, keepdims=True), axis=1)
    with np.errstate(divide="ignore"):
        log_rest = np.log(rest)
    log_total = np.log(total)
    return np.maximum(z - log_total, -700.0), np.maximum(log_rest - log_total, -700.0)


def from_scores(scores, z):
    """Return the probabilities of log-odds of each class against the rest."""
    if scores.shape[1] == 1:
        scores = np.hstack([-scores, scores])
    logs = np.where(z == -np.inf, -np.inf, -np.logaddexp(0.0, -scores))
    best = logs.max(axis=1, keepdims=True)
    logs = np.where(np.exp(best) == 0, -np.inf, logs - best)
    return renormalised(np.exp(logs), z)
'''

# ---------------------------------------------------------------------------- ONNX


def row(values: Sequence[float]) -> FloatArray:
    """Return one value per class as a row."""
    return np.array(values, dtype=np.float64)[None, :]


def mapped(graph: Graph, p: str, curves: Sequence[Segments], k: int) -> str:
    """Map each class by its curve; of two classes the second has one."""
    if k != 2:
        return graph.piecewise(p, curves)
    second = graph.piecewise(graph.column(p, 1), curves)
    return graph.op("Concat", graph.op("Sub", 1.0, second), second, axis=1)


def log_chances(graph: Graph, logits: str, k: int) -> tuple[str, str]:
    """Return log(p) and log(1 - p) of the classes that have a curve, (N, curves)."""
    shifted = graph.shifted(logits)
    e = graph.op("Exp", shifted)
    total = graph.reduce("ReduceSum", e)
    top = graph.op("ArgMax", logits, axis=1, keepdims=1)
    is_top = graph.op("Equal", np.arange(k)[None, :], top)
    # Near 1, the difference would be rounding noise: add the other classes instead.
    others = graph.reduce("ReduceSum", graph.op("Where", is_top, 0.0, e))
    rest = graph.op("Where", is_top, others, graph.op("Sub", total, e))
    log_total = graph.op("Log", total)
    found = []
    for logs in (shifted, graph.op("Log", rest)):
        kept = graph.op("Max", graph.op("Sub", logs, log_total), LOWEST_LOG)
        found.append(graph.column(kept, 1) if k == 2 else kept)
    return found[0], found[1]


def from_scores(graph: Graph, scores: str, logits: str, k: int) -> str:
    """Return probabilities of log-odds of each class against the rest."""
    if k == 2:
        scores = graph.op("Concat", graph.op("Neg", scores), scores, axis=1)
    # The logarithm of the sigmoid, in operators that exist in float64.
    tail = graph.op("Exp", graph.op("Neg", graph.op("Abs", scores)))
    tail = graph.op("Log", graph.op("Add", tail, 1.0))
    logs = graph.op("Sub", graph.op("Min", scores, 0.0), tail)
    logs = graph.op("Where", graph.is_open(logits), logs, -np.inf)
    best = graph.reduce("ReduceMax", logs)
    p = graph.op("Exp", graph.op("Sub", logs, best))
    p = graph.op("Where", graph.op("Greater", best, _LOG_OF_ZERO), p, 0.0)
    return graph.renormalised(p, logits)


# --------------------------------------------------------------------------- torch

TORCH_RENORMALISED = '''
    def renormalised(self, p, z):
        """Make rows sum to 1; classes at -inf stay 0, rows of zeros are uniform."""
        is_open = ~torch.isneginf(z)
        p = torch.where(is_open, p, 0.0)
        p = torch.where(p.sum(dim=1, keepdim=True) > 0, p, is_open.double())
        return p / p.sum(dim=1, keepdim=True)
'''

TORCH_MAPPED = '''
    def mapped(self, p):
        """Map each class by its curve; of two classes the second has one."""
        columns = p[:, -len(self.start) :].T.contiguous()
        at = torch.searchsorted(self.start, columns, right=True) - 1
        start, slope = self.start.gather(1, at), self.slope.gather(1, at)
        found = (self.value.gather(1, at) + slope * (columns - start)).T
        return torch.cat([1.0 - found, found], dim=1) if len(columns) == 1 else found
'''

TORCH_FROM_SCORES = '''
    def log_chances(self, z):
        """Return log(p) and log(1 - p), neither below -700."""
        is_top = torch.arange(z.shape[1], device=z.device) == z.argmax(1, keepdim=True)
        z = z - z.amax(dim=1, keepdim=True)
        e = z.exp()
        total = e.sum(dim=1, keepdim=True)
        # Near 1, the difference would be rounding noise: add the other classes instead.
        others = e.masked_fill(is_top, 0.0).sum(dim=1, keepdim=True)
        rest = torch.where(is_top, others, total - e)
        logs = [(part - total.log()).clamp(min=-700.0) for part in (z, rest.log())]
        return [part[:, 1:] if z.shape[1] == 2 else part for part in logs]

    def from_scores(self, scores, z):
        """Return the probabilities of log-odds of each class against the rest."""
        if scores.shape[1] == 1:
            scores = torch.cat([-scores, scores], dim=1)
        logs = nn.functional.logsigmoid(scores)
        logs = logs.masked_fill(torch.isneginf(z), -torch.inf)
        best = logs.amax(dim=1, keepdim=True)
        p = torch.where(best.exp() > 0, (logs - best).exp(), 0.0)
        return self.renormalised(p, z)
'''


def stacked(curves: Sequence[Segments]) -> dict[str, FloatArray]:
    """Return the segments of all curves as (columns, segments), padded at the end."""
    size = max(curve.start.size for curve in curves)

    def padded(name: str, end: float) -> FloatArray:
        rows = [getattr(curve, name) for curve in curves]
        return np.stack(
            [np.pad(row, (0, size - row.size), constant_values=end) for row in rows]
        )

    return {
        "start": padded("start", np.inf),
        "value": padded("value", 0.0),
        "slope": padded("slope", 0.0),
    }


def as_they_are(state: State) -> dict[str, FloatArray]:
    """Return every value of the state as a buffer."""
    return {name: np.array(value, np.float64) for name, value in state.items()}
