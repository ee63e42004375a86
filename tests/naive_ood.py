"""Slow, readable twins of the out-of-distribution scores: loops in double precision.

Every twin takes a `Case` and returns one score for each new row, larger = more
out-of-distribution. No code is shared with `core`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import naive
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Reference rows (features h, logits z, labels y), a last layer, and new rows."""

    h: Array
    z: Array
    y: NDArray[np.int64]
    weight: Array
    bias: Array
    new_h: Array
    new_z: Array

    @property
    def k(self) -> int:
        return self.z.shape[1]

    def logits(self, h: Array) -> Array:
        return np.array(
            [
                [w @ row + b for w, b in zip(self.weight, self.bias, strict=True)]
                for row in h
            ]
        )


def energy_of(z: Array) -> Array:
    return -naive.logsumexp(z)


def top(row: Array) -> int:
    return int(np.argmax(row))


# --------------------------------------------------------------------- logits


def max_softmax(c: Case) -> Array:
    return np.array([-max(p) for p in naive.softmax(c.new_z)])


def temperature_softmax(c: Case) -> Array:
    def loss(log_t: float) -> float:
        log_p = naive.log_softmax(c.z, math.exp(log_t))
        return -sum(log_p[i, label] for i, label in enumerate(c.y)) / len(c.y)

    found = optimize.minimize_scalar(
        loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}
    )
    return np.array([-max(p) for p in naive.softmax(c.new_z, math.exp(found.x))])


def gen(c: Case, gamma: float = 0.1, most: int = 100) -> Array:
    found = []
    for p in naive.softmax(c.new_z):
        kept = sorted(p, reverse=True)[:most]
        found.append(sum(q**gamma * (1 - q) ** gamma for q in kept))
    return np.array(found)


def energy(c: Case) -> Array:
    return energy_of(c.new_z)


def max_logit(c: Case) -> Array:
    return np.array([-max(row) for row in c.new_z])


def entropy(c: Case) -> Array:
    return np.array(
        [-sum(q * math.log(q) for q in p if q > 0) for p in naive.softmax(c.new_z)]
    )


def margin(c: Case) -> Array:
    ordered = [sorted(p) for p in naive.softmax(c.new_z)]
    return np.array([p[-2] - p[-1] for p in ordered])


def z_loss(c: Case) -> Array:
    found = []
    for row in c.new_z:
        mean = sum(row) / len(row)
        spread = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row))
        found.append(math.log(1 + math.exp(-(max(row) - mean) / spread)))
    return np.array(found)


def log_partition(c: Case) -> Array:
    return np.array([math.log(sum(math.exp(v) for v in row)) ** 2 for row in c.new_z])


def odin(c: Case) -> Array:
    return np.array([sum(row) / len(row) - max(row) for row in c.new_z])


def kl_matching(c: Case) -> Array:
    p = naive.softmax(c.z)
    templates = []
    for k in range(c.k):
        rows = [p[i] for i in range(len(p)) if top(c.z[i]) == k]
        templates.append(np.mean(rows, axis=0) if rows else np.eye(c.k)[k])
    found = []
    for q in naive.softmax(c.new_z):
        kl = [
            sum(
                a * math.log(a / max(b, 5e-324))
                for a, b in zip(q, d, strict=True)
                if a > 0
            )
            for d in templates
        ]
        found.append(min(kl))
    return np.array(found)


def openmax(c: Case, tail: int = 20, alpha: int = 3) -> Array:
    means, fits = {}, {}
    for k in range(c.k):
        rows = [c.z[i] for i in range(len(c.z)) if top(c.z[i]) == k == c.y[i]]
        means[k] = np.mean(rows, axis=0)
        distances = sorted(math.dist(row, means[k]) for row in rows)[-tail:]
        start = distances[0]
        moved = [d - start + 10_000 for d in distances]
        shape, _, scale = stats.weibull_min.fit(moved, floc=0)
        fits[k] = (shape, scale, start)
    found = []
    for z in c.new_z:
        revised = list(z)
        unknown = 0.0
        order = sorted(range(c.k), key=lambda k, z=z: -z[k])
        for place, k in enumerate(order[:alpha]):
            shape, scale, start = fits[k]
            reach = max(math.dist(z, means[k]) - start + 10_000, 0)
            share = 1 - math.exp(-((reach / scale) ** shape))
            weight = (alpha - place) / alpha
            revised[k] = z[k] * (1 - weight * share)
            unknown += z[k] - revised[k]
        found.append(naive.softmax(np.array([[*revised, unknown]]))[0, -1])
    return np.array(found)


