"""Export of the calibrator that rescales gaps between sorted logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.parts import as_they_are

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_NUMPY = '''

def calibrated(z):
    """Rescale the gap between each two neighbours of the sorted logits."""
    order = np.argsort(-z, axis=1, kind="stable")
    ordered = np.take_along_axis(z, order, axis=1)
    with np.errstate(invalid="ignore"):
        gaps = ordered[:, :-1] - ordered[:, 1:]
    gaps[ordered[:, 1:] == -np.inf] = 0.0
    falls = np.zeros(z.shape)
    falls[:, 1:] = np.cumsum(gaps * np.array(FACTORS), axis=1)
    scores = np.empty(z.shape)
    np.put_along_axis(scores, order, -falls, axis=1)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''

_TORCH = '''
    def calibrated(self, z):
        """Rescale the gap between each two neighbours of the sorted logits."""
        ordered, order = torch.sort(z, dim=1, descending=True, stable=True)
        gaps = ordered[:, :-1] - ordered[:, 1:]
        gaps = torch.where(torch.isneginf(ordered[:, 1:]), 0.0, gaps)
        falls = torch.cumsum(gaps * self.factors, dim=1)
        falls = torch.cat([torch.zeros_like(z[:, :1]), falls], dim=1)
        scores = torch.zeros_like(z).scatter(1, order, -falls)
        return torch.softmax(scores.masked_fill(torch.isneginf(z), -torch.inf), dim=1)
'''


def _write(graph: Graph, logits: str, state: State, k: int) -> str:
    ordered, order = graph.largest(logits, k)
    upper = graph.op("Gather", ordered, np.arange(k - 1), axis=1)
    lower = graph.op("Gather", ordered, np.arange(1, k), axis=1)
    gaps = graph.op("Where", graph.is_open(lower), graph.op("Sub", upper, lower), 0.0)
    factors = np.array(state["factors"], dtype=np.float64)[None, :]
    falls = graph.op("CumSum", graph.op("Mul", gaps, factors), np.array(1))
    first = graph.op("Mul", graph.op("Gather", falls, np.array([0]), axis=1), 0.0)
    scores = graph.op("Neg", graph.op("Concat", first, falls, axis=1))
    placed = graph.op("ScatterElements", scores, order, scores, axis=1)
    found = graph.op("Where", graph.is_open(logits), placed, logits)
    return graph.op("Softmax", graph.shifted(found), axis=1)


EXPORTS = {
    "intra-order-preserving": Export(
        Writer(
            formula=(
                "softmax(f), f of the i-th largest logit = -sum over j < i of "
                "m_j * (z_(j) - z_(j+1))"
            ),
            constants={"FACTORS": "factors"},
            code=_NUMPY,
        ),
        GraphWriter(_write, needs_double=True),
        TorchWriter(_TORCH, as_they_are),
    ),
}
"""By id of the calibrator."""
