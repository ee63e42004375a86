"""Scores of the reference rows that lie nearest to a row's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import FitError, Note, Progress
from core.ood.base import DETECTORS, Detector
from core.ood.logits import known
from core.ood.rows import Rows, layers_of
from core.ood.templates import class_sums
from core.registry import Param

__all__ = ["SHE", "NNGuide", "NearestNeighbour"]

FloatArray = NDArray[np.floating[Any]]

_SEED = 0  # of the reference rows that are drawn


def drawn(rows: Rows, wanted: int) -> Rows:
    """Return as many of the rows, drawn at random, in their order; 0 means all."""
    if wanted <= 0 or wanted >= len(rows):
        return rows
    rng = np.random.default_rng(_SEED)
    return rows.part(np.sort(rng.choice(len(rows), wanted, replace=False)))


@DETECTORS.register(
    "knn",
    label="k nearest neighbours",
    reference="Sun et al. 2022, arXiv:2204.06507",
    formula=r"\|\tilde h - \tilde h_{(k)}\|^2,\quad \tilde h = h / \|h\|_2",
    params=(
        Param(
            "k",
            "Neighbour",
            "int",
            50,
            1,
            100_000,
            help="The distance to this neighbour is the score.",
        ),
        Param(
            "n_reference",
            "Reference rows",
            "int",
            10_000,
            0,
            10_000_000,
            help="At most this many reference rows are kept, drawn at random; 0 keeps "
            "all.",
        ),
    ),
    aliases=("k-nearest-neighbours", "nearest-neighbours"),
)
class NearestNeighbour(Detector):
    """Squared distance to the k-th nearest reference row, features of unit length.

    Parameters
    ----------
    k : int, default=50
        Capped at the number of reference rows.
    n_reference : int, default=10000
        Reference rows that are kept; 0 keeps all.

    Attributes
    ----------
    bank_ : ndarray of shape (m, d)
        Reference rows of unit length, in their float type.

    Notes
    -----
    Neighbours are exact (scikit-learn, brute force); with fewer reference rows they
    are the exact neighbours among those that were drawn, and the k-th of them stands
    for a further one of all rows.
    """

    requires = frozenset({"features"})
    assumes = "The angle between features says how alike inputs are."

    bank_: FloatArray

    def __init__(self, *, k: int = 50, n_reference: int = 10_000) -> None:
        self.k = k
        self.n_reference = n_reference

    def _fit(self, rows: Rows, progress: Progress) -> None:
        kept = drawn(rows, self.n_reference)
        kind = layers_of(rows.own.features)[self.layer_].dtype
        bank = np.empty((len(kept), self.layers_[self.layer_]), dtype=kind)
        done = 0
        for block in kept.blocks(progress, "Keeping reference rows"):
            bank[done : done + len(block)] = block.unit_features(self.layer_)
            done += len(block)
        self.bank_ = bank
        if len(kept) < len(rows):
            text = (
                f"{len(kept):,} of {len(rows):,} reference rows were drawn at random. "
                f"Neighbours among them are exact; number {self._nth:,} stands for "
                f"about number {self._nth * len(rows) // len(kept):,} of all rows."
            )
            self.notes_.append(Note("reference-drawn", "info", text))
        if self.k > len(kept):
            text = (
                f"There are {len(kept):,} reference rows: the furthest of them takes "
                f"the place of neighbour {self.k:,}."
            )
            self.notes_.append(Note("fewer-neighbours", "warning", text))
        self._ready()

    @property
    def _nth(self) -> int:
        return min(self.k, len(self.bank_))

    def _ready(self) -> None:
        self._indexes: dict[str, Any] = {}

    def _index(self, kind: np.dtype[Any]) -> Any:
        """Return the library's index in a float type, made once."""
        if kind.str not in self._indexes:
            # Importing scikit-learn is slow, and few detectors ask for neighbours.
            from sklearn.neighbors import NearestNeighbors

            made = NearestNeighbors(n_neighbors=self._nth, algorithm="brute")
            made.fit(self.bank_.astype(kind, copy=False))
            self._indexes[kind.str] = made
        return self._indexes[kind.str]

    def _score(self, rows: Rows) -> FloatArray:
        units = rows.unit_features(self.layer_)
        kind = np.result_type(units, self.bank_)
        found = self._index(kind).kneighbors(units.astype(kind, copy=False))
        distances = found[0]
        return np.asarray(distances[:, -1].astype(np.float64) ** 2)

    def _state(self) -> dict[str, Any]:
        return {"bank": self.bank_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.bank_ = np.ascontiguousarray(state["bank"])
        self._ready()


@DETECTORS.register(
    "she",
    label="Simplified Hopfield energy (SHE)",
    reference="Zhang et al. 2023, ICLR",
    formula=r"-\langle h, S_{\hat y} \rangle,\quad S_c = \overline{h_i},\;"
    r" y_i = \hat y_i = c",
    params=(
        Param(
            "metric",
            "Likeness",
            "choice",
            "inner",
            choices=("inner", "cosine", "euclidean"),
            help="Inner product, cosine, or Euclidean distance to the pattern.",
        ),
    ),
    tier="more",
)
class SHE(Detector):
    """Minus the inner product with the stored pattern of the predicted class.

    Attributes
    ----------
    patterns_ : ndarray of shape (k, d)
        Mean features of the rows that are predicted rightly as each class; of all rows
        predicted rightly where a class has none.
    """

    requires = frozenset({"logits", "features", "labels"})
    assumes = "Familiar inputs have large features that point as their class does."

    patterns_: FloatArray

    def __init__(self, *, metric: str = "inner") -> None:
        self.metric = metric

    def _fit(self, rows: Rows, progress: Progress) -> None:
        k, d = self.n_classes_, self.layers_[self.layer_]
        sums, counts = np.zeros((k, d)), np.zeros(k)
        for block in rows.blocks(progress, "Averaging features"):
            right = block.prediction == block.labels
            labels = block.labels[right]
            sums += class_sums(block.features(self.layer_)[right], labels, k)
            counts += np.bincount(labels, minlength=k)
        if not counts.any():
            raise FitError(
                "No reference row is predicted rightly.",
                rows.own.name,
                "Check that the labels are columns of the logits.",
            )
        self.patterns_ = sums / np.maximum(counts, 1)[:, None]
        empty = counts == 0
        if empty.any():
            self.patterns_[empty] = sums.sum(axis=0) / counts.sum()
            text = (
                f"{int(empty.sum()):,} classes have no row that is predicted rightly; "
                "their pattern is the mean of the others."
            )
            self.notes_.append(Note("few-right-rows", "warning", text))

    def _score(self, rows: Rows) -> FloatArray:
        features = rows.double_features(self.layer_)
        pattern = self.patterns_[rows.prediction]
        if self.metric == "euclidean":
            return np.asarray(np.linalg.norm(features - pattern, axis=1))
        product = np.einsum("ij,ij->i", features, pattern)
        if self.metric == "cosine":
            size = np.linalg.norm(features, axis=1) * np.linalg.norm(pattern, axis=1)
            product = product / np.maximum(size, np.finfo(np.float64).tiny)
        return np.asarray(-product)

    def _state(self) -> dict[str, Any]:
        return {"patterns": self.patterns_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.patterns_ = np.asarray(state["patterns"], dtype=np.float64)


@DETECTORS.register(
    "nnguide",
    label="Nearest-neighbour guidance (NNGuide)",
    reference="Park, Jung and Teoh 2023, arXiv:2309.14888",
    formula=r"-\mathrm{LSE}(z)\;\overline{\langle \tilde h, \mathrm{LSE}(z_i)"
    r"\,\tilde h_i \rangle}_{\text{top } k}",
    params=(
        Param(
            "k",
            "Neighbours",
            "int",
            100,
            1,
            100_000,
            help="The largest inner products that are averaged.",
        ),
        Param(
            "share",
            "Share of the reference",
            "float",
            0.01,
            0.0001,
            1.0,
            help="Share of the reference rows that are kept, drawn at random.",
        ),
    ),
    tier="more",
)
class NNGuide(Detector):
    """Energy guided by how near the features are to confident reference rows.

    Parameters
    ----------
    k : int, default=100
        Capped at the number of rows that are kept.
    share : float, default=0.01
        Share of the reference rows that are kept, at least k of them.
    """

    requires = frozenset({"logits", "features"})
    needs_logit_scale = True
    assumes = "Energies are positive, and the angle of features says what is alike."

    bank_: FloatArray

    def __init__(self, *, k: int = 100, share: float = 0.01) -> None:
        self.k = k
        self.share = share

    def _fit(self, rows: Rows, progress: Progress) -> None:
        kept = drawn(rows, max(round(self.share * len(rows)), self.k))
        parts = []
        for block in kept.blocks(progress, "Keeping reference rows"):
            energy = known(block.statistics().logsumexp)
            unit = block.unit_features(self.layer_)
            parts.append((unit * energy[:, None]).astype(unit.dtype))
            if (energy <= 0).any() and not self.notes_:
                text = (
                    "Some energies are negative: guidance and energy then count "
                    "against each other."
                )
                self.notes_.append(Note("negative-energy", "warning", text))
        self.bank_ = np.concatenate(parts)

    def _score(self, rows: Rows) -> FloatArray:
        k = min(self.k, len(self.bank_))
        products = rows.unit_features(self.layer_) @ self.bank_.T
        top = np.partition(products, len(self.bank_) - k, axis=1)[:, -k:]
        guidance = top.mean(axis=1, dtype=np.float64)
        return np.asarray(-known(rows.statistics().logsumexp) * guidance)

    def _state(self) -> dict[str, Any]:
        return {"bank": self.bank_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.bank_ = np.ascontiguousarray(state["bank"])
