"""Head: the last linear layer of the network that made the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import DataError

__all__ = ["Head", "check_head"]

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Last linear layer of the network, logits = features @ weight.T + bias.

    Parameters
    ----------
    weight : ndarray of shape (k, d)
    bias : ndarray of shape (k,)
    """

    weight: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise DataError(
                f"The last layer has weights {self.weight.shape} and bias "
                f"{self.bias.shape}.",
                "head",
                "Give weights of shape (classes, features) and a bias per class.",
            )


def check_head(head: Head, n_classes: int, features: Any, where: str) -> None:
    """Raise DataError unless a last layer fits the classes and the features."""
    n_outputs, n_inputs = head.weight.shape
    # One output is the score of a binary file, which becomes the logits (0, z).
    if n_classes and n_outputs != n_classes and (n_outputs, n_classes) != (1, 2):
        raise DataError(
            f"The last layer has {n_outputs} classes, the rows have {n_classes}.",
            f"{where}, head",
            "Give the weights (classes, features) of the layer that made the logits.",
        )
    if isinstance(features, np.ndarray) and features.shape[1] != n_inputs:
        raise DataError(
            f"The last layer takes {n_inputs} features, the rows have "
            f"{features.shape[1]}.",
            f"{where}, head",
            "Give the features that enter the last layer.",
        )
