"""What the export of a calibrator consists of: NumPy, ONNX and torch code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import DataError

__all__ = [
    "Export",
    "FloatArray",
    "GraphWriter",
    "State",
    "TorchWriter",
    "Writer",
    "n_copies_of",
    "n_features_of",
    "refusing",
]

FloatArray = NDArray[np.floating[Any]]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Writer:
    """What an exported module says and does for one calibrator.

    Parameters
    ----------
    formula : str
        The convention, in terms of the logits z; kept in every artefact.
    constants : mapping of str to str
        Name in the module -> name in the calibrator's own state.
    code : str
        Defines ``calibrated(z)``: float64 logits (n, k) to probabilities (n, k); with
        copies ``calibrated(z, copies)``, of shape (m, n, k).
    is_sound : callable
        Whether the state of a calibrator from a file can be meant for k classes;
        called with the state and k. May raise KeyError, TypeError or ValueError.
    """

    formula: str
    constants: Mapping[str, str]
    code: str
    is_sound: Callable[[Mapping[str, Any], int], bool] = lambda state, k: True  # noqa: ARG005

    def convention(self, input_kind: str) -> str:
        """Return the formula with what z means for this kind of input."""
        if input_kind == "probabilities":
            return (
                f"{self.formula}, z = log(p); one binary probability p means the "
                "logits (log(1 - p), log(p))"
            )
        return f"{self.formula}; one binary score z means the logits (0, z)"


@dataclass(frozen=True, slots=True)
class GraphWriter:
    """How one calibrator is written as a graph.

    Parameters
    ----------
    write : callable
        Called with the graph, the name of the logits (N, k), the calibrator's own
        state and k; returns the name of the probabilities (N, k). With copies it is
        given the names of their logits (N, k) as the keyword `copies`.
    needs_double : bool
        Whether the inside is float64 even where input and output are float32,
        because float32 would merge knots or edges, or lose digits in differences.
    """

    write: Callable[..., str]
    needs_double: bool = False


@dataclass(frozen=True, slots=True)
class TorchWriter:
    """How one calibrator is written as a torch module.

    Parameters
    ----------
    code : str
        Method ``calibrated(self, z)``: float64 logits (n, k) to probabilities (n, k);
        with copies ``calibrated(self, z, copies)``, of shape (m, n, k).
    tensors : callable
        From the calibrator's own state to its buffers, float64.
    """

    code: str
    tensors: Callable[[State], dict[str, FloatArray]]


@dataclass(frozen=True, slots=True)
class Export:
    """How one calibrator is written in every format.

    Parameters
    ----------
    numpy : Writer
    graph : GraphWriter
    torch : TorchWriter
    with_copies : Export, optional
        How it is written where its fit had transformed copies and could have done
        without.
    refusal : str
        Why there is neither graph nor torch module; empty where there are.
    """

    numpy: Writer
    graph: GraphWriter
    torch: TorchWriter
    with_copies: Export | None = None
    refusal: str = ""

    def of(self, state: State) -> Export:
        """Return the entry for what was fitted."""
        from core.export.methods.keeping import KEPT, keeping

        found = (self.with_copies or self) if n_copies_of(state) else self
        return keeping(found) if state.get(KEPT) else found


def refusing(numpy: Writer, why: str) -> Export:
    """Return the entry of a calibrator that is written as NumPy code only."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise DataError(why, "export", "Take the JSON file or the Python module.")

    return Export(numpy, GraphWriter(refuse), TorchWriter("", refuse), refusal=why)


def n_copies_of(state: State) -> int:
    """Return how many transformed copies of each row a fitted calibrator reads."""
    return int(state.get("n_copies", 0))


def n_features_of(state: State) -> int:
    """Return how many features of each row a fitted calibrator reads."""
    return int(state.get("n_features", 0))
