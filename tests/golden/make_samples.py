"""Compute metrics and calibrators of the samples by their definitions, slowly.

Writes samples.json. Nothing of `core` is used: the files are read with pandas, bins,
isotonic fits and objectives are those of `tests/naive.py` or written out below, optima
are SciPy's. It takes a few minutes::

    .venv/bin/python tests/golden/make_samples.py

- Probabilities of exactly 0 take the smallest positive one of the file, at most 1e-12,
  and confidences are rounded to 12 decimals, as the files are read by the product.
- Distances and Brier terms: loops over bins `(lo, hi]`; KS: running sums.
- CORP: pool adjacent violators, scores of the fit; log loss clipped at 1e-12.
- Smooth ECE: Gaussians summed over all rows at 8,001 points, bisected to 1e-6.
- E-AURC: ties in expectation by harmonic sums, less the area of the best order.
- Temperature, vector, Platt, beta: SciPy's minimisers on the written-out likelihood.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import naive  # noqa: E402 - run as a script

Array = NDArray[Any]

N_BINS, SHOWN = 15, 40
FILES = ("digits_noisy", "breast_cancer_binary")


# ------------------------------------------------------------------ rows


def read(name: str) -> tuple[Array, Array, Array]:
    """Return log-probabilities or logits, labels, and which rows calibrators fit."""
    table = pd.read_csv(ROOT / "sample_data" / f"{name}.csv", dtype={"label": str})
    is_fit = (table["split"] == "calibration").to_numpy()
    if name == "digits_noisy":
        columns = [column for column in table if column.startswith("logit_")]
        classes = [column.removeprefix("logit_") for column in columns]
        y = np.array([classes.index(label) for label in table["label"]])
        return table[columns].to_numpy(float), y, is_fit
    p = table["prob_malignant"].to_numpy(float)
    both = np.column_stack([1 - p, p])
    floor = min(1e-12, both[both > 0].min())
    with np.errstate(divide="ignore"):
        z = np.column_stack([np.log1p(-p), np.log(p)])
    return (
        np.where(np.isneginf(z), math.log(floor), z),
        table["label"].astype(int).to_numpy(),
        is_fit,
    )


def view_of(p: Array, y: Array, view: str) -> tuple[Array, Array]:
    """Return confidences and outcomes."""
    if view == "positive-class":
        return np.round(p[:, 1], 12), (y == 1).astype(float)
    return np.round(p.max(axis=1), 12), (p.argmax(axis=1) == y).astype(float)


def edges_of(values: Array, strategy: str) -> list[float]:
    """Return edges of equal widths, or halfway between sorted rows in equal counts."""
    if strategy == "uniform":
        return [b / N_BINS for b in range(N_BINS)] + [1.0]
    ordered = sorted(values.tolist())
    base, more = divmod(len(ordered), N_BINS)
    place, inner = 0, set()
    for b in range(N_BINS - 1):
        place += base + (b < more)
        low, high = ordered[place - 1], ordered[place]
        if low < high:
            inner.add((low + high) / 2)
    return [0.0, *sorted(inner), 1.0]


# ------------------------------------------------------------------ metrics


def in_bins(c: Array, o: Array, w: Array, strategy: str) -> list[dict[str, float]]:
    """Return the bins with rows."""
    found = naive.bins(c, o, edges_of(c, strategy), w)
    return [b for b in found if b["count"]]


def brier_terms(c: Array, o: Array, w: Array) -> dict[str, float]:
    """Return Murphy's three terms and the two that are left inside the bins."""
    edges, rate = edges_of(c, "uniform"), float(np.average(o, weights=w))
    found = dict.fromkeys(
        ("reliability", "resolution", "within-variance", "within-covariance"), 0.0
    )
    place = np.array([naive.bin_index(value, edges) for value in c])
    for b in range(N_BINS):
        rows = place == b
        if not rows.any():
            continue
        share = w[rows].sum() / w.sum()
        said, right = (np.average(v[rows], weights=w[rows]) for v in (c, o))
        found["reliability"] += share * (said - right) ** 2
        found["resolution"] += share * (right - rate) ** 2
        square = (c[rows] - said) ** 2
        product = (c[rows] - said) * (o[rows] - right)
        found["within-variance"] += share * np.average(square, weights=w[rows])
        found["within-covariance"] += share * np.average(product, weights=w[rows])
    return found | {"uncertainty": rate * (1 - rate)}


def corp(c: Array, o: Array, w: Array) -> dict[str, float]:
    """Return miscalibration, discrimination and uncertainty of both scores."""
    fitted = naive.pool_adjacent_violators(c, o, w)
    calibrated = np.array([fitted[value] for value in c.tolist()])
    mean = np.full(c.size, np.average(o, weights=w))

    def brier(q: Array) -> float:
        return float(np.average((q - o) ** 2, weights=w))

    def log_loss(q: Array) -> float:
        q = np.clip(q, 1e-12, 1 - 1e-12)
        loss = -np.where(o == 1, np.log(q), np.log1p(-q))
        return float(np.average(loss, weights=w))

    found = {}
    for rule, score in (("brier", brier), ("log", log_loss)):
        best, plain = score(calibrated), score(mean)
        found[f"{rule}-mcb"] = score(c) - best
        found[f"{rule}-dsc"] = plain - best
        found[f"{rule}-unc"] = plain
    return found