# ------------------------------------------------------------------- features


def unit(h: Array) -> Array:
    return np.array([row / math.sqrt(sum(x * x for x in row)) for row in h])


def _gaussians(h: Array, y: NDArray[np.int64]) -> tuple[dict[int, Array], Array]:
    means = {int(k): np.mean(h[y == k], axis=0) for k in sorted(set(y))}
    covariance = np.zeros((h.shape[1], h.shape[1]))
    for row, k in zip(h, y, strict=True):
        gap = row - means[int(k)]
        covariance += np.outer(gap, gap)
    return means, covariance / len(h)


def _nearest(h: Array, y: NDArray[np.int64], new: Array) -> Array:
    means, covariance = _gaussians(h, y)
    precision = np.linalg.inv(covariance)
    return np.array(
        [min((x - m) @ precision @ (x - m) for m in means.values()) for x in new]
    )


def mahalanobis(c: Case) -> Array:
    return _nearest(c.h, c.y, c.new_h)


def relative_mahalanobis(c: Case) -> Array:
    one = np.zeros(len(c.y), dtype=int)
    return mahalanobis(c) - _nearest(c.h, one, c.new_h)


def _unit_case(c: Case) -> Case:
    return Case(unit(c.h), c.z, c.y, c.weight, c.bias, unit(c.new_h), c.new_z)


def mahalanobis_normalised(c: Case) -> Array:
    return mahalanobis(_unit_case(c))


def relative_mahalanobis_normalised(c: Case) -> Array:
    return relative_mahalanobis(_unit_case(c))


def knn(c: Case, k: int = 50) -> Array:
    bank = unit(c.h)
    return np.array(
        [sorted(math.dist(x, b) ** 2 for b in bank)[k - 1] for x in unit(c.new_h)]
    )


def _patterns(c: Case) -> dict[int, Array]:
    right = [i for i in range(len(c.y)) if top(c.z[i]) == c.y[i]]
    return {
        k: np.mean([c.h[i] for i in right if c.y[i] == k], axis=0) for k in range(c.k)
    }


def she(c: Case) -> Array:
    patterns = _patterns(c)
    return np.array(
        [-(h @ patterns[top(z)]) for h, z in zip(c.new_h, c.new_z, strict=True)]
    )


def nnguide(c: Case, k: int = 100) -> Array:
    bank = [u * -e for u, e in zip(unit(c.h), energy_of(c.z), strict=True)]
    found = []
    for u, e in zip(unit(c.new_h), energy_of(c.new_z), strict=True):
        products = sorted((u @ b for b in bank), reverse=True)[:k]
        found.append(e * sum(products) / len(products))
    return np.array(found)


# --------------------------------------------------- features and the last layer


