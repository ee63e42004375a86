"""Exports of Laplace-mixed calibrators, and of the softplus link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.calibrators.softplus import EXPONENTIAL_BELOW
from core.export.methods import linear, scaling
from core.export.methods.base import Export, GraphWriter, State, TorchWriter, Writer
from core.export.methods.parts import as_they_are

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

# --------------------------------------------------------------------- Laplace-mixed

_MIXED = '''

def calibrated(z):
    """Mix a grain of the uniform in: no class that is not ruled out gets 0."""
    is_open = z > -np.inf
    uniform = is_open / is_open.sum(axis=1, keepdims=True)
    return (1.0 - GRAIN) * unmixed(z) + GRAIN * uniform
'''

_TORCH_MIXED = '''
    def calibrated(self, z):
        """Mix a grain of the uniform in: no class that is not ruled out gets 0."""
        is_open = (~torch.isneginf(z)).double()
        uniform = is_open / is_open.sum(dim=1, keepdim=True)
        return (1.0 - self.grain) * self.unmixed(z) + self.grain * uniform
'''


def _mixed(own: Export) -> Export:
    """Return the export of a calibrator whose answer is mixed with the uniform."""

    def write(graph: Graph, logits: str, state: State, k: int) -> str:
        p = own.graph.write(graph, logits, state, k)
        grain = float(state["grain"])
        is_open = graph.to_inner(graph.is_open(logits))
        uniform = graph.op("Div", is_open, graph.reduce("ReduceSum", is_open))
        p = graph.op("Mul", p, 1.0 - grain)
        return graph.op("Add", p, graph.op("Mul", uniform, grain))

    return Export(
        Writer(
            formula=f"(1 - g) * q + g * uniform, q = {own.numpy.formula}",
            constants={**own.numpy.constants, "GRAIN": "grain"},
            code=own.numpy.code.replace("def calibrated(", "def unmixed(") + _MIXED,
        ),
        GraphWriter(write, needs_double=own.graph.needs_double),
        TorchWriter(
            own.torch.code.replace("def calibrated(", "def unmixed(") + _TORCH_MIXED,
            own.torch.tensors,
        ),
    )


# --------------------------------------------------------------------- softplus link

_SOFTPLUS = f'''

def calibrated(z):
    """Normalise softplus of the log-probabilities over T, moved by b."""
    x = log_softmax(z) / TEMPERATURE + BEND
    with np.errstate(divide="ignore"):
        logs = np.log(np.logaddexp(0.0, x))
    return np.exp(log_softmax(np.where(x < {EXPONENTIAL_BELOW}, x, logs)))
'''

_TORCH_SOFTPLUS = f'''
    def calibrated(self, z):
        """Normalise softplus of the log-probabilities over T, moved by b."""
        x = torch.log_softmax(z, dim=1) / self.temperature + self.bend
        logs = torch.log(torch.logaddexp(torch.zeros_like(x), x))
        logs = torch.where(x < {EXPONENTIAL_BELOW}, x, logs)
        return torch.softmax(logs - logs.amax(dim=1, keepdim=True), dim=1)
'''


def _softplus(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    shifted = graph.shifted(logits)
    total = graph.reduce("ReduceSum", graph.op("Exp", shifted))
    logs = graph.op("Sub", shifted, graph.op("Log", total))
    x = graph.op("Div", logs, float(state["temperature"]))
    x = graph.op("Add", x, float(state["bend"]))
    # log(1 + e) / e for e = exp(-|x|), made exact by what 1 + e really is.
    e = graph.op("Exp", graph.op("Neg", graph.op("Abs", x)))
    more = graph.op("Add", e, 1.0)
    real = graph.op("Sub", more, 1.0)
    is_there = graph.op("Greater", real, 0.0)
    share = graph.op("Div", e, graph.op("Where", is_there, real, 1.0))
    tail = graph.op("Mul", graph.op("Log", more), share)
    soft = graph.op("Add", graph.op("Max", x, 0.0), tail)
    is_far = graph.op("Less", x, EXPONENTIAL_BELOW)
    soft = graph.op("Log", graph.op("Where", is_far, 1.0, soft))
    scores = graph.op("Where", is_far, x, soft)
    return graph.op("Softmax", graph.shifted(scores), axis=1)


EXPORTS = {
    "temperature-mixed": _mixed(scaling.EXPORTS["temperature"]),
    "structured-matrix-mixed": _mixed(linear.EXPORTS["structured-matrix"]),
    "softplus-link": Export(
        Writer(
            formula="softplus(log(p) / T + b) over its sum, p = softmax(z)",
            constants={"TEMPERATURE": "temperature", "BEND": "bend"},
            code=_SOFTPLUS,
        ),
        GraphWriter(_softplus, needs_double=True),
        TorchWriter(_TORCH_SOFTPLUS, as_they_are),
    ),
}
"""By id of the calibrator."""