def smooth(c: Array, o: Array, w: Array) -> float:
    """Return the width s at which the error smoothed with s is s."""
    t = np.linspace(0.0, 1.0, 8001)
    share = w / w.sum()
    # Rows of one confidence are one term of the sum.
    places, which = np.unique(c, return_inverse=True)
    mass = np.bincount(which, share)
    residual = np.bincount(which, share * (c - o))

    def error(width: float) -> float:
        top, density = np.zeros_like(t), np.zeros_like(t)
        for x, r, m in zip(places, residual, mass, strict=True):
            bump = sum(np.exp(-0.5 * ((t - at) / width) ** 2) for at in (x, -x, 2 - x))
            top += r * bump
            density += m * bump
        return float(np.trapezoid(np.abs(top), t) / np.trapezoid(density, t))

    found = optimize.bisect(lambda s: error(s) - s, 1e-3, 1.0, xtol=1e-6)
    return float(found)


def excess_area(c: Array, o: Array) -> float:
    """Return AURC, ties in random order, less that of the best order."""
    n, before, wrong, area = c.size, 0, 0.0, 0.0
    for value in sorted(set(c.tolist()), reverse=True):
        rows = c == value
        size, misses = int(rows.sum()), float((1 - o[rows]).sum())
        for j in range(1, size + 1):
            area += (wrong + misses * j / size) / (before + j)
        before, wrong = before + size, wrong + misses
    n_right = int(o.sum())
    best = math.fsum((i - n_right) / i for i in range(n_right + 1, n + 1))
    return (area - best) / n


def outcome_metrics(c: Array, o: Array, w: Array) -> dict[str, float]:
    """Return the metrics that are functions of confidences and outcomes."""
    even, equal = in_bins(c, o, w, "uniform"), in_bins(c, o, w, "quantile")
    gaps = [abs(b["confidence"] - b["accuracy"]) for b in even]
    order, running, largest = np.argsort(c, kind="stable"), 0.0, 0.0
    for i, row in enumerate(order):
        running += w[row] * (c[row] - o[row])
        if i + 1 == c.size or c[order[i + 1]] != c[row]:
            largest = max(largest, abs(running))
    mean = np.average(c, weights=w)
    return {
        "rmsce": math.sqrt(
            math.fsum(b["weight"] * g**2 for b, g in zip(even, gaps, strict=True))
        ),
        "mce": max(g for b, g in zip(even, gaps, strict=True) if b["count"] >= 5),
        "ace": math.fsum(abs(b["confidence"] - b["accuracy"]) for b in equal)
        / len(equal),
        "ks": largest / w.sum(),
        "sharpness": float(np.average((c - mean) ** 2, weights=w)),
        "smooth-ece": smooth(c, o, w),
        **corp(c, o, w),
        **{f"brier-{term}": value for term, value in brier_terms(c, o, w).items()},
    }


def row_metrics(z: Array, y: Array, w: Array) -> dict[str, float]:
    """Return the metrics that need all classes."""
    p, log_p = naive.softmax(z), naive.log_softmax(z)
    classwise = [
        b["weight"] * abs(b["confidence"] - b["accuracy"])
        for k in range(p.shape[1])
        for b in in_bins(p[:, k], (y == k).astype(float), w, "uniform")
    ]
    return {
        "classwise-ece": math.fsum(classwise) / p.shape[1],
        "entropy": float(np.average(-(p * log_p).sum(axis=1), weights=w)),
        "best-temperature": naive.fit_temperature(z, y, w),
        "z-loss": float(np.average(np.log1p(np.exp(-standing(z, y))), weights=w)),
    }


def standing(z: Array, y: Array) -> Array:
    """Return how many standard deviations of its row each label's logit stands out."""
    own = z[np.arange(y.size), y]
    return np.asarray((own - z.mean(axis=1)) / z.std(axis=1))


def metrics(name: str) -> dict[str, dict[str, float]]:
    """Return view and weighting -> metric -> value."""
    z, y, _ = read(name)
    p = naive.softmax(z)
    one = np.ones(y.size)
    heavy = 1.0 + np.arange(y.size) % 3
    found = {}
    for view in ("top-label", "positive-class")[: 1 + (p.shape[1] == 2)]:
        c, o = view_of(p, y, view)
        found[view] = outcome_metrics(c, o, one)
        found[f"{view}, weights 1, 2, 3"] = outcome_metrics(c, o, heavy)
    c, o = view_of(p, y, "top-label")
    square = sum(
        naive.debiased_square(p[:, k], y == k, edges_of(p[:, k], "uniform"), 1.96)[0]
        for k in range(p.shape[1])
    )
    only = {"classwise-l2": square / p.shape[1], "e-aurc": excess_area(c, o)}
    found["top-label"] |= row_metrics(z, y, one) | only
    found["top-label, weights 1, 2, 3"] |= row_metrics(z, y, heavy)
    return found


