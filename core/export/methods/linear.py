"""Exports of the calibrators that are linear in logits or log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.calibrators.one_vs_rest import LOWEST_LOG
from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.parts import as_they_are, row

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

# --------------------------------------------------------------------------- NumPy

_BIAS_CORRECTED = '''

def calibrated(z):
    """Divide the logits by T, and add the offset of each class."""
    shifted = z - z.max(axis=1, keepdims=True)
    return np.exp(log_softmax(shifted / TEMPERATURE + np.array(BIAS)))
'''

_ENSEMBLE = '''

def calibrated(z):
    """Mix the scores at T with the scores as they are and the uniform."""
    is_open = z > -np.inf
    uniform = is_open / is_open.sum(axis=1, keepdims=True)
    scaled = np.exp(log_softmax(z, TEMPERATURE))
    own = np.exp(log_softmax(z))
    return WEIGHTS[0] * scaled + WEIGHTS[1] * own + WEIGHTS[2] * uniform
'''

_MIXED = '''

def mixed_logs(z):
    """Return logarithms of the chances at T, mixed with a grain of the uniform."""
    p = np.exp(log_softmax(z, TEMPERATURE))
    return np.log((1.0 - MIXING) * p + MIXING / z.shape[1])
'''

_STRUCTURED_VECTOR = (
    '''

def calibrated(z):
    """Give the log-chance of each class its own slope and offset."""
    scores = mixed_logs(z) * np.array(WEIGHTS) + np.array(BIAS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''
    + _MIXED
)

_STRUCTURED_MATRIX = (
    '''

def calibrated(z):
    """Make the score of each class of the log-chances of all."""
    scores = mixed_logs(z) @ np.array(MATRIX).T + np.array(BIAS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''
    + _MIXED
)

_MATRIX = '''

def calibrated(z):
    """Make the score of each class of the logits of all."""
    inputs = np.where(z == -np.inf, 0.0, z)
    scores = inputs @ np.array(MATRIX).T + np.array(BIAS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''

_DIRICHLET = '''

def calibrated(z):
    """Make the score of each class of the log-probabilities of all."""
    inputs = np.where(z == -np.inf, 0.0, np.maximum(log_softmax(z), -700.0))
    scores = inputs @ np.array(MATRIX).T + np.array(BIAS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''

_NO_BIAS = '''

def calibrated(z):
    """Give the logit of each class its own slope."""
    with np.errstate(invalid="ignore"):
        scores = z * np.array(WEIGHTS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''

# ---------------------------------------------------------------------------- ONNX


def _scaled(graph: Graph, logits: str, state: State) -> str:
    """Return the logits, largest first subtracted, over T."""
    return graph.op("Div", graph.shifted(logits), float(state["temperature"]))


def _mixed(graph: Graph, logits: str, state: State, k: int) -> str:
    """Return logarithms of the chances at T, mixed with a grain of the uniform."""
    p = graph.op("Softmax", _scaled(graph, logits, state), axis=1)
    mixing = float(state["mixing"])
    p = graph.op("Add", graph.op("Mul", p, 1.0 - mixing), mixing / k)
    return graph.op("Log", p)


def _closed(graph: Graph, scores: str, logits: str) -> str:
    """Return the probabilities of scores; classes at -inf stay 0."""
    kept = graph.op("Where", graph.is_open(logits), scores, logits)
    return graph.op("Softmax", graph.shifted(kept), axis=1)


def _bias_corrected(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    scores = graph.op("Add", _scaled(graph, logits, state), row(state["bias"]))
    return graph.op("Softmax", graph.shifted(scores), axis=1)


def _ensemble(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    first, second, third = (float(share) for share in state["weights"])
    scaled = graph.op("Softmax", _scaled(graph, logits, state), axis=1)
    own = graph.op("Softmax", graph.shifted(logits), axis=1)
    is_open = graph.to_inner(graph.is_open(logits))
    uniform = graph.op("Div", is_open, graph.reduce("ReduceSum", is_open))
    mixed = graph.op(
        "Add", graph.op("Mul", scaled, first), graph.op("Mul", own, second)
    )
    return graph.op("Add", mixed, graph.op("Mul", uniform, third))


def _structured_vector(graph: Graph, logits: str, state: State, k: int) -> str:
    scores = graph.op("Mul", _mixed(graph, logits, state, k), row(state["weights"]))
    scores = graph.op("Add", scores, row(state["bias"]))
    return _closed(graph, scores, logits)


def _product(graph: Graph, inputs: str, logits: str, state: State) -> str:
    """Return the probabilities of W x + b."""
    matrix = np.array(state["matrix"], dtype=np.float64).T
    scores = graph.op("MatMul", inputs, matrix)
    scores = graph.op("Add", scores, row(state["bias"]))
    return _closed(graph, scores, logits)


def _structured_matrix(graph: Graph, logits: str, state: State, k: int) -> str:
    return _product(graph, _mixed(graph, logits, state, k), logits, state)


def _matrix(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    inputs = graph.op("Where", graph.is_open(logits), logits, 0.0)
    return _product(graph, inputs, logits, state)


def _dirichlet(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    shifted = graph.shifted(logits)
    total = graph.reduce("ReduceSum", graph.op("Exp", shifted))
    logs = graph.op("Max", graph.op("Sub", shifted, graph.op("Log", total)), LOWEST_LOG)
    inputs = graph.op("Where", graph.is_open(logits), logs, 0.0)
    return _product(graph, inputs, logits, state)


def _no_bias(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    scores = graph.op("Mul", logits, row(state["weights"]))
    return _closed(graph, scores, logits)


# --------------------------------------------------------------------------- torch

_TORCH_BIAS_CORRECTED = '''
    def calibrated(self, z):
        """Divide the logits by T, and add the offset of each class."""
        shifted = z - z.amax(dim=1, keepdim=True)
        scores = shifted / self.temperature + self.bias
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

_TORCH_ENSEMBLE = '''
    def calibrated(self, z):
        """Mix the scores at T with the scores as they are and the uniform."""
        shifted = z - z.amax(dim=1, keepdim=True)
        scaled = torch.softmax(shifted / self.temperature, dim=1)
        own = torch.softmax(shifted, dim=1)
        is_open = (~torch.isneginf(z)).double()
        uniform = is_open / is_open.sum(dim=1, keepdim=True)
        first, second, third = self.weights
        return first * scaled + second * own + third * uniform
'''

_TORCH_MIXED = '''
    def mixed_logs(self, z):
        """Return logarithms of the chances at T, mixed with a grain of the uniform."""
        shifted = z - z.amax(dim=1, keepdim=True)
        p = torch.softmax(shifted / self.temperature, dim=1)
        return torch.log((1.0 - self.mixing) * p + self.mixing / z.shape[1])

    def closed(self, scores, z):
        """Return the probabilities of scores; classes at -inf stay 0."""
        scores = scores.masked_fill(torch.isneginf(z), -torch.inf)
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

_TORCH_STRUCTURED_VECTOR = (
    '''
    def calibrated(self, z):
        """Give the log-chance of each class its own slope and offset."""
        return self.closed(self.mixed_logs(z) * self.weights + self.bias, z)
'''
    + _TORCH_MIXED
)

_TORCH_STRUCTURED_MATRIX = (
    '''
    def calibrated(self, z):
        """Make the score of each class of the log-chances of all."""
        scores = torch.matmul(self.mixed_logs(z), self.matrix.T)
        return self.closed(scores + self.bias, z)
'''
    + _TORCH_MIXED
)

_TORCH_PRODUCT = '''
    def closed(self, inputs, z):
        """Return the probabilities of W x + b; classes at -inf stay 0."""
        inputs = inputs.masked_fill(torch.isneginf(z), 0.0)
        scores = torch.matmul(inputs, self.matrix.T) + self.bias
        scores = scores.masked_fill(torch.isneginf(z), -torch.inf)
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

_TORCH_MATRIX = (
    '''
    def calibrated(self, z):
        """Make the score of each class of the logits of all."""
        return self.closed(z, z)
'''
    + _TORCH_PRODUCT
)

_TORCH_DIRICHLET = (
    '''
    def calibrated(self, z):
        """Make the score of each class of the log-probabilities of all."""
        return self.closed(torch.log_softmax(z, dim=1).clamp(min=-700.0), z)
'''
    + _TORCH_PRODUCT
)

_TORCH_NO_BIAS = '''
    def calibrated(self, z):
        """Give the logit of each class its own slope."""
        scores = torch.where(torch.isneginf(z), z, z * self.weights)
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

_MIXED_FORMULA = "z' = log((1 - m) * softmax(z / T) + m / k)"
_STARTED = {"TEMPERATURE": "temperature", "MIXING": "mixing", "BIAS": "bias"}

EXPORTS = {
    "bias-corrected-temperature": Export(
        Writer(
            formula="softmax(z / T + b)",
            constants={"TEMPERATURE": "temperature", "BIAS": "bias"},
            code=_BIAS_CORRECTED,
        ),
        GraphWriter(_bias_corrected, needs_double=True),
        TorchWriter(_TORCH_BIAS_CORRECTED, as_they_are),
    ),
    "ensemble-temperature": Export(
        Writer(
            formula="w1 * softmax(z / T) + w2 * softmax(z) + w3 * uniform",
            constants={"TEMPERATURE": "temperature", "WEIGHTS": "weights"},
            code=_ENSEMBLE,
        ),
        GraphWriter(_ensemble),
        TorchWriter(_TORCH_ENSEMBLE, as_they_are),
    ),
    "structured-vector": Export(
        Writer(
            formula=f"softmax(w * z' + b), {_MIXED_FORMULA}",
            constants={**_STARTED, "WEIGHTS": "weights"},
            code=_STRUCTURED_VECTOR,
        ),
        GraphWriter(_structured_vector, needs_double=True),
        TorchWriter(_TORCH_STRUCTURED_VECTOR, as_they_are),
    ),
    "structured-matrix": Export(
        Writer(
            formula=f"softmax(W z' + b), {_MIXED_FORMULA}",
            constants={**_STARTED, "MATRIX": "matrix"},
            code=_STRUCTURED_MATRIX,
        ),
        GraphWriter(_structured_matrix, needs_double=True),
        TorchWriter(_TORCH_STRUCTURED_MATRIX, as_they_are),
    ),
    "matrix": Export(
        Writer(
            formula="softmax(W z + b)",
            constants={"MATRIX": "matrix", "BIAS": "bias"},
            code=_MATRIX,
        ),
        GraphWriter(_matrix, needs_double=True),
        TorchWriter(_TORCH_MATRIX, as_they_are),
    ),
    "dirichlet": Export(
        Writer(
            formula="softmax(W log(p) + b), p = softmax(z)",
            constants={"MATRIX": "matrix", "BIAS": "bias"},
            code=_DIRICHLET,
        ),
        GraphWriter(_dirichlet, needs_double=True),
        TorchWriter(_TORCH_DIRICHLET, as_they_are),
    ),
    "no-bias-vector": Export(
        Writer(
            formula="softmax(w * z)",
            constants={"WEIGHTS": "weights"},
            code=_NO_BIAS,
        ),
        GraphWriter(_no_bias, needs_double=True),
        TorchWriter(_TORCH_NO_BIAS, as_they_are),
    ),
}
"""By id of the calibrator."""
