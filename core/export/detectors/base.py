"""What the export of a detector consists of: NumPy code and a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["DetectorExport", "Document", "FloatArray", "Rows", "function_name"]

FloatArray = NDArray[np.floating[Any]]
Document = Mapping[str, Any]
"""A fitted detector as `Detector.to_dict` describes it, arrays as they are."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Names of the values that a graph reads.

    Parameters
    ----------
    logits : str
        Of shape (N, k); empty where none are read.
    features : mapping of str to str
        By layer, of shape (N, d).
    """

    logits: str
    features: Mapping[str, str]

    def lone(self, d: Document) -> str:
        """Return the features of the one layer that a detector reads."""
        return self.features[next(iter(d["layers"]))]


@dataclass(frozen=True, slots=True)
class DetectorExport:
    """How one detector is written in every format.

    Parameters
    ----------
    formula : str
        The score in terms of the logits z and the features h; plain text.
    code : str
        Defines a function called as the id is (`function_name`) of ``(rows, d)``:
        ``rows["logits"]`` (n, k) and ``rows["features"][layer]`` (n, d) in float64,
        and the document of the detector; it returns scores (n,).
    write : callable
        Called with the graph, the names of the rows and the document; returns the name
        of the scores (N, 1).
    needs_double : bool
        Whether the inside is float64 even where input and output are float32, because
        differences would lose digits.
    """

    formula: str
    code: str
    write: Callable[[Graph, Rows, Document], str]
    needs_double: bool = True


def function_name(method: str) -> str:
    """Return what the function of a detector is called in an exported module."""
    return method.replace("-", "_")
