"""Gaussians of features: means, one shared covariance and how it is inverted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from core.messages import FitError

__all__ = ["COVARIANCES", "Gaussians", "Moments", "Whitening"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

Inversion = Literal["auto", "cholesky", "ledoit-wolf", "pseudo-inverse"]
COVARIANCES = ("auto", "cholesky", "ledoit-wolf", "pseudo-inverse")
"""Ways to invert a covariance; "auto" takes Cholesky where the rank is full."""

# What sums of squares cannot tell from 0, relative to the largest and a feature.
_NOISE = 10 * float(np.finfo(np.float64).eps)


class Moments:
    """Second moments of residuals, gathered block by block.

    Attributes
    ----------
    covariance : ndarray of shape (d, d)
        Maximum-likelihood estimate: divided by the number of rows.
    n : int
    fourth : float
        Sum of the fourth powers of the lengths, which Ledoit and Wolf's shrinkage
        needs.
    """

    def __init__(self, width: int) -> None:
        self._sum = np.zeros((width, width))
        self.n = 0
        self.fourth = 0.0

    def add(self, residuals: FloatArray) -> None:
        """Add a block of residuals of shape (m, d), in double precision."""
        self._sum += residuals.T @ residuals  # which NumPy knows to be symmetric
        self.n += len(residuals)
        self.fourth += float((np.einsum("ij,ij->i", residuals, residuals) ** 2).sum())

    @property
    def covariance(self) -> FloatArray:
        """Mean outer product of the residuals."""
        return np.asarray(self._sum / self.n)

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's weight of the identity, between 0 and 1."""
        s, d = self.covariance, len(self._sum)
        mean = np.trace(s) / d
        distance = float((s**2).sum()) - d * mean**2
        noise = (self.fourth / self.n - float((s**2).sum())) / self.n
        if noise <= 0 or distance <= 0:
            return 0.0
        return float(min(noise, distance) / distance)


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """A linear map after which a covariance is the identity.

    Parameters
    ----------
    matrix : ndarray of shape (d, r)
        x @ matrix is white; r is the rank that is used.
    rank : int
        Effective rank of the covariance.
    shrinkage : float
        Weight of the identity that was mixed in.
    how : str
        "cholesky", "ledoit-wolf" or "pseudo-inverse".
    """

    matrix: FloatArray
    rank: int
    shrinkage: float
    how: str

    @classmethod
    def of(
        cls,
        covariance: FloatArray,
        how: str,
        *,
        shrinkage: float = 0.0,
        size: float = 0.0,
        where: str = "",
    ) -> Whitening:
        """Return the whitening of a covariance.

        Parameters
        ----------
        covariance : ndarray of shape (d, d)
        how : {"auto", "cholesky", "ledoit-wolf", "pseudo-inverse"}
        shrinkage : float, default=0
            Used by "ledoit-wolf".
        size : float, default=0
            Largest feature of the means: what varies less than its rounding does not
            vary.
        where : str
            Named in errors.

        Raises
        ------
        FitError
            If nothing varies, or Cholesky was asked for and the rank is not full.
        """
        d = len(covariance)
        if covariance.trace() <= d * (_NOISE * size) ** 2:
            raise FitError(
                "No feature varies inside the classes.",
                where,
                "Give rows that differ: every row may be a copy of another.",
            )
        if how in ("auto", "cholesky"):
            found = cls._by_cholesky(covariance)
            if found is not None:
                return found
        values, vectors = scipy.linalg.eigh(covariance)
        cut = max(values[-1], 0.0) * d * _NOISE
        rank = int((values > cut).sum())
        if how == "cholesky":
            raise FitError(
                f"The covariance has rank {rank:,} of {d:,}: it has no inverse.",
                where,
                "Give more rows than features, or choose the pseudo-inverse or "
                "shrinkage.",
            )
        if how == "ledoit-wolf" and (shrinkage > 0 or rank == d):
            mixed = (1 - shrinkage) * values + shrinkage * values.mean()
            return cls(vectors / np.sqrt(mixed), rank, shrinkage, how)
        kept = values > cut
        matrix = np.ascontiguousarray(vectors[:, kept] / np.sqrt(values[kept]))
        return cls(matrix, rank, 0.0, "pseudo-inverse")

    @classmethod
    def _by_cholesky(cls, covariance: FloatArray) -> Whitening | None:
        """Return the inverse of the Cholesky factor, or None without full rank."""
        d = len(covariance)
        try:
            factor = scipy.linalg.cholesky(covariance, lower=True)
        except scipy.linalg.LinAlgError:
            return None
        size = np.abs(covariance).sum(axis=0).max()
        condition, _ = scipy.linalg.lapack.dpocon(factor, size, uplo="L")
        if condition < d * _NOISE:
            return None
        inverse = scipy.linalg.solve_triangular(factor, np.eye(d), lower=True)
        return cls(np.ascontiguousarray(inverse.T), d, 0.0, "cholesky")


@dataclass(frozen=True, slots=True, eq=False)
class Gaussians:
    """Class means with one covariance, ready to measure distances.

    Parameters
    ----------
    means : ndarray of shape (c, d)
    classes : ndarray of int64 of shape (c,)
        Class of each mean.
    counts : ndarray of int64 of shape (c,)
        Rows of each class.
    covariance : ndarray of shape (d, d)
    whitening : Whitening
    """

    means: FloatArray
    classes: IndexArray
    counts: IndexArray
    covariance: FloatArray
    whitening: Whitening

    @property
    def centre(self) -> FloatArray:
        """Mean of the class means: subtracted first, so that rounding stays small."""
        return np.asarray(self.means.mean(axis=0))

    @property
    def white_means(self) -> FloatArray:
        """Means relative to the centre, in the white space."""
        return np.asarray((self.means - self.centre) @ self.whitening.matrix)

    def measure(self) -> Distances:
        """Return what computes squared distances, its constants made once."""
        return Distances(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters; from them `from_dict` makes the same map."""
        return {
            "means": self.means,
            "classes": self.classes,
            "counts": self.counts,
            "covariance": self.covariance,
            "whitening": self.whitening.matrix,
            "rank": self.whitening.rank,
            "shrinkage": self.whitening.shrinkage,
            "how": self.whitening.how,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gaussians:
        """Return what `to_dict` described."""
        matrix = np.ascontiguousarray(values["whitening"], dtype=np.float64)
        whitening = Whitening(
            matrix, int(values["rank"]), float(values["shrinkage"]), str(values["how"])
        )
        return cls(
            means=np.asarray(values["means"], dtype=np.float64),
            classes=np.asarray(values["classes"], dtype=np.int64),
            counts=np.asarray(values["counts"], dtype=np.int64),
            covariance=np.asarray(values["covariance"], dtype=np.float64),
            whitening=whitening,
        )


class Distances:
    """Squared Mahalanobis distances of rows to every mean."""

    def __init__(self, of: Gaussians) -> None:
        self._centre, self._matrix = of.centre, of.whitening.matrix
        self._means = np.ascontiguousarray(of.white_means.T)
        self._squares = (self._means**2).sum(axis=0)

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return distances of shape (m, c) of features of shape (m, d)."""
        white = (features - self._centre) @ self._matrix
        found = white @ self._means
        found *= -2.0
        found += self._squares
        found += np.einsum("ij,ij->i", white, white)[:, None]
        return np.maximum(found, 0.0)
