"""Exports of calibrators that were told to keep predictions: one step at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.calibrators.keeping import LEAD
from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["KEPT", "keeping"]

KEPT = "keeps_predictions"
"""Name of the flag in the parameters of a calibrator."""

_NUMPY = f'''

def calibrated(z):
    """Keep the class with the largest logit ahead: cap the others at a level."""
    p = changed(z)
    kept = z.argmax(axis=1)
    rows = np.flatnonzero(p.argmax(axis=1) != kept)
    q, kept = p[rows], kept[rows]
    here = np.arange(len(rows))
    own = q[here, kept]
    q[here, kept] = -1.0
    falling = -np.sort(-q, axis=1)
    means = (own[:, None] + np.cumsum(falling, axis=1)) / np.arange(2, q.shape[1] + 2)
    is_above = falling > np.column_stack([own, means[:, :-1]])
    level = (own + np.where(is_above, falling, 0.0).sum(1)) / (1 + is_above.sum(1))
    q = np.minimum(q, level[:, None])
    q[here, kept] = level * (1.0 + {LEAD!r})
    p[rows] = q / q.sum(axis=1, keepdims=True)
    return p
'''

_TORCH = f'''
    def calibrated(self, z):
        """Keep the class with the largest logit ahead: cap the others at a level."""
        p = self.changed(z)
        kept = z.argmax(dim=1, keepdim=True)
        is_kept = torch.arange(z.shape[1], device=z.device) == kept
        own = p.gather(1, kept)
        falling = torch.sort(p.masked_fill(is_kept, -1.0), dim=1, descending=True)[0]
        counts = torch.arange(2, z.shape[1] + 2, device=z.device)
        means = (own + torch.cumsum(falling, dim=1)) / counts
        is_above = falling > torch.cat([own, means[:, :-1]], dim=1)
        total = own + torch.where(is_above, falling, 0.0).sum(dim=1, keepdim=True)
        level = total / (1 + is_above.sum(dim=1, keepdim=True))
        q = torch.where(is_kept, level * (1.0 + {LEAD!r}), torch.minimum(p, level))
        q = q / q.sum(dim=1, keepdim=True)
        return torch.where(p.argmax(dim=1, keepdim=True) == kept, p, q)
'''


def keeping(own: Export) -> Export:
    """Return the export of the same calibrator with its predictions kept."""

    def write(graph: Graph, logits: str, state: State, k: int) -> str:
        p = own.graph.write(graph, logits, _without_flag(state), k)
        return _kept(graph, p, logits, k)

    numpy, torch = own.numpy, own.torch
    return Export(
        Writer(
            formula=(
                f"p = {numpy.formula}; where the largest class is no longer that of z, "
                "the others are capped at the level that lets it lead"
            ),
            constants=numpy.constants,
            code=numpy.code.replace("def calibrated(", "def changed(") + _NUMPY,
            is_sound=lambda state, k: numpy.is_sound(_without_flag(state), k),
        ),
        GraphWriter(write, needs_double=own.graph.needs_double),
        TorchWriter(
            torch.code.replace("def calibrated(", "def changed(") + _TORCH,
            lambda state: torch.tensors(_without_flag(state)),
        ),
        refusal=own.refusal,
    )


def _without_flag(state: State) -> State:
    return {name: value for name, value in state.items() if name != KEPT}


def _kept(graph: Graph, p: str, logits: str, k: int) -> str:
    first = graph.op("ArgMax", logits, axis=1, keepdims=1)
    now = graph.op("ArgMax", p, axis=1, keepdims=1)
    is_kept = graph.op("Equal", np.arange(k)[None, :], first)
    own = graph.reduce("ReduceSum", graph.op("Where", is_kept, p, 0.0))
    falling, _ = graph.largest(graph.op("Where", is_kept, -1.0, p), k)
    totals = graph.op("Add", own, graph.op("CumSum", falling, np.array(1)))
    means = graph.op("Div", totals, np.arange(2.0, k + 2.0)[None, :])
    earlier = own
    if k > 1:
        means = graph.op("Gather", means, np.arange(k - 1), axis=1)
        earlier = graph.op("Concat", own, means, axis=1)
    is_above = graph.op("Greater", falling, earlier)
    total = graph.reduce("ReduceSum", graph.op("Where", is_above, falling, 0.0))
    count = graph.reduce("ReduceSum", graph.to_inner(is_above))
    level = graph.op("Div", graph.op("Add", own, total), graph.op("Add", count, 1.0))
    lead = graph.op("Mul", level, 1.0 + LEAD)
    q = graph.op("Where", is_kept, lead, graph.op("Min", p, level))
    q = graph.op("Div", q, graph.reduce("ReduceSum", q))
    return graph.op("Where", graph.op("Equal", first, now), p, q)
