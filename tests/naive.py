"""Slow, readable twins of the numerics, in plain Python and NumPy float64.

A twin is written for whoever checks it, not for speed: loops, formulas in the order of
the definition, no code shared with `core`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

# ------------------------------------------------------------------- softmax


def logsumexp(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return log(sum(exp(z / T))) of every row."""
    result = []
    for row in np.asarray(logits, np.float64):
        scaled = [float(z) / temperature for z in row]
        top = max(scaled)
        result.append(top + math.log(math.fsum(math.exp(z - top) for z in scaled)))
    return np.array(result)


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities of every row."""
    result = []
    for row in np.asarray(logits, np.float64):
        # differences first: z / T would round by more than the result may
        top = max(float(z) for z in row)
        mass = [math.exp((float(z) - top) / temperature) for z in row]
        total = math.fsum(mass)
        result.append([m / total for m in mass])
    return np.array(result).reshape(np.shape(logits))


def log_softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the log-probabilities of every row."""
    result = []
    for row in np.asarray(logits, np.float64):
        top = max(float(z) for z in row)
        scaled = [(float(z) - top) / temperature for z in row]
        log_total = math.log(math.fsum(math.exp(z) for z in scaled))
        result.append([z - log_total for z in scaled])
    return np.array(result).reshape(np.shape(logits))


def row_statistics(
    logits: ArrayLike, labels: Sequence[int] | None = None, temperature: float = 1.0
) -> dict[str, NDArray[Any] | None]:
    """Return every field of core.softmax.RowStatistics, row by row."""
    z = np.asarray(logits, np.float64)
    p = softmax(z, temperature)
    log_p = log_softmax(z, temperature)
    fields: dict[str, list[Any]] = {}
    for i, row in enumerate(p.tolist()):
        raw = z[i].tolist()
        order = sorted(range(len(row)), key=lambda k, raw=raw: (-raw[k], k))
        add = {
            "prediction": order[0],
            "confidence": row[order[0]],
            "margin": row[order[0]] - (row[order[1]] if len(row) > 1 else 0.0),
            "max_logit": raw[order[0]],
            "entropy": -math.fsum(
                q * float(log_q)
                for q, log_q in zip(row, log_p[i], strict=True)
                if q > 0
            ),
            "squared_sum": math.fsum(q * q for q in row),
        }
        if labels is not None:
            y = int(labels[i])
            add["correct"] = y == order[0]
            add["label_log_probability"] = float(log_p[i, y]) if y >= 0 else math.nan
            add["label_rank"] = order.index(y) if y >= 0 else -1
        for name, value in add.items():
            fields.setdefault(name, []).append(value)
    result: dict[str, NDArray[Any] | None] = {
        name: np.array(values) for name, values in fields.items()
    }
    result["logsumexp"] = logsumexp(z, temperature)
    if labels is None:
        result |= dict.fromkeys(("correct", "label_log_probability", "label_rank"))
    return result


