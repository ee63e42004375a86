"""Slow readable twins of calibrators with one curve per class."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import naive
import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = Sequence[float] | NDArray[Any]


def centred_isotonic(p: Floats, y: Floats, w: Floats) -> list[tuple[float, float]]:
    """Return (mean p, mean y) of every block of equal isotonic values."""
    fitted = naive.pool_adjacent_violators(p, y, w)
    centres = []
    for _, block in itertools.groupby(sorted(fitted), key=lambda v: fitted[v]):
        values = set(block)
        rows = [i for i in range(len(p)) if p[i] in values]
        mass = sum(w[i] for i in rows)
        centres.append(
            (
                sum(w[i] * p[i] for i in rows) / mass,
                sum(w[i] * y[i] for i in rows) / mass,
            )
        )
    return centres


def venn_abers(p: Floats, y: Floats, w: Floats, at: float) -> tuple[float, float]:
    """Return the isotonic fits at a score that is added as a miss, and as a hit."""
    ends = []
    for outcome in (0.0, 1.0):
        fitted = naive.pool_adjacent_violators([*p, at], [*y, outcome], [*w, 1.0])
        ends.append(fitted[at])
    return ends[0], ends[1]


def gap_spline(
    p: Floats, y: Floats, w: Floats, n_knots: int, n_groups: int
) -> list[tuple[float, float]]:
    """Return knots of p + slope of a natural spline through the cumulative gap.

    The spline is written in truncated powers, held to the gap at 0 and 1 by Lagrange
    multipliers.
    """
    whole = sum(w)
    least = 1 / (whole**2 / sum(v**2 for v in w) + 2)
    values = sorted(set(p))
    mass = [sum(w[i] for i in range(len(p)) if p[i] == v) / whole for v in values]
    hits = [
        sum(w[i] * y[i] for i in range(len(p)) if p[i] == v) / whole for v in values
    ]
    t = np.cumsum(mass)
    gap = np.cumsum([h - m * v for h, m, v in zip(hits, mass, values, strict=True)])
    knots = np.linspace(0, 1, n_knots)

    def power(x: float, knot: float) -> float:
        cube = (max(x - knot, 0) ** 3 - max(x - knots[-1], 0) ** 3) / (knots[-1] - knot)
        return float(cube)

    def basis(x: float) -> list[float]:
        last = power(x, knots[-2])
        return [1.0, x, *(power(x, knot) - last for knot in knots[:-2])]

    rows = np.array([basis(x) for x in t])
    held = np.array([basis(0.0), basis(1.0)])
    square = rows.T @ (np.array(mass)[:, None] * rows)
    system = np.block([[square, held.T], [held, np.zeros((2, 2))]])
    right = np.concatenate([rows.T @ (np.array(mass) * gap), [0.0, gap[-1]]])
    factors = np.linalg.lstsq(system, right, rcond=None)[0][:n_knots]
    groups: dict[int, list[int]] = {}
    for i, m in enumerate(mass):
        groups.setdefault(min(int((t[i] - m / 2) * n_groups), n_groups - 1), []).append(
            i
        )
    found, before = [], 0.0
    for places in groups.values():
        total = sum(mass[i] for i in places)
        centre = sum(mass[i] * values[i] for i in places) / total
        after = t[places[-1]]
        rise = np.dot(factors, np.array(basis(after)) - np.array(basis(before)))
        y_here = min(max(centre + rise / total, least), 1 - least)
        found.append((centre, y_here, total))
        before = after
        # a curve that rises faster would follow the rounding of probabilities
        while len(found) > 1:
            (x0, y0, m0), (x1, y1, m1) = found[-2:]
            if abs(y1 - y0) * x1 <= 64 * (x1 - x0):
                break
            m = m0 + m1
            found[-2:] = [((m0 * x0 + m1 * x1) / m, (m0 * y0 + m1 * y1) / m, m)]
    return [(x, value) for x, value, _ in found]


def averaged_binnings(p: Floats, y: Floats, at: Floats) -> list[float]:
    """Return the BDeu average of binnings of n distinct probabilities at points."""
    n = len(p)
    order = sorted(range(n), key=lambda i: p[i])
    scores, maps = [], []
    for size in range(
        max(1, math.ceil(n ** (1 / 3) / 10)), max(1, int(10 * n ** (1 / 3))) + 1
    ):
        cuts = [math.ceil(b * n / size - 1e-9) for b in range(size + 1)]
        total, bins = 0.0, []
        for low, high in itertools.pairwise(cuts):
            if low == high:
                continue
            rows = order[low:high]
            left = 0.0 if low == 0 else (p[order[low - 1]] + p[order[low]]) / 2
            right = 1.0 if high == n else (p[order[high - 1]] + p[order[high]]) / 2
            m, centre = sum(y[i] for i in rows), (left + right) / 2
            a, b = 2 / size * centre, 2 / size * (1 - centre)
            total += math.lgamma(2 / size) - math.lgamma(len(rows) + 2 / size)
            total += math.lgamma(m + a) - math.lgamma(a)
            total += math.lgamma(len(rows) - m + b) - math.lgamma(b)
            bins.append((right, (m + a) / (len(rows) + 2 / size)))
        scores.append(total)
        maps.append(bins)
    weights = [math.exp(score - max(scores)) for score in scores]
    weights = [weight if weight >= 1e-3 else 0.0 for weight in weights]
    return [
        sum(
            weight * next(value for right, value in bins if x <= right)
            for weight, bins in zip(weights, maps, strict=True)
        )
        / sum(weights)
        for x in at
    ]


def scaling_binning(p: Floats, y: Floats, n_bins: int, at: Floats) -> list[float]:
    """Return means of Platt's curve, fitted on a third, in bins of another third."""
    parts: list[list[int]] = [[], [], []]
    for outcome in (0, 1):
        rows = [i for i in range(len(p)) if y[i] == outcome]
        for place, i in enumerate(rows):
            parts[place % 3].append(i)
    odds = [math.log(v) - math.log1p(-v) for v in p]
    first = parts[0]
    targets = naive.platt_targets([y[i] == 1 for i in first])

    def loss(point: NDArray[Any]) -> float:
        score = point[0] * np.array([odds[i] for i in first]) + point[1]
        return float(np.sum(np.logaddexp(0, score) - np.array(targets) * score))

    slope, offset = optimize.minimize(loss, [1.0, 0.0], options={"gtol": 1e-9}).x
    middle = sorted(p[i] for i in parts[1])
    sizes = [len(middle) // n_bins + (b < len(middle) % n_bins) for b in range(n_bins)]
    cuts = np.cumsum(sizes)[:-1]
    edges = [0.0, *((middle[c - 1] + middle[c]) / 2 for c in cuts), 1.0]
    values = []
    for b in range(n_bins):
        rows = [i for i in parts[2] if naive.bin_index(p[i], edges) == b]
        rows = rows or [i for i in range(len(p)) if naive.bin_index(p[i], edges) == b]
        values.append(
            sum(1 / (1 + math.exp(-slope * odds[i] - offset)) for i in rows) / len(rows)
        )
    return [values[naive.bin_index(x, edges)] for x in at]


def least_lost_information(p: Floats, n_bins: int) -> float:
    """Return the least mean entropy of so many bins of sorted p, over all cuts."""

    def entropy(q: float) -> float:
        return -q * math.log(q) - (1 - q) * math.log(1 - q)

    values = sorted(p)
    best = math.inf
    for cuts in itertools.combinations(range(1, len(values)), n_bins - 1):
        total = 0.0
        for low, high in itertools.pairwise([0, *cuts, len(values)]):
            total += (high - low) * entropy(sum(values[low:high]) / (high - low))
        best = min(best, total / len(values))
    return best


def parabola(p: Floats, y: Floats, w: Floats) -> NDArray[Any]:
    """Return (a, b, c) of sigmoid(a l + b l^2 + c) of least loss, Platt's targets."""
    odds = np.log(p) - np.log1p(-np.asarray(p))
    positive = sum(m for m, hit in zip(w, y, strict=True) if hit)
    negative = sum(w) - positive
    high, low = (positive + 1) / (positive + 2), 1 / (negative + 2)
    target = np.array([high if hit else low for hit in y])

    def loss(point: NDArray[Any]) -> float:
        score = point[0] * odds + point[1] * odds**2 + point[2]
        return float(np.dot(w, np.logaddexp(0, score) - target * score)) / sum(w)

    return np.array(optimize.minimize(loss, [1.0, 0.0, 0.0], options={"gtol": 1e-9}).x)
