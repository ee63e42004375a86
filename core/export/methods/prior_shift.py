"""Export of the prior-shift correction: an offset for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.parts import as_they_are, row

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_NUMPY = '''

def calibrated(z):
    """Add the offset of each class."""
    shifted = z - z.max(axis=1, keepdims=True)
    return np.exp(log_softmax(shifted + np.array(BIAS)))
'''

_TORCH = '''
    def calibrated(self, z):
        """Add the offset of each class."""
        scores = z - z.amax(dim=1, keepdim=True) + self.bias
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''


def _graph(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    return graph.softmax(graph.op("Add", graph.shifted(logits), row(state["bias"])))


EXPORTS = {
    "prior-shift": Export(
        Writer(
            formula="softmax(z + b), b = log(prevalence now / prevalence in training)",
            constants={"BIAS": "bias"},
            code=_NUMPY,
        ),
        GraphWriter(_graph, needs_double=True),
        TorchWriter(_TORCH, as_they_are),
    ),
}
"""By id of the calibrator."""
