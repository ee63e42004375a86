"""Pearson's type III distribution: a gamma with a shift, by its first moments."""

from __future__ import annotations

import math

from scipy import special

__all__ = ["Pearson"]


class Pearson:
    """Pearson's type III distribution (a shifted gamma) with given moments.

    Parameters
    ----------
    mean, variance, third : float
        Mean and central moments of a sum.
    k : int
        What the sum is divided by.
    """

    def __init__(self, mean: float, variance: float, third: float, k: int) -> None:
        self.mean, self.scale = mean / k, max(variance, 1e-300) ** 0.5 / k
        skewness = third / (self.scale * k) ** 3 if variance > 0 else 0.0
        # The normal limit, where the shape of the gamma is past its precision.
        self.root = 2 / skewness if abs(skewness) >= 1.6e-5 else math.inf

    def quantile(self, q: float) -> float:
        """Return the value that a share q of draws stays under."""
        root = self.root
        if math.isinf(root):
            z = special.ndtri(q)
        else:
            share = q if root > 0 else 1 - q
            z = special.gammaincinv(root**2, share) / root - root
        return float(self.mean + self.scale * z)

    def beyond(self, value: float) -> float:
        """Return the share of draws above a value."""
        z, root = (value - self.mean) / self.scale, self.root
        if math.isinf(root):
            return float(special.ndtr(-z))
        tail = special.gammaincc if root > 0 else special.gammainc
        return float(tail(root**2, max(root * (z + root), 0.0)))