def temperature_objective(
    logits: ArrayLike, labels: Sequence[int], beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return loss, slope and curvature in beta of the negative log-likelihood."""
    loss, slope, curvature = [], [], []
    for row, y in zip(np.asarray(logits, np.float64).tolist(), labels, strict=True):
        top = max(row)
        kept = [z - top for z in row if z > -math.inf]  # the others have no mass
        mass = [math.exp(beta * z) for z in kept]
        total = math.fsum(mass)
        p = [m / total for m in mass]
        mean = math.fsum(q * z for q, z in zip(p, kept, strict=True))
        z_y = row[y] - top
        # also at beta = 0: the class is ruled out
        loss.append(math.inf if z_y == -math.inf else math.log(total) - beta * z_y)
        slope.append(mean - (z_y if z_y > -math.inf else 0.0))
        curvature.append(
            math.fsum(q * (z - mean) ** 2 for q, z in zip(p, kept, strict=True))
        )
    return np.array(loss), np.array(slope), np.array(curvature)


# ------------------------------------------------------------------- binning


def bin_index(value: float, edges: Sequence[float], closed: str = "right") -> int:
    """Return the bin of a value: (lo, hi] with 0 in the first, or [lo, hi)."""
    for b in range(len(edges) - 2):
        inner = edges[b + 1]
        if value < inner or (closed == "right" and value == inner):
            return b
    return len(edges) - 2


def bins(
    confidence: ArrayLike,
    outcome: ArrayLike,
    edges: Sequence[float],
    weight: ArrayLike | None = None,
    closed: str = "right",
) -> list[dict[str, float]]:
    """Return count, share of the weight, mean confidence and accuracy per bin."""
    c, o = np.asarray(confidence, float), np.asarray(outcome, float)
    w = np.ones(len(c)) if weight is None else np.asarray(weight, float)
    found = []
    for b in range(len(edges) - 1):
        rows = [i for i in range(len(c)) if bin_index(c[i], edges, closed) == b]
        mass = sum(w[i] for i in rows)
        nan = math.nan
        found.append(
            {
                "count": len(rows),
                "weight": mass / sum(w),
                "confidence": sum(w[i] * c[i] for i in rows) / mass if mass else nan,
                "accuracy": sum(w[i] * o[i] for i in rows) / mass if mass else nan,
            }
        )
    return found


def calibration_error(
    confidence: ArrayLike,
    outcome: ArrayLike,
    edges: Sequence[float],
    weight: ArrayLike | None = None,
    norm: str = "l1",
    closed: str = "right",
) -> float:
    """Return the plug-in error over bins."""
    found = [b for b in bins(confidence, outcome, edges, weight, closed) if b["weight"]]
    gaps = [(b["weight"], abs(b["confidence"] - b["accuracy"])) for b in found]
    if norm == "max":
        return max(gap for _, gap in gaps)
    if norm == "l2":
        return math.sqrt(sum(w * gap**2 for w, gap in gaps))
    return sum(w * gap for w, gap in gaps)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Return the roots p of (share - p)^2 = z^2 p (1 - p) / n."""
    a, b, c = 1 + z**2 / n, -(2 * share + z**2 / n), share**2
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


# ------------------------------------------------------------------- metrics


def accuracy(y: Sequence[int], p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the share of rows whose first largest probability is the label's."""
    rows = np.asarray(p, float)
    w = np.ones(len(rows)) if weight is None else np.asarray(weight, float)
    hits = [
        float(list(row).index(max(row)) == k) for row, k in zip(rows, y, strict=True)
    ]
    return sum(a * b for a, b in zip(w, hits, strict=True)) / sum(w)


def gap(y: Sequence[int], p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return mean largest probability minus accuracy."""
    rows = np.asarray(p, float)
    w = np.ones(len(rows)) if weight is None else np.asarray(weight, float)
    said = sum(a * max(row) for a, row in zip(w, rows, strict=True)) / sum(w)
    return said - accuracy(y, p, weight)


def nll(y: Sequence[int], p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the mean negative log probability of the label."""
    rows = np.asarray(p, float)
    w = np.ones(len(rows)) if weight is None else np.asarray(weight, float)
    losses = [-math.log(row[k]) for row, k in zip(rows, y, strict=True)]
    return sum(a * b for a, b in zip(w, losses, strict=True)) / sum(w)


def brier(y: Sequence[int], p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the mean squared error: of one class for two, summed for more."""
    rows = np.asarray(p, float)
    w = np.ones(len(rows)) if weight is None else np.asarray(weight, float)
    total = 0.0
    for a, row, label in zip(w, rows, y, strict=True):
        errors = [(q - (k == label)) ** 2 for k, q in enumerate(row)]
        total += a * (errors[1] if len(row) == 2 else sum(errors))
    return total / sum(w)


def auroc(
    confidence: ArrayLike, correct: ArrayLike, weight: ArrayLike | None = None
) -> float:
    """Return the weighted share of (right, wrong) pairs in the right order."""
    c, o = np.asarray(confidence, float), np.asarray(correct, bool)
    w = np.ones(len(c)) if weight is None else np.asarray(weight, float)
    won = total = 0.0
    for i in np.flatnonzero(o):
        for j in np.flatnonzero(~o):
            won += w[i] * w[j] * ((c[i] > c[j]) + 0.5 * (c[i] == c[j]))
            total += w[i] * w[j]
    return won / total if total else math.nan


def aurc_over_orders(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean AURC over every order that the confidences allow."""
    c, o = list(map(float, np.asarray(confidence))), list(np.asarray(correct, bool))
    areas = []
    for order in itertools.permutations(range(len(c))):
        if any(c[a] < c[b] for a, b in itertools.pairwise(order)):
            continue
        wrong, risks = 0, []
        for place, row in enumerate(order, start=1):
            wrong += not o[row]
            risks.append(wrong / place)
        areas.append(sum(risks) / len(risks))
    return sum(areas) / len(areas)


def debiased_square(
    confidence: ArrayLike, outcome: ArrayLike, edges: Sequence[float], z: float
) -> tuple[float, float, float]:
    """Return T and its closed-form interval for unweighted, ungrouped rows.

    T = sum_b n_b/n (g_b^2 - v_b/n_b), T +- z sqrt(4 sum_b (n_b/n)^2
    max(g_b^2 - v_b/n_b, 0) v_b/n_b + 2 sum_b (v_b/n)^2); a bin with one row takes
    v_b = c (1 - c).
    """
    c, o = np.asarray(confidence, float), np.asarray(outcome, float)
    n, value, linear, noise = len(c), 0.0, 0.0, 0.0
    for b in range(len(edges) - 1):
        rows = [i for i in range(n) if bin_index(c[i], edges) == b]
        if not rows:
            continue
        m = len(rows)
        g = sum(c[i] - o[i] for i in rows) / m
        if m == 1:
            v = c[rows[0]] * (1 - c[rows[0]])
        else:
            v = sum((c[i] - o[i] - g) ** 2 for i in rows) / (m - 1)
        value += m / n * (g**2 - v / m)
        linear += (m / n) ** 2 * max(g**2 - v / m, 0.0) * v / m
        noise += (v / n) ** 2
    half = z * math.sqrt(4 * linear + 2 * noise)
    return value, value - half, value + half


# ---------------------------------------------------------------- resampling


def bootstrap_draws(
    statistic: Callable[[list[int]], float], drawn: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Return the statistic of copied rows for each list of drawn rows."""
    return np.array([statistic(list(rows)) for rows in drawn])


def rows_of_groups(groups: Sequence[int], drawn: Sequence[int]) -> list[int]:
    """Return the rows of the drawn groups, in the order they were drawn."""
    return [i for g in drawn for i in range(len(groups)) if groups[i] == g]


def null_residuals(
    confidence: ArrayLike, outcomes: ArrayLike, edges: Sequence[float]
) -> NDArray[np.float64]:
    """Return mean residuals of the bins for given outcomes; 0 in empty bins."""
    found = bins(confidence, outcomes, edges)
    return np.nan_to_num([b["confidence"] - b["accuracy"] for b in found])


# --------------------------------------------------------------- calibrators


def fit_temperature(
    logits: ArrayLike, y: Sequence[int], weight: ArrayLike | None = None
) -> float:
    """Return T of least NLL by a bounded search in ln(1/T)."""
    z = np.asarray(logits, np.float64)
    w = np.ones(len(z)) if weight is None else np.asarray(weight, float)

    def loss(u: float) -> float:
        scaled = z * math.exp(u)
        total = special.logsumexp(scaled, axis=1) - scaled[np.arange(len(z)), y]
        return float(w @ total / w.sum())

    found = optimize.minimize_scalar(
        loss, bounds=(-7, 7), method="bounded", options={"xatol": 1e-10}
    )
    return math.exp(-found.x)


def pool_adjacent_violators(
    x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None
) -> dict[float, float]:
    """Return the isotonic least-squares fit as value of x -> fitted mean."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    w = np.ones(len(xs)) if weight is None else np.asarray(weight, float)
    blocks: list[list[Any]] = []
    for value in sorted(set(xs[w > 0])):
        rows = [i for i in range(len(xs)) if xs[i] == value and w[i] > 0]
        mass = sum(w[i] for i in rows)
        blocks.append([[value], sum(w[i] * ys[i] for i in rows) / mass, mass])
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            values, mean, mass = blocks.pop()
            last = blocks[-1]
            total = last[2] + mass
            last[1] = (last[1] * last[2] + mean * mass) / total
            last[0], last[2] = last[0] + values, total
    return {value: block[1] for block in blocks for value in block[0]}


def platt_targets(is_class: ArrayLike) -> list[float]:
    """Return (N+ + 1) / (N+ + 2) for positives and 1 / (N- + 2) for negatives."""
    hits = [bool(hit) for hit in np.asarray(is_class)]
    n_positive = sum(hits)
    n_negative = len(hits) - n_positive
    high, low = (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2)
    return [high if hit else low for hit in hits]


def fit_beta_curve(
    p: Sequence[float],
    target: Sequence[float],
    weight: Sequence[float] | None = None,
    lowest: float | None = 0.0,
) -> NDArray[np.float64]:
    """Return (a, b, c) of least log loss with a, b >= `lowest`."""
    w = [1.0] * len(p) if weight is None else list(weight)

    def loss(point: ArrayLike) -> float:
        a, b, c = np.asarray(point)
        total = 0.0
        for chance, t, mass in zip(p, target, w, strict=True):
            score = a * math.log(chance) - b * math.log1p(-chance) + c
            q = 1 / (1 + math.exp(-score))
            total -= mass * (t * math.log(q) + (1 - t) * math.log(1 - q))
        return total / sum(w)

    found = optimize.minimize(
        loss,
        [0.5, 0.5, 0.0],
        method="L-BFGS-B",
        bounds=[(lowest, None), (lowest, None), (None, None)],
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000},
    )
    return np.array(found.x)


def histogram_values(
    p: Sequence[float],
    hits: Sequence[bool],
    edges: Sequence[float],
    extra: float,
    weight: Sequence[float] | None = None,
) -> list[float]:
    """Return (hits + extra) / (rows + 2 extra) of each bin; its middle where empty."""
    w = [1.0] * len(p) if weight is None else list(weight)
    values = []
    for b in range(len(edges) - 1):
        rows = [i for i in range(len(p)) if bin_index(p[i], edges) == b]
        mass = sum(w[i] for i in rows)
        good = sum(w[i] for i in rows if hits[i])
        middle = (edges[b] + edges[b + 1]) / 2
        values.append((good + extra) / (mass + 2 * extra) if rows else middle)
    return values


def one_vs_rest(mapped: ArrayLike) -> NDArray[np.float64]:
    """Return rows that sum to 1; rows of zeros become uniform."""
    rows = []
    for row in np.asarray(mapped, float).tolist():
        total = sum(row)
        rows.append([q / total if total > 0 else 1 / len(row) for q in row])
    return np.array(rows)


def vector_objective(
    logits: ArrayLike,
    y: Sequence[int],
    slope: ArrayLike,
    offset: ArrayLike,
    weight: ArrayLike | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """Return the mean NLL of softmax(slope * z + offset) and its gradient (2, k)."""
    z = np.asarray(logits, np.float64)
    w = np.ones(len(z)) if weight is None else np.asarray(weight, float)
    loss, gradient = 0.0, np.zeros((2, z.shape[1]))
    for i, row in enumerate(z):
        kept = [j for j in range(len(row)) if row[j] > -math.inf]
        scores = {
            j: np.asarray(slope)[j] * row[j] + np.asarray(offset)[j] for j in kept
        }
        top = max(scores.values())
        total = math.fsum(math.exp(s - top) for s in scores.values())
        loss += w[i] * (math.log(total) + top - scores[y[i]])
        for j in kept:
            residual = math.exp(scores[j] - top) / total - (j == y[i])
            gradient[0, j] += w[i] * residual * row[j]
            gradient[1, j] += w[i] * residual
    return loss / w.sum(), gradient / w.sum()


def matrix_objective(
    inputs: ArrayLike, y: Sequence[int], theta: ArrayLike, weight: ArrayLike
) -> tuple[float, NDArray[np.float64]]:
    """Return the mean NLL of softmax(W x + b), theta = [W | b], and its gradient."""
    x, w = np.asarray(inputs, np.float64), np.asarray(weight, float)
    found = np.asarray(theta, float)
    loss, gradient = 0.0, np.zeros(found.shape)
    for i, row in enumerate(x):
        longer = np.array([*row, 1.0])
        scores = [math.fsum(line * longer) for line in found]
        top = max(scores)
        total = math.fsum(math.exp(s - top) for s in scores)
        loss += w[i] * (math.log(total) + top - scores[y[i]])
        for j, score in enumerate(scores):
            residual = math.exp(score - top) / total - (j == y[i])
            gradient[j] += w[i] * residual * longer
    return loss / w.sum(), gradient / w.sum()


def mixed_logs(
    logits: ArrayLike, temperature: float, mixing: float
) -> NDArray[np.float64]:
    """Return log((1 - m) softmax(z / T) + m / k)."""
    rows = []
    for row in np.asarray(logits, float):
        top = max(row)
        e = [math.exp((z - top) / temperature) for z in row]
        total = math.fsum(e)
        rows.append([math.log((1 - mixing) * q / total + mixing / len(e)) for q in e])
    return np.array(rows)


# ---------------------------------------------------------- operating points


def accuracy_threshold(
    confidence: NDArray[Any], correct: NDArray[Any], target: float
) -> float | None:
    best = None
    for t in np.unique(confidence)[::-1]:
        if correct[confidence >= t].mean() >= target:
            best = float(t)
    return best


def sensitivity_threshold(
    probability: NDArray[Any], is_positive: NDArray[Any], target: float
) -> float | None:
    for t in np.unique(probability)[::-1]:
        if is_positive[probability >= t].sum() >= target * is_positive.sum() - 1e-12:
            return float(t)
    return None
