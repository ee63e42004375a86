"""Exports of the calibrators that give each row a temperature of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.calibrators.row_temperature import LOWEST_LOG
from core.calibrators.top_rows import KEPT_GAP
from core.export.methods.base import (
    Export,
    FloatArray,
    GraphWriter,
    State,
    TorchWriter,
    Writer,
)

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = [
    "DIVIDED",
    "EXPORTS",
    "OWN_SCORES",
    "RAISED",
    "TORCH_DIVIDED",
    "TORCH_OWN",
    "TORCH_RAISED",
    "divided",
    "own_scores",
    "raised",
    "tensors",
]

# --------------------------------------------------------------------------- NumPy

_LARGEST = '''

def largest(z, count):
    """Return the columns of the largest logits of each row; of equal ones the first."""
    return np.argsort(-z, axis=1, kind="stable")[:, :count]
'''

OWN_SCORES = (
    '''

def inputs(z):
    """Return the largest log-probabilities of each row, none below -30."""
    logs = log_softmax(z)
    best = largest(z, min(N_TOP, z.shape[1]))
    return np.maximum(np.take_along_axis(logs, best, axis=1), -30.0)
'''
    + _LARGEST
)

_COPY_SCORES = (
    '''

def inputs(z, copies):
    """Return what each copy says of the classes that the row itself ranks first."""
    best = largest(z, N_TOP)
    scores = [np.exp(log_softmax(copy)) for copy in copies]
    return np.hstack([np.take_along_axis(p, best, axis=1) for p in scores])
'''
    + _LARGEST
)

_NETWORK = '''

def temperature(x):
    """Return T of each row, within a factor exp(BOUND) of the common one."""
    if not LAYERS:
        return np.full((len(x), 1), TEMPERATURE)
    for number, layer in enumerate(LAYERS):
        x = np.tanh(x) if number else x
        x = x @ np.array(layer["weights"]) + np.array(layer["bias"])
    return TEMPERATURE * np.exp(BOUND * np.tanh(x / BOUND))
'''

_RELEASED_NETWORK = '''

def temperature(x):
    """Return T of each row, clipped."""
    for number, layer in enumerate(LAYERS):
        x = np.maximum(x, 0.0) if number else x
        x = x @ np.array(layer["weights"]) + np.array(layer["bias"])
    return np.clip(x, LOWEST, HIGHEST)
'''

RAISED = f'''

def raised(logs, place, change):
    """Change the log-odds of one class of each row; it stays the largest."""
    logs, here = logs.copy(), np.arange(len(logs))
    top = logs[here, place]
    logs[here, place] = -np.inf
    fall = np.maximum(top - logs.max(axis=1) - {KEPT_GAP}, 0.0)
    logs[here, place] = top + np.maximum(change, -fall)
    return np.exp(log_softmax(logs))
'''

DIVIDED = '''

def calibrated(z):
    """Divide the logits of each row by a temperature of its own."""
    return np.exp(log_softmax(z, temperature(inputs(z))))
'''

_DIVIDED_COPIES = DIVIDED.replace("(z)", "(z, copies)")

_CORRECTNESS = (
    '''

def calibrated(z):
    """Divide the logits of each row by T, and undo the weights of the fit."""
    logs = log_softmax(z, temperature(inputs(z)))
    if not LOG_ODDS_CHANGE:
        return np.exp(logs)
    return raised(logs, z.argmax(axis=1), LOG_ODDS_CHANGE)
'''
    + RAISED
)

_CORRECTNESS_COPIES = _CORRECTNESS.replace(
    "calibrated(z)", "calibrated(z, copies)"
).replace("inputs(z)", "inputs(z, copies)")

# ---------------------------------------------------------------------------- ONNX


def own_scores(graph: Graph, logits: str, count: int) -> str:
    """Return the largest log-probabilities of each row."""
    shifted = graph.shifted(logits)
    total = graph.reduce("ReduceSum", graph.op("Exp", shifted))
    logs = graph.op("Sub", shifted, graph.op("Log", total))
    return graph.op("Max", graph.largest(logs, count)[0], LOWEST_LOG)


def copy_scores(graph: Graph, logits: str, copies: Sequence[str], count: int) -> str:
    """Return what each copy says of the classes that the row itself ranks first."""
    _, places = graph.largest(logits, count)
    parts = [
        graph.op("GatherElements", graph.softmax(copy), places, axis=1)
        for copy in copies
    ]
    return graph.op("Concat", *parts, axis=1)


def _layers(graph: Graph, x: str, state: State, between: str) -> str:
    for number, layer in enumerate(state["layers"]):
        x = graph.op(between, x) if number else x
        weights, bias = (np.array(layer[key], float) for key in ("weights", "bias"))
        x = graph.op("Add", graph.op("MatMul", x, weights), bias)
    return x


def _temperature(graph: Graph, x: str, state: State) -> str | float:
    """Return T, (N, 1), or one number."""
    common = float(state["temperature"])
    if not state["layers"]:
        return common
    bound = float(state["bound"])
    bent = graph.op("Tanh", graph.op("Div", _layers(graph, x, state, "Tanh"), bound))
    return graph.op("Mul", graph.op("Exp", graph.op("Mul", bent, bound)), common)


def divided(graph: Graph, logits: str, temperature: str | float) -> str:
    """Return the logits, the largest at 0, divided by T."""
    return graph.op("Div", graph.shifted(logits), temperature)


def raised(graph: Graph, scores: str, place: str, change: str | float, k: int) -> str:
    """Return probabilities after the log-odds of one class, (N, 1), were changed."""
    is_top = graph.op("Equal", np.arange(k)[None, :], place)
    top = graph.reduce("ReduceMax", scores)
    others = graph.op("Where", is_top, -np.inf, scores)
    lead = graph.op("Sub", top, graph.reduce("ReduceMax", others))
    fall = graph.op("Max", graph.op("Sub", lead, KEPT_GAP), 0.0)
    allowed = graph.op("Max", change, graph.op("Neg", fall))
    moved = graph.op("Where", is_top, graph.op("Add", top, allowed), scores)
    return graph.op("Softmax", graph.shifted(moved), axis=1)


def _own(graph: Graph, logits: str, state: State, k: int) -> str:
    x = own_scores(graph, logits, min(int(state["n_top"]), k))
    scaled = divided(graph, logits, _temperature(graph, x, state))
    return _undone(graph, scaled, logits, state, k)


def _of_copies(
    graph: Graph, logits: str, state: State, k: int, copies: Sequence[str]
) -> str:
    x = copy_scores(graph, logits, copies, int(state["n_top"]))
    scaled = divided(graph, logits, _temperature(graph, x, state))
    return _undone(graph, scaled, logits, state, k)


def _undone(graph: Graph, scaled: str, logits: str, state: State, k: int) -> str:
    change = float(state.get("log_odds_change", 0.0))
    if not change:
        return graph.op("Softmax", scaled, axis=1)
    place = graph.op("ArgMax", logits, axis=1, keepdims=1)
    return raised(graph, scaled, place, change, k)


def _released(
    graph: Graph, logits: str, state: State, k: int, copies: Sequence[str]
) -> str:
    del k  # the number of classes is in the arrays
    x = copy_scores(graph, logits, copies, int(state["n_top"]))
    output = _layers(graph, x, state, "Relu")
    limits = (np.array(float(state[key])) for key in ("lowest", "highest"))
    clipped = graph.op("Clip", output, *limits)
    return graph.op("Softmax", divided(graph, logits, clipped), axis=1)


# --------------------------------------------------------------------------- torch

_TORCH_LARGEST = '''
    def largest(self, z, count):
        """Return the columns of the largest logits; of equal ones the first."""
        return torch.sort(z, dim=1, descending=True, stable=True).indices[:, :count]
'''

TORCH_OWN = (
    '''
    def inputs(self, z):
        """Return the largest log-probabilities of each row, none below -30."""
        best = self.largest(z, int(self.n_top))
        return torch.log_softmax(z, dim=1).gather(1, best).clamp(min=-30.0)
'''
    + _TORCH_LARGEST
)

_TORCH_COPIES = (
    '''
    def inputs(self, z, copies):
        """Return what each copy says of the classes that the row ranks first."""
        best = self.largest(z, int(self.n_top))
        scores = [torch.log_softmax(copy, dim=1).exp() for copy in copies]
        return torch.cat([p.gather(1, best) for p in scores], dim=1)
'''
    + _TORCH_LARGEST
)

_TORCH_NETWORK = '''
    def temperature_of(self, x):
        """Return T of each row, within a factor exp(bound) of the common one."""
        for number in range(int(self.n_layers)):
            x = torch.tanh(x) if number else x
            weights = getattr(self, f"weights_{number}")
            x = torch.matmul(x, weights) + getattr(self, f"bias_{number}")
        if not int(self.n_layers):
            return self.temperature
        return self.temperature * torch.exp(self.bound * torch.tanh(x / self.bound))
'''

_TORCH_RELEASED_NETWORK = '''
    def temperature_of(self, x):
        """Return T of each row, clipped."""
        for number in range(int(self.n_layers)):
            x = torch.relu(x) if number else x
            weights = getattr(self, f"weights_{number}")
            x = torch.matmul(x, weights) + getattr(self, f"bias_{number}")
        return torch.minimum(torch.maximum(x, self.lowest), self.highest)
'''

TORCH_RAISED = f'''
    def raised(self, scores, place, change):
        """Change the log-odds of one class of each row; it stays the largest."""
        top = scores.gather(1, place)
        others = scores.scatter(1, place, -torch.inf)
        lead = top - others.amax(dim=1, keepdim=True)
        moved = top + torch.maximum(change, -(lead - {KEPT_GAP}).clamp(min=0.0))
        scores = scores.scatter(1, place, moved)
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

TORCH_DIVIDED = '''
    def calibrated(self, z):
        """Divide the logits of each row by a temperature of its own."""
        shifted = z - z.amax(dim=1, keepdim=True)
        return torch.softmax(shifted / self.temperature_of(self.inputs(z)), dim=1)
'''

_TORCH_DIVIDED_COPIES = '''
    def calibrated(self, z, copies):
        """Divide the logits of each row by a temperature of its own."""
        temperature = self.temperature_of(self.inputs(z, copies))
        return torch.softmax((z - z.amax(dim=1, keepdim=True)) / temperature, dim=1)
'''

_TORCH_CORRECTNESS = (
    '''
    def calibrated(self, z):
        """Divide the logits of each row by T, and undo the weights of the fit."""
        temperature = self.temperature_of(self.inputs(z))
        scores = (z - z.amax(dim=1, keepdim=True)) / temperature
        if not float(self.log_odds_change):
            return torch.softmax(scores, dim=1)
        return self.raised(scores, z.argmax(1, keepdim=True), self.log_odds_change)
'''
    + TORCH_RAISED
)

_TORCH_CORRECTNESS_COPIES = _TORCH_CORRECTNESS.replace(
    "calibrated(self, z)", "calibrated(self, z, copies)"
).replace("self.inputs(z)", "self.inputs(z, copies)")


def tensors(state: State) -> dict[str, FloatArray]:
    """Return the buffers of a network and of what stands beside it."""
    found: dict[str, Any] = {
        key: value for key, value in state.items() if key not in ("layers", "n_copies")
    }
    found["n_layers"] = len(state["layers"])
    for number, layer in enumerate(state["layers"]):
        found[f"weights_{number}"] = layer["weights"]
        found[f"bias_{number}"] = layer["bias"]
    return {name: np.array(value, np.float64) for name, value in found.items()}


_NAMES = {
    "TEMPERATURE": "temperature",
    "BOUND": "bound",
    "LAYERS": "layers",
    "N_TOP": "n_top",
}
_FORMULA = "softmax(z / T), T = T0 * exp(b * tanh(g(x) / b)), x = "
_OF_ROW = "the row's largest log-probabilities"
_OF_COPIES = "what its copies say of its largest classes"

EXPORTS = {
    "parameterised-temperature": Export(
        Writer(
            formula=_FORMULA + _OF_ROW,
            constants=_NAMES,
            code=DIVIDED + OWN_SCORES + _NETWORK,
        ),
        GraphWriter(_own, needs_double=True),
        TorchWriter(TORCH_DIVIDED + TORCH_OWN + _TORCH_NETWORK, tensors),
    ),
    "correctness-aware": Export(
        Writer(
            formula=_FORMULA + _OF_ROW,
            constants=_NAMES | {"LOG_ODDS_CHANGE": "log_odds_change"},
            code=_CORRECTNESS + OWN_SCORES + _NETWORK,
        ),
        GraphWriter(_own, needs_double=True),
        TorchWriter(_TORCH_CORRECTNESS + TORCH_OWN + _TORCH_NETWORK, tensors),
        with_copies=Export(
            Writer(
                formula=_FORMULA + _OF_COPIES,
                constants=_NAMES | {"LOG_ODDS_CHANGE": "log_odds_change"},
                code=_CORRECTNESS_COPIES + _COPY_SCORES + _NETWORK,
            ),
            GraphWriter(_of_copies, needs_double=True),
            TorchWriter(
                _TORCH_CORRECTNESS_COPIES + _TORCH_COPIES + _TORCH_NETWORK, tensors
            ),
        ),
    ),
    "correctness-aware-released": Export(
        Writer(
            formula="softmax(z / T), T = clip(g(x)), x = " + _OF_COPIES,
            constants={
                "LAYERS": "layers",
                "N_TOP": "n_top",
                "LOWEST": "lowest",
                "HIGHEST": "highest",
            },
            code=_DIVIDED_COPIES + _COPY_SCORES + _RELEASED_NETWORK,
        ),
        GraphWriter(_released, needs_double=True),
        TorchWriter(
            _TORCH_DIVIDED_COPIES + _TORCH_COPIES + _TORCH_RELEASED_NETWORK, tensors
        ),
    ),
}
"""By id of the calibrator."""