def _null_space(c: Case) -> tuple[Array, Array]:
    origin = -np.linalg.pinv(c.weight) @ c.bias
    gaps = c.h - origin
    values, vectors = np.linalg.eig(gaps.T @ gaps / len(gaps))
    order = np.argsort(-values.real)
    kept = max(c.h.shape[1] // 2, 1)
    return origin, vectors.real[:, order[kept:]]


def residual(c: Case) -> Array:
    origin, space = _null_space(c)
    return np.array([np.linalg.norm(space.T @ (row - origin)) for row in c.new_h])


def vim(c: Case) -> Array:
    origin, space = _null_space(c)
    lengths = [np.linalg.norm(space.T @ (row - origin)) for row in c.h]
    alpha = np.mean([max(z) for z in c.logits(c.h)]) / np.mean(lengths)
    return alpha * residual(c) + energy_of(c.logits(c.new_h))


def react(c: Case) -> Array:
    cut = np.percentile(c.h, 90)
    return energy_of(c.logits(np.minimum(c.new_h, cut)))


def vra(c: Case) -> Array:
    low, high = np.percentile(c.h, [10, 90])
    return energy_of(
        c.logits(np.array([[min(max(x, low), high) for x in row] for row in c.new_h]))
    )


def ash(c: Case, variant: str = "b", percentile: float = 90) -> Array:
    shaped = []
    for row in c.new_h:
        kept = len(row) - round(len(row) * percentile / 100)
        largest = sorted(range(len(row)), key=lambda i, row=row: -row[i])[:kept]
        before, after = sum(row), sum(row[i] for i in largest)
        out = np.zeros(len(row))
        for i in largest:
            out[i] = {
                "b": before / kept,
                "p": row[i],
                "s": row[i] * math.exp(before / after),
            }[variant]
        shaped.append(out)
    return energy_of(c.logits(np.array(shaped)))


def scale(c: Case, percentile: float = 85) -> Array:
    shaped = []
    for row in c.new_h:
        kept = len(row) - round(len(row) * percentile / 100)
        after = sum(sorted(row, reverse=True)[:kept])
        shaped.append(row * math.exp(sum(row) / after))
    return energy_of(c.logits(np.array(shaped)))


def dice(c: Case) -> Array:
    mean = c.h.mean(axis=0)
    contribution = np.array(
        [[m * w for m, w in zip(mean, row, strict=True)] for row in c.weight]
    )
    cut = np.percentile(contribution, 90)
    masked = np.where(contribution > cut, c.weight, 0)
    return energy_of(c.new_h @ masked.T + c.bias)


def gradnorm(c: Case) -> Array:
    found = []
    for h, p in zip(c.new_h, naive.softmax(c.logits(c.new_h)), strict=True):
        # The gradient of -mean_c log p_c in the weights, K times.
        gradient = np.outer(len(p) * p - 1, h)
        found.append(-np.abs(gradient).sum())
    return np.array(found)


def fdbd(c: Case) -> Array:
    mean = c.h.mean(axis=0)
    found = []
    for h, z in zip(c.new_h, c.logits(c.new_h), strict=True):
        first = top(z)
        total = sum(
            abs(z[first] - z[k]) / np.linalg.norm(c.weight[first] - c.weight[k])
            for k in range(c.k)
            if k != first
        )
        found.append(-total / np.linalg.norm(h - mean))
    return np.array(found)


def nci(c: Case, weight: float = 1e-4) -> Array:
    mean = c.h.mean(axis=0)
    found = []
    for h, z in zip(c.new_h, c.logits(c.new_h), strict=True):
        along = c.weight[top(z)] @ (h - mean) / np.linalg.norm(h - mean)
        found.append(-along - weight * sum(abs(x) for x in h))
    return np.array(found)


def abet_posthoc(c: Case, ridge: float = 1e-3) -> Array:
    g, new_g = (
        np.array([[u @ w for w in unit(c.weight)] for u in unit(h)])
        for h in (c.h, c.new_h)
    )
    mean, spread = c.h.mean(axis=0), c.h.std(axis=0)
    spread[spread == 0] = 1

    def temperature(h: Array, a: Array) -> Array:
        return 1 / (1 + np.exp(-((h - mean) / spread @ a[:-1] + a[-1]))) + 1e-12

    def loss(a: Array) -> float:
        log_p = naive.log_softmax(g / temperature(c.h, a)[:, None])
        fit = -np.mean([log_p[i, label] for i, label in enumerate(c.y)])
        return float(fit + ridge / 2 * a[:-1] @ a[:-1])

    found = optimize.minimize(
        loss, np.zeros(c.h.shape[1] + 1), method="BFGS", options={"gtol": 1e-7}
    )
    return energy_of(new_g / temperature(c.new_h, found.x)[:, None])


TWINS: dict[str, Callable[..., Any]] = {
    "max-softmax": max_softmax,
    "temperature-softmax": temperature_softmax,
    "gen": gen,
    "energy": energy,
    "max-logit": max_logit,
    "entropy": entropy,
    "margin": margin,
    "z-loss": z_loss,
    "log-partition": log_partition,
    "odin": odin,
    "kl-matching": kl_matching,
    "openmax": openmax,
    "mahalanobis": mahalanobis,
    "relative-mahalanobis": relative_mahalanobis,
    "mahalanobis-normalised": mahalanobis_normalised,
    "relative-mahalanobis-normalised": relative_mahalanobis_normalised,
    "knn": knn,
    "she": she,
    "nnguide": nnguide,
    "residual": residual,
    "vim": vim,
    "react": react,
    "vra": vra,
    "ash": ash,
    "scale": scale,
    "dice": dice,
    "gradnorm": gradnorm,
    "fdbd": fdbd,
    "nci": nci,
    "abet-posthoc": abet_posthoc,
}
"""Detector id -> twin; the combinations have theirs in the test."""
