"""Rows as detectors read them, block by block; what several need is made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.head import Head
from core.messages import DataError, Progress, no_progress
from core.predictions import Features, Predictions
from core.row_statistics import RowStatistics
from core.softmax import row_statistics

__all__ = ["PERTURBED", "Rows", "layers_of", "logits_of_head", "normalised"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

PERTURBED = ("_preprocessed", "_perturbed")
"""Endings of layers whose inputs went through the paper's pre-processing."""
EVERYTHING = frozenset({"logits", "features", "head"})
"""What detectors may read of a row, and size its block by."""
_BLOCK_BYTES = 1 << 23  # rows worked on at once: they stay in the last-level cache
_FEWEST = 256  # rows of a block at least: matrix products need some
_TINY = 1e-12


class Rows:
    """Some rows of a file, with everything that several detectors ask of them.

    Parameters
    ----------
    own : Predictions
    index : slice or ndarray of int64
        Which of its rows.

    Notes
    -----
    Detectors work on blocks of about 8 MB (`blocks`), so that the scores of a large
    file are one trip through memory however many detectors look at them.
    """

    def __init__(
        self, own: Predictions, index: slice | IndexArray = slice(None)
    ) -> None:
        self.own, self.index = own, index
        self._statistics: dict[float, RowStatistics] = {}
        self._made: dict[tuple[str, Any], Any] = {}

    def __len__(self) -> int:
        if isinstance(self.index, slice):
            return len(range(*self.index.indices(len(self.own))))
        return len(self.index)

    def blocks(
        self,
        progress: Progress = no_progress,
        message: str = "Reading the rows",
        *,
        reads: Set[str] = EVERYTHING,
    ) -> Iterator[Rows]:
        """Yield the rows in blocks, in order; what nobody `reads` takes no room."""
        n = len(self)
        step = max(_FEWEST, _BLOCK_BYTES // self._row_bytes(reads))
        if isinstance(self.index, slice):
            first = self.index.indices(len(self.own))[0]
            cuts: list[slice | IndexArray] = [
                slice(first + i, first + min(i + step, n)) for i in range(0, n, step)
            ]
        else:
            cuts = [self.index[i : i + step] for i in range(0, n, step)]
        for number, cut in enumerate(cuts):
            progress(number / len(cuts), message)
            yield Rows(self.own, cut)

    def part(self, places: IndexArray) -> Rows:
        """Return some of the rows, by their places among them."""
        every = np.arange(len(self.own))[self.index]
        return Rows(self.own, every[places])

    def _row_bytes(self, reads: Set[str]) -> int:
        size, own = 8, self.own
        if own.logits is not None and reads & {"logits", "head"}:
            size += own.logits.itemsize * own.logits.shape[1]
        for array in layers_of(own.features).values() if "features" in reads else ():
            size += array.itemsize * array.shape[1]
        return size

    @property
    def labels(self) -> IndexArray:
        """Labels of the rows, -1 where there is none."""
        if self.own.labels is None:
            return np.full(len(self), -1, dtype=np.int64)
        return self.own.labels[self.index]

    @property
    def logits(self) -> FloatArray:
        """Logits of the rows."""
        if self.own.logits is None:
            raise DataError(
                "The rows have no class scores.",
                self.own.name,
                "Save the logits of every class beside the features.",
            )
        return self.own.logits[self.index]

    def statistics(self, temperature: float = 1.0) -> RowStatistics:
        """Return the row statistics at a temperature: one trip for all who ask."""
        if temperature not in self._statistics:
            if self.own.confidence is not None:
                confidence = self.own.confidence[self.index].astype(np.float64)
                found = RowStatistics(confidence=confidence)
            else:
                found = row_statistics(self.logits, temperature=temperature)
            self._statistics[temperature] = found
        return self._statistics[temperature]

    @property
    def prediction(self) -> IndexArray:
        """Column of the largest logit."""
        found = self.statistics().prediction
        assert found is not None  # noqa: S101 - there are logits
        return found

    def features(self, layer: str) -> FloatArray:
        """Return the features of a layer as they are; a lone layer has any name."""
        layers = layers_of(self.own.features)
        if layer not in layers and len(layers) == 1:
            layer = next(iter(layers))
        if layer not in layers:
            have = ", ".join(layers) or "no features"
            raise DataError(
                f"There are no features called {layer!r}.",
                self.own.name,
                f"The file has {have}; save the layers that the detector was fitted "
                "on.",
            )
        return layers[layer][self.index]

    def double_features(self, layer: str) -> FloatArray:
        """Return the features in double precision, made once."""
        key = ("double", layer)
        if key not in self._made:
            self._made[key] = self.features(layer).astype(np.float64, copy=False)
        found: FloatArray = self._made[key]
        return found

    def unit_features(self, layer: str) -> FloatArray:
        """Return the features divided by their Euclidean norms, made once."""
        key = ("unit", layer)
        if key not in self._made:
            self._made[key] = normalised(self.features(layer))
        found: FloatArray = self._made[key]
        return found

    def norms(self, layer: str) -> FloatArray:
        """Return the sums of the absolute features, made once."""
        key = ("l1", layer)
        if key not in self._made:
            absolute = np.abs(self.features(layer))
            self._made[key] = absolute.sum(axis=1, dtype=np.float64)
        found: FloatArray = self._made[key]
        return found

    def head_logits(self, head: Head, layer: str) -> FloatArray:
        """Return what the last layer makes of the features, made once."""
        key = ("head", (id(head), layer))
        if key not in self._made:
            self._made[key] = logits_of_head(self.features(layer), head)
        found: FloatArray = self._made[key]
        return found

    def head_statistics(self, head: Head, layer: str) -> RowStatistics:
        """Return the row statistics of `head_logits`, made once."""
        key = ("head statistics", (id(head), layer))
        if key not in self._made:
            self._made[key] = row_statistics(self.head_logits(head, layer))
        found: RowStatistics = self._made[key]
        return found


def layers_of(features: Features | None) -> Mapping[str, FloatArray]:
    """Return the layers by name; a lone array is called "features"."""
    if features is None:
        return {}
    if isinstance(features, Mapping):
        return features
    return {"features": features}


def normalised(features: FloatArray) -> FloatArray:
    """Return rows divided by their Euclidean norms; rows of zeros stay zeros."""
    norm = np.sqrt(np.einsum("ij,ij->i", features, features))
    found: FloatArray = features / np.maximum(norm, _TINY)[:, None]
    return found


def logits_of_head(features: FloatArray, head: Head) -> FloatArray:
    """Return features @ weight.T + bias in the type of the features."""
    kind = features.dtype
    weight, bias = head.weight.astype(kind, copy=False), head.bias.astype(kind)
    found = features @ weight.T
    found += bias
    return found
