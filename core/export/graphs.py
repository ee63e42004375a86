"""The ONNX graph that a calibrator is written into, operator by operator.

Only operators that onnxruntime has in float32 and in float64 are used (Softplus,
Hardmax and Erf, for example, exist in float32 only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from core.export.curves import Segments

__all__ = ["OPSET", "TYPES", "Graph", "Precision"]

FloatArray = NDArray[np.floating[Any]]
Precision = Literal["float32", "float64"]

OPSET = 17
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
_REDUCTION_AXES = {
    "ReduceMax": 18,
    "ReduceMin": 18,
    "ReduceSum": 13,
}  # opset that made axes an input


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

    def double(self, value: float) -> str:
        """Return the name of a new constant in double precision, whatever is inside."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        array = np.asarray(value, dtype=np.float64)
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

    def largest(self, values: str, count: int) -> tuple[str, str]:
        """Return the largest values of each row and their columns, largest first.

        Of equal values the first column comes first.
        """
        made = f"{self.prefix}TopK_{len(self.nodes)}"
        names = [f"{made}_values", f"{made}_columns"]
        given = [values, self.constant(np.array([count]))]
        self.nodes.append(helper.make_node("TopK", given, names, name=made))
        return names[0], names[1]

    def shifted(self, logits: str) -> str:
        """Subtract each row's largest logit, before anything else can round."""
        return self.op("Sub", logits, self.reduce("ReduceMax", logits))

    def softmax(self, logits: str) -> str:
        """Return probabilities, by the steps of the NumPy module."""
        shifted = self.shifted(logits)
        total = self.reduce("ReduceSum", self.op("Exp", shifted))
        return self.op("Exp", self.op("Sub", shifted, self.op("Log", total)))

    def log1p(self, value: str) -> str:
        """Return log(1 + x) of numbers above -1, with the digits that small x have."""
        above = self.op("Add", value, 1.0)
        gap = self.op("Sub", above, 1.0)
        ratio = self.op("Div", self.op("Log", above), gap)
        is_lost = self.op("Equal", gap, 0.0)
        # What was rounded off the sum is missing from both parts of the ratio.
        return self.op("Mul", value, self.op("Where", is_lost, 1.0, ratio))

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


def _joined(columns: Sequence[FloatArray], end: float) -> FloatArray:
    """Return all columns in one array, each followed by `end`."""
    return np.concatenate([[*column, end] for column in columns])