# ------------------------------------------------------------------ calibrators


def minimum(loss: Callable[[Array], tuple[float, Array]], start: Array) -> Array:
    """Return the optimum of a smooth convex loss; its gradient must vanish."""
    options = {"ftol": 0.0, "gtol": 1e-11, "maxiter": 5000, "maxfun": 20000}
    found = optimize.minimize(
        loss, start, method="L-BFGS-B", jac=True, options=options
    ).x
    gradient = np.abs(loss(found)[1]).max()
    assert gradient < 1e-7, gradient
    return np.asarray(found)


def logistic(features: list[Array], target: Array) -> Array:
    """Return slopes and intercept of least log loss, no slope below 0."""
    x = np.column_stack([*features, np.ones(target.size)])
    scale = np.maximum(np.abs(x).max(axis=0), 1.0)
    x = x / scale

    def loss(point: Array) -> tuple[float, Array]:
        score = x @ point
        rows = np.logaddexp(0.0, score) - target * score
        chance = 0.5 * (1 + np.tanh(score / 2))
        return float(rows.mean()), x.T @ (chance - target) / target.size

    best, least = None, math.inf
    n = len(features)
    for bits in range(2**n):  # every set of slopes that may be held at 0
        free = [i for i in range(n) if not bits >> i & 1] + [n]

        def inner(part: Array, free: list[int] = free) -> tuple[float, Array]:
            point = np.zeros(n + 1)
            point[free] = part
            value, slope = loss(point)
            return value, slope[free]

        point = np.zeros(n + 1)
        point[free] = minimum(inner, np.zeros(len(free)))
        value = loss(point)[0]
        if (point[:n] >= 0).all() and value < least:
            best, least = point, value
    assert best is not None
    return best / scale


def sigmoid(score: Array) -> Array:
    """Return 1 / (1 + exp(-score))."""
    return 0.5 * (1 + np.tanh(score / 2))


def parts(z: Array, column: int) -> tuple[Array, Array]:
    """Return log p and log(1 - p) of a class."""
    rest = np.delete(z, column, axis=1)
    total = naive.logsumexp(z)
    return z[:, column] - total, naive.logsumexp(rest) - total


def curves(z: Array, y: Array, is_fit: Array, shown: Array, kind: str) -> Array:
    """Return one-vs-rest probabilities of the shown rows."""
    k = z.shape[1]
    columns = [1] if k == 2 else range(k)
    mapped = []
    for column in columns:
        hit = (y[is_fit] == column).astype(float)
        log_p, log_rest = parts(z[is_fit], column)
        out_p, out_rest = parts(z[shown], column)
        if kind == "histogram":
            p = np.exp(log_p)
            edges = edges_of(p, "quantile")
            values = naive.histogram_values(p, hit > 0, edges, 1.0)
            column_values = [values[naive.bin_index(v, edges)] for v in np.exp(out_p)]
            mapped.append(np.array(column_values))
        elif kind == "platt":
            target = np.array(naive.platt_targets(hit))
            # A falling Platt curve does not occur here: slopes at 0 would show.
            a, b = logistic([log_p - log_rest], target)
            assert a > 0
            mapped.append(sigmoid(a * (out_p - out_rest) + b))
        else:
            a, b, c = logistic([log_p, -log_rest], hit)
            mapped.append(sigmoid(a * out_p - b * out_rest + c))
    if k == 2:
        return np.column_stack([1 - mapped[0], mapped[0]])
    return naive.one_vs_rest(np.column_stack(mapped))


def vector(z: Array, y: Array, is_fit: Array, shown: Array) -> Array:
    """Return softmax(w * z + b), w and b held to 1 / T and 0."""
    rows, labels, k = z[is_fit], y[is_fit], z.shape[1]
    t = naive.fit_temperature(rows, labels)
    ridge = k / labels.size

    def loss(point: Array) -> tuple[float, Array]:
        w, b = point[:k] / t, point[k:]
        value, gradient = naive.vector_objective(rows, labels, w, b)
        value += ridge * float(((t * w - 1) ** 2).sum() + (b**2).sum())
        slope = gradient[0] / t + 2 * ridge * (t * w - 1)
        return value, np.concatenate([slope, gradient[1] + 2 * ridge * b])

    point = minimum(loss, np.concatenate([np.ones(k), np.zeros(k)]))
    return naive.softmax(z[shown] * point[:k] / t + point[k:])


def calibrators(name: str) -> dict[str, list[list[float]]]:
    """Return method -> probabilities of the first test rows."""
    z, y, is_fit = read(name)
    shown = np.flatnonzero(~is_fit)[:SHOWN]
    found = {
        kind: curves(z, y, is_fit, shown, kind)
        for kind in ("platt", "beta", "histogram")
    }
    found["vector"] = vector(z, y, is_fit, shown)
    return {method: rows.tolist() for method, rows in found.items()}


def main() -> None:
    """Write file -> metrics and calibrators."""
    document = {
        name: {"metrics": metrics(name), "calibrators": calibrators(name)}
        for name in FILES
    }
    path = Path(__file__).with_name("samples.json")
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
