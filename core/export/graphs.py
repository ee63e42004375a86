"""How each calibrator is written as an ONNX graph: one entry of `GRAPHS` per method.

Only operators that onnxruntime has in float32 and in float64 are used (Softplus,
Hardmax and Erf, for example, exist in float32 only).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from core.calibrators.one_vs_rest import LOWEST_LOG
from core.export.curves import Segments, interpolation, steps

__all__ = ["GRAPHS", "OPSET", "TYPES", "Graph", "GraphWriter", "Precision"]

FloatArray = NDArray[np.floating[Any]]
Precision = Literal["float32", "float64"]
State = Mapping[str, Any]

OPSET = 17
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
_LOG_OF_ZERO = -1075 * float(np.log(2.0))  # at and below it, exp() is 0
_REDUCTION_AXES = {"ReduceMax": 18, "ReduceSum": 13}  # opset that made axes an input


class Graph:
    """Nodes and constants of one calibrator, computed in one float type.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Type of all real numbers inside.
    opset : int, default=17
        Version of the standard operators; at least 13.
    prefix : str, default=""
        Put before every name that is made here.
    """

    def __init__(
        self, dtype: Precision, *, opset: int = OPSET, prefix: str = ""
    ) -> None:
        self.dtype = dtype
        self.opset = opset
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        """Return the name of a new constant: int64, bool, or of the inner type."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Append an operator and return the name of its output.

        Parameters
        ----------
        kind : str
            Operator of the standard domain.
        *inputs : str, number or ndarray
            Names of values; numbers and arrays become constants.
        **attributes : object
        """
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        name = f"{self.prefix}{kind}_{len(self.nodes)}"
        node = helper.make_node(kind, names, [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def reduce(self, kind: str, value: str) -> str:
        """Append a reduction over the classes, keeping their axis."""
        if self.opset >= _REDUCTION_AXES[kind]:
            return self.op(kind, value, np.array([1]), keepdims=1)
        return self.op(kind, value, axes=[1], keepdims=1)

    def to_inner(self, value: str) -> str:
        """Convert to the inner type."""
        return self.op("Cast", value, to=TYPES[self.dtype])

    def give(self, value: str, name: str, dtype: Precision | None = None) -> None:
        """Give a value the name of an output, in another type if one is named."""
        if dtype in (None, self.dtype):
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        else:
            node = helper.make_node("Cast", [value], [name], to=TYPES[dtype])
            self.nodes.append(node)

    def column(self, value: str, number: int) -> str:
        """Return one column, shape (N, 1)."""
        return self.op("Gather", value, np.array([number]), axis=1)

    def shifted(self, logits: str) -> str:
        """Subtract each row's largest logit, before anything else can round."""
        return self.op("Sub", logits, self.reduce("ReduceMax", logits))

    def softmax(self, logits: str) -> str:
        """Return probabilities, by the steps of the NumPy module."""
        shifted = self.shifted(logits)
        total = self.reduce("ReduceSum", self.op("Exp", shifted))
        return self.op("Exp", self.op("Sub", shifted, self.op("Log", total)))

    def is_open(self, logits: str) -> str:
        """Return which classes are not ruled out by a logit of -inf."""
        return self.op("GreaterOrEqual", logits, float(np.finfo(self.dtype).min))

    def renormalised(self, p: str, logits: str) -> str:
        """Make rows sum to 1; classes at -inf stay 0, rows of zeros become uniform."""
        is_open = self.is_open(logits)
        p = self.op("Where", is_open, p, 0.0)
        is_positive = self.op("Greater", self.reduce("ReduceSum", p), 0.0)
        p = self.op("Where", is_positive, p, self.to_inner(is_open))
        return self.op("Div", p, self.reduce("ReduceSum", p))

    def piecewise(self, values: str, curves: Sequence[Segments]) -> str:
        """Map each column of values (N, columns) by its piecewise linear function.

        The segment of a value is found by halving, so that the memory does not grow
        with the number of segments.
        """
        sizes = np.array([curve.start.size for curve in curves])
        # All columns lie in one table, each ended by an infinity that no value
        # reaches; steps that lead beyond the end are cut back to it.
        ends = np.cumsum(sizes + 1) - 1
        table = self.constant(_joined([curve.start for curve in curves], np.inf))
        last, at = self.constant(ends[None, :]), self.constant((ends - sizes)[None, :])
        for power in reversed(range(int(sizes.max()).bit_length())):
            probe = self.op("Min", self.op("Add", at, np.array([[1 << power]])), last)
            start = self.op("Gather", table, probe)
            is_reached = self.op("GreaterOrEqual", values, start)
            at = self.op("Where", is_reached, probe, at)
        slope = self.op("Gather", _joined([curve.slope for curve in curves], 0.0), at)
        value = self.op("Gather", _joined([curve.value for curve in curves], 0.0), at)
        offset = self.op("Sub", values, self.op("Gather", table, at))
        return self.op("Add", value, self.op("Mul", slope, offset))


