"""Slow, readable twins of the numerics, in plain Python and NumPy float64.

A twin is written for whoever checks it, not for speed: loops, formulas in the order of
the definition, no code shared with `core`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
