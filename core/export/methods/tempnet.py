"""Export of the supervised TempNet: its pooled projections in every language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.row_temperature import (
    DIVIDED,
    OWN_SCORES,
    TORCH_DIVIDED,
    TORCH_OWN,
    divided,
    own_scores,
    tensors,
)

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_NETWORK = '''

def temperature(x):
    """Return T of each row, within a factor exp(BOUND) of the common one."""
    if not LAYERS:
        return np.full((len(x), 1), TEMPERATURE)
    first, second, last = (
        (np.array(layer["weights"]), np.array(layer["bias"])) for layer in LAYERS
    )
    x = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
    u = 1 / (1 + np.exp(-(x @ first[0] + first[1]))) @ second[0] + second[1]
    share = np.exp(log_softmax(u, np.exp(LOG_SPREAD)))
    g = ((u.shape[1] * share - 1) * u) @ last[0] + last[1]
    return TEMPERATURE * np.exp(BOUND * np.tanh(g / BOUND))
'''

_TORCH_NETWORK = '''
    def temperature_of(self, x):
        """Return T of each row, within a factor exp(bound) of the common one."""
        if not int(self.n_layers):
            return self.temperature
        x = x / x.square().sum(dim=1, keepdim=True).sqrt()
        u = torch.sigmoid(torch.matmul(x, self.weights_0) + self.bias_0)
        u = torch.matmul(u, self.weights_1) + self.bias_1
        share = torch.softmax(u / self.log_spread.exp(), dim=1)
        g = torch.matmul((u.shape[1] * share - 1) * u, self.weights_2) + self.bias_2
        return self.temperature * torch.exp(self.bound * torch.tanh(g / self.bound))
'''


def _graph(graph: Graph, logits: str, state: State, k: int) -> str:
    temperature = _temperature(graph, logits, state, k)
    return graph.op("Softmax", divided(graph, logits, temperature), axis=1)


def _temperature(graph: Graph, logits: str, state: State, k: int) -> str | float:
    common = float(state["temperature"])
    if not state["layers"]:
        return common
    bound = float(state["bound"])
    first, second, last = (
        [np.array(layer[key], float) for key in ("weights", "bias")]
        for layer in state["layers"]
    )
    x = own_scores(graph, logits, min(int(state["n_top"]), k))
    norm = graph.op("Sqrt", graph.reduce("ReduceSum", graph.op("Mul", x, x)))
    x = graph.op("Div", x, norm)
    x = graph.op("Add", graph.op("MatMul", x, first[0]), first[1])
    x = graph.op("Div", 1.0, graph.op("Add", graph.op("Exp", graph.op("Neg", x)), 1.0))
    u = graph.op("Add", graph.op("MatMul", x, second[0]), second[1])
    share = graph.softmax(graph.op("Div", u, float(np.exp(state["log_spread"]))))
    share = graph.op("Sub", graph.op("Mul", share, float(second[1].size)), 1.0)
    g = graph.op("MatMul", graph.op("Mul", share, u), last[0])
    bent = graph.op("Tanh", graph.op("Div", graph.op("Add", g, last[1]), bound))
    return graph.op("Mul", graph.op("Exp", graph.op("Mul", bent, bound)), common)


EXPORTS = {
    "supervised-tempnet": Export(
        Writer(
            formula=(
                "softmax(z / T), T = T0 * exp(b * tanh(g(x) / b)), g pools sigmoid "
                "projections of x, the row's largest log-probabilities by their norm"
            ),
            constants={
                "TEMPERATURE": "temperature",
                "BOUND": "bound",
                "LAYERS": "layers",
                "LOG_SPREAD": "log_spread",
                "N_TOP": "n_top",
            },
            code=DIVIDED + OWN_SCORES + _NETWORK,
        ),
        GraphWriter(_graph, needs_double=True),
        TorchWriter(TORCH_DIVIDED + TORCH_OWN + _TORCH_NETWORK, tensors),
    ),
}
"""By id of the calibrator."""
