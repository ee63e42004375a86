"""Export of the entropy target: each row's temperature by halving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.calibrators.entropy_target import STEPS
from core.calibrators.scaling import HIGHEST, LOWEST
from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.parts import as_they_are

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_NUMPY = f'''

def calibrated(z):
    """Halve the range of log T until the entropy of each row is the target."""
    is_open = z > -np.inf
    z = np.where(is_open, z - z.max(axis=1, keepdims=True), 0.0)
    low = np.full((len(z), 1), np.log({LOWEST!r}))
    high = np.full((len(z), 1), np.log({HIGHEST!r}))
    for _ in range({STEPS}):
        middle = (low + high) / 2
        scaled = z / np.exp(middle)
        e = np.where(is_open, np.exp(scaled), 0.0)
        total = e.sum(axis=1, keepdims=True)
        entropy = np.log(total) - (e * scaled).sum(axis=1, keepdims=True) / total
        is_sure = entropy < ENTROPY
        low, high = np.where(is_sure, middle, low), np.where(is_sure, high, middle)
    e = np.where(is_open, np.exp(z / np.exp((low + high) / 2)), 0.0)
    return e / e.sum(axis=1, keepdims=True)
'''

_TORCH = f'''
    def calibrated(self, z):
        """Halve the range of log T until the entropy of each row is the target."""
        is_open = ~torch.isneginf(z)
        z = torch.where(is_open, z - z.amax(dim=1, keepdim=True), 0.0)
        low = torch.full_like(z[:, :1], math.log({LOWEST!r}))
        high = torch.full_like(z[:, :1], math.log({HIGHEST!r}))
        for _ in range({STEPS}):
            middle = (low + high) / 2
            scaled = z / middle.exp()
            e = torch.where(is_open, scaled.exp(), 0.0)
            total = e.sum(dim=1, keepdim=True)
            entropy = total.log() - (e * scaled).sum(dim=1, keepdim=True) / total
            is_sure = entropy < self.entropy
            low = torch.where(is_sure, middle, low)
            high = torch.where(is_sure, high, middle)
        e = torch.where(is_open, (z / ((low + high) / 2).exp()).exp(), 0.0)
        return e / e.sum(dim=1, keepdim=True)
'''


def _graph(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    is_open = graph.is_open(logits)
    z = graph.op("Where", is_open, graph.shifted(logits), 0.0)
    nothing = graph.op("Mul", graph.reduce("ReduceMax", z), 0.0)
    low = graph.op("Add", nothing, float(np.log(LOWEST)))
    high = graph.op("Add", nothing, float(np.log(HIGHEST)))

    def masses(log_t: str) -> tuple[str, str]:
        scaled = graph.op("Div", z, graph.op("Exp", log_t))
        return scaled, graph.op("Where", is_open, graph.op("Exp", scaled), 0.0)

    for _ in range(STEPS):
        middle = graph.op("Mul", graph.op("Add", low, high), 0.5)
        scaled, e = masses(middle)
        total = graph.reduce("ReduceSum", e)
        pull = graph.reduce("ReduceSum", graph.op("Mul", e, scaled))
        mean = graph.op("Div", pull, total)
        entropy = graph.op("Sub", graph.op("Log", total), mean)
        is_sure = graph.op("Less", entropy, float(state["entropy"]))
        low = graph.op("Where", is_sure, middle, low)
        high = graph.op("Where", is_sure, high, middle)
    _, e = masses(graph.op("Mul", graph.op("Add", low, high), 0.5))
    return graph.op("Div", e, graph.reduce("ReduceSum", e))


EXPORTS = {
    "entropy-target": Export(
        Writer(
            formula="softmax(z / T), T of each row where the entropy is the target",
            constants={"ENTROPY": "entropy"},
            code=_NUMPY,
        ),
        GraphWriter(_graph, needs_double=True),
        TorchWriter(_TORCH, as_they_are),
    ),
}
"""By id of the calibrator."""
