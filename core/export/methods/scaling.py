"""Exports of the calibrators that rescale logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.parts import as_they_are, row

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_UNCALIBRATED = '''

def calibrated(z):
    """Return the probabilities as they are."""
    return np.exp(log_softmax(z))
'''

_TEMPERATURE = '''

def calibrated(z):
    """Divide the logits by T."""
    return np.exp(log_softmax(z, TEMPERATURE))
'''

_VECTOR = '''

def calibrated(z):
    """Give the logit of each class its own slope and offset."""
    with np.errstate(invalid="ignore"):
        scores = z * np.array(WEIGHTS) + np.array(BIAS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''


def _uncalibrated(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    return graph.op("Softmax", graph.shifted(logits), axis=1)


def _temperature(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    shifted = graph.shifted(logits)
    scaled = graph.op("Div", shifted, float(state["temperature"]))
    return graph.op("Softmax", scaled, axis=1)


def _vector(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    weights, bias = row(state["weights"]), row(state["bias"])
    scores = graph.op("Add", graph.op("Mul", logits, weights), bias)
    scores = graph.op("Where", graph.is_open(logits), scores, logits)
    return graph.op("Softmax", graph.shifted(scores), axis=1)


_TORCH_UNCALIBRATED = '''
    def calibrated(self, z):
        """Return the probabilities as they are."""
        return torch.softmax(z - z.amax(dim=1, keepdim=True), dim=1)
'''

_TORCH_TEMPERATURE = '''
    def calibrated(self, z):
        """Divide the logits by T."""
        shifted = z - z.amax(dim=1, keepdim=True)
        return torch.softmax(shifted / self.temperature, dim=1)
'''

_TORCH_VECTOR = '''
    def calibrated(self, z):
        """Give the logit of each class its own slope and offset."""
        scores = torch.where(torch.isneginf(z), z, z * self.weights + self.bias)
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

EXPORTS = {
    "uncalibrated": Export(
        Writer(formula="softmax(z)", constants={}, code=_UNCALIBRATED),
        GraphWriter(_uncalibrated),
        TorchWriter(_TORCH_UNCALIBRATED, as_they_are),
    ),
    "temperature": Export(
        Writer(
            formula="softmax(z / T)",
            constants={"TEMPERATURE": "temperature"},
            code=_TEMPERATURE,
        ),
        GraphWriter(_temperature),
        TorchWriter(_TORCH_TEMPERATURE, as_they_are),
    ),
    "vector": Export(
        Writer(
            formula="softmax(w * z + b)",
            constants={"WEIGHTS": "weights", "BIAS": "bias"},
            code=_VECTOR,
        ),
        GraphWriter(_vector, needs_double=True),
        TorchWriter(_TORCH_VECTOR, as_they_are),
    ),
}
"""By id of the calibrator."""
