"""Scores of what is left of the features outside their principal subspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from core.messages import FitError, Note, Progress, part_of
from core.ood.base import DETECTORS, Detector
from core.ood.logits import known
from core.ood.rows import Rows
from core.registry import Param

__all__ = ["Residual", "ViM"]

FloatArray = NDArray[np.floating[Any]]

DIMENSION = Param(
    "dimension",
    "Principal dimensions",
    "int",
    0,
    0,
    100_000,
    help="Dimensions of the principal subspace; 0 takes 1,000 for 2,048 features and "
    "more, 512 for 768 and more, else half.",
)


def default_dimension(width: int) -> int:
    """Return the dimensions of the principal subspace, as the paper chose them."""
    if width >= 2048:
        return 1000
    return 512 if width >= 768 else max(width // 2, 1)


@DETECTORS.register(
    "residual",
    label="Residual",
    reference="Wang et al. 2022, arXiv:2203.10807",
    formula=r"\|R^\top (h - u)\|_2,\quad u = -W^{+} b",
    params=(DIMENSION,),
    tier="more",
)
class Residual(Detector):
    """Length of the features outside the principal subspace of the reference rows.

    Parameters
    ----------
    dimension : int, default=0
        Of the principal subspace; 0 chooses by the number of features.

    Attributes
    ----------
    origin_ : ndarray of shape (d,)
        Where every logit is 0, as nearly as can be.
    null_space_ : ndarray of shape (d, d - dimension)
    """

    requires = frozenset({"features", "head"})
    assumes = "Reference features fill a subspace, around the origin of the logits."

    origin_: FloatArray
    null_space_: FloatArray

    def __init__(self, *, dimension: int = 0) -> None:
        self.dimension = dimension

    def _fit(self, rows: Rows, progress: Progress) -> None:
        assert self.head_ is not None  # noqa: S101 - required
        d = self.layers_[self.layer_]
        dimension = self.dimension or default_dimension(d)
        if dimension >= d:
            raise FitError(
                f"A principal subspace of {dimension:,} dimensions leaves nothing of "
                f"{d:,} features.",
                "option dimension",
                f"Choose fewer than {d:,}, or 0.",
            )
        weight = self.head_.weight.astype(np.float64)
        self.origin_ = -scipy.linalg.pinv(weight) @ self.head_.bias.astype(np.float64)
        moments, n = np.zeros((d, d)), len(rows)
        for block in rows.blocks(part_of(progress, 0, 0.6), "Gathering covariance"):
            gap = block.double_features(self.layer_) - self.origin_
            moments += gap.T @ gap
        _, vectors = scipy.linalg.eigh(moments / n)
        # In ascending order: what varies least comes first.
        self.null_space_ = np.ascontiguousarray(vectors[:, : d - dimension])
        if n < d:
            text = (
                f"{n:,} reference rows for {d:,} features: part of the null space is "
                "empty only because no row reached it."
            )
            self.notes_.append(Note("few-reference-rows", "warning", text))

    def _length(self, rows: Rows) -> FloatArray:
        outside = (rows.double_features(self.layer_) - self.origin_) @ self.null_space_
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", outside, outside)))

    def _score(self, rows: Rows) -> FloatArray:
        return self._length(rows)

    def _state(self) -> dict[str, Any]:
        return {"origin": self.origin_, "null_space": self.null_space_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.origin_ = np.asarray(state["origin"], dtype=np.float64)
        space = np.ascontiguousarray(state["null_space"], dtype=np.float64)
        self.null_space_ = space


@DETECTORS.register(
    "vim",
    label="Virtual-logit matching (ViM)",
    reference="Wang et al. 2022, arXiv:2203.10807",
    formula=r"\alpha \|R^\top (h - u)\|_2 - \mathrm{LSE}(z),\quad"
    r" \alpha = \overline{\max z} \,/\, \overline{\|R^\top (h - u)\|_2}",
    params=(DIMENSION,),
)
class ViM(Residual):
    """Residual as one more logit, against the energy of the others.

    Parameters
    ----------
    dimension : int, default=0
        As in `Residual`.

    Attributes
    ----------
    alpha_ : float
        Scale of the residual: the mean largest logit over the mean residual.
    """

    assumes = (
        "Reference features fill a subspace, and their logits are positive and of one "
        "scale."
    )

    alpha_: float

    def _fit(self, rows: Rows, progress: Progress) -> None:
        super()._fit(rows, part_of(progress, 0, 0.6))
        assert self.head_ is not None  # noqa: S101 - required
        top, length = 0.0, 0.0
        for block in rows.blocks(part_of(progress, 0.6, 1), "Scaling the residual"):
            statistics = block.head_statistics(self.head_, self.layer_)
            top += float(known(statistics.max_logit).sum())
            length += float(self._length(block).sum())
        if length <= 0:
            raise FitError(
                "No reference row leaves the principal subspace.",
                rows.own.name,
                "Choose fewer principal dimensions.",
            )
        self.alpha_ = top / length
        if self.alpha_ <= 0:
            text = (
                "The mean largest logit is not positive: the residual counts the "
                "wrong way. Are these logits?"
            )
            self.notes_.append(Note("negative-alpha", "warning", text))

    def _score(self, rows: Rows) -> FloatArray:
        assert self.head_ is not None  # noqa: S101 - required
        statistics = rows.head_statistics(self.head_, self.layer_)
        return self.alpha_ * self._length(rows) - known(statistics.logsumexp)

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"alpha": self.alpha_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        self.alpha_ = float(state["alpha"])