@dataclass(frozen=True, slots=True)
class GraphWriter:
    """How one calibrator is written as a graph.

    Parameters
    ----------
    write : callable
        Called with the graph, the name of the logits (N, k), the calibrator's own
        state and k; returns the name of the probabilities (N, k).
    needs_double : bool
        Whether the inside is float64 even where input and output are float32,
        because float32 would merge knots or edges, or lose digits in differences.
    """

    write: Callable[[Graph, str, State, int], str]
    needs_double: bool = False


def _uncalibrated(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    return graph.op("Softmax", graph.shifted(logits), axis=1)


def _temperature(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    shifted = graph.shifted(logits)
    scaled = graph.op("Div", shifted, float(state["temperature"]))
    return graph.op("Softmax", scaled, axis=1)


def _vector(graph: Graph, logits: str, state: State, k: int) -> str:  # noqa: ARG001
    weights, bias = _row(state["weights"]), _row(state["bias"])
    scores = graph.op("Add", graph.op("Mul", logits, weights), bias)
    scores = graph.op("Where", graph.is_open(logits), scores, logits)
    return graph.op("Softmax", graph.shifted(scores), axis=1)


def _isotonic(graph: Graph, logits: str, state: State, k: int) -> str:
    p = graph.softmax(logits)
    curves = [interpolation(curve["x"], curve["y"]) for curve in state["maps"]]
    mapped = graph.renormalised(_mapped(graph, p, curves, k), logits)
    share = float(state["mixing"])
    kept = graph.op("Mul", mapped, 1.0 - share)
    return graph.op("Add", kept, graph.op("Mul", p, share))


def _histogram(graph: Graph, logits: str, state: State, k: int) -> str:
    curves = [steps(bins["edges"], bins["values"]) for bins in state["maps"]]
    mapped = _mapped(graph, graph.softmax(logits), curves, k)
    return graph.renormalised(mapped, logits)


def _platt(graph: Graph, logits: str, state: State, k: int) -> str:
    log_p, log_rest = _log_chances(graph, logits, k)
    odds = graph.op("Sub", log_p, log_rest)
    scaled = graph.op("Mul", odds, _row(state["slope"]))
    return _from_scores(
        graph, graph.op("Add", scaled, _row(state["intercept"])), logits, k
    )


def _beta(graph: Graph, logits: str, state: State, k: int) -> str:
    log_p, log_rest = _log_chances(graph, logits, k)
    rising = graph.op("Mul", log_p, _row(state["a"]))
    falling = graph.op("Mul", log_rest, _row(state["b"]))
    scores = graph.op("Add", graph.op("Sub", rising, falling), _row(state["c"]))
    return _from_scores(graph, scores, logits, k)


def _row(values: Sequence[float]) -> FloatArray:
    return np.array(values, dtype=np.float64)[None, :]


def _mapped(graph: Graph, p: str, curves: Sequence[Segments], k: int) -> str:
    """Map each class by its curve; of two classes the second has one."""
    if k != 2:
        return graph.piecewise(p, curves)
    second = graph.piecewise(graph.column(p, 1), curves)
    return graph.op("Concat", graph.op("Sub", 1.0, second), second, axis=1)


def _log_chances(graph: Graph, logits: str, k: int) -> tuple[str, str]:
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


def _from_scores(graph: Graph, scores: str, logits: str, k: int) -> str:
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


GRAPHS: dict[str, GraphWriter] = {
    "uncalibrated": GraphWriter(_uncalibrated),
    "temperature": GraphWriter(_temperature),
    "vector": GraphWriter(_vector, needs_double=True),
    "isotonic": GraphWriter(_isotonic, needs_double=True),
    "histogram": GraphWriter(_histogram, needs_double=True),
    "platt": GraphWriter(_platt, needs_double=True),
    "beta": GraphWriter(_beta, needs_double=True),
}
"""How each registered calibrator becomes a graph; a contract test wants one each."""


def _joined(columns: Sequence[FloatArray], end: float) -> FloatArray:
    """Return all columns in one array, each followed by `end`."""
    return np.concatenate([[*column, end] for column in columns])
