"""Pieces that the code and the graphs of several detectors share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.export.detectors.base import Document, FloatArray, Rows

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = [
    "SHARED",
    "head_logits",
    "log_sum_exp",
    "norm",
    "unit",
    "weighted",
    "without_top",
]

_TINY = 1e-12

SHARED = '''

def log_softmax(z, temperature=1.0):
    """Return log-probabilities; the largest logit of a row is subtracted first."""
    z = (z - z.max(axis=1, keepdims=True)) / temperature
    return z - np.log1p(others(z))


def others(z):
    """Return the sum of exponentials (n, 1) without that of the first largest."""
    mass = np.exp(z)
    np.put_along_axis(mass, z.argmax(axis=1)[:, None], 0, axis=1)
    return mass.sum(axis=1, keepdims=True)


def log_sum_exp(z):
    """Return the logarithm of the sum of the exponentials of each row."""
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def entropies(z):
    """Return the entropy of the probabilities of each row."""
    z = z - z.max(axis=1, keepdims=True)
    rest = others(z)[:, 0]
    pull = (np.exp(z) * np.where(np.isfinite(z), z, 0)).sum(axis=1)
    return np.log1p(rest) - pull / (1 + rest)


def lone(rows, d):
    """Return the features of the one layer that is read."""
    return rows["features"][next(iter(d["layers"]))]


def head_logits(h, d, weight=None):
    """Return the logits that the last layer makes of features."""
    weight = d["head"]["weight"] if weight is None else weight
    return h @ weight.astype(np.float64).T + d["head"]["bias"].astype(np.float64)


def norm(h):
    """Return the Euclidean length of each row."""
    return np.sqrt(np.einsum("ij,ij->i", h, h))


def unit(h):
    """Return rows divided by their lengths; rows of zeros stay zeros."""
    return h / np.maximum(norm(h), 1e-12)[:, None]


def weighted(scores, w):
    """Return the weighted sum of standardised scores (n, m)."""
    return ((scores - w["mean"]) / w["scale"]) @ w["weight"]


def distances(h, g):
    """Return squared Mahalanobis distances (n, c) of features to class means."""
    centre = g["means"].mean(axis=0)
    white = (h - centre) @ g["whitening"]
    means = (g["means"] - centre) @ g["whitening"]
    found = white @ means.T * -2 + (means**2).sum(axis=1)
    return np.maximum(found + (white**2).sum(axis=1)[:, None], 0)


def over_layers(rows, d, measure):
    """Return the least distance of each layer, weighed where there are several."""
    columns = []
    for layer in d["layers"]:
        h = rows["features"][layer]
        h = unit(h) if d["options"]["normalise"] else h
        columns.append(measure(h, layer, d).min(axis=1))
    w = d["parameters"]["layer_weights"]
    return columns[0] if w is None else weighted(np.column_stack(columns), w)


def n_kept(width, d):
    """Return how many activations are above the percentile: at least one."""
    return max(width - round(width * d["options"]["percentile"] / 100), 1)


def sharpening(before, after):
    """Return before / after as an exponent, between -300 and 300."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = before / after
    return np.clip(np.nan_to_num(ratio, nan=1, posinf=300, neginf=0), -300, 300)


def member_scores(rows, d):
    """Return the scores of every member, (n, m)."""
    members = d["parameters"]["members"]
    return np.column_stack([SCORES[m["method"]](rows, m) for m in members])
'''
"""Functions that several detectors call; a module gets those that it needs."""


def log_sum_exp(graph: Graph, z: str) -> str:
    """Return the logarithm of the sum of the exponentials, (N, 1)."""
    top = graph.reduce("ReduceMax", z)
    total = graph.reduce("ReduceSum", graph.op("Exp", graph.op("Sub", z, top)))
    return graph.op("Add", top, graph.op("Log", total))


def without_top(graph: Graph, z: str, k: int) -> tuple[str, str]:
    """Return shifted logits, -inf at the first largest one, and their mass (N, 1)."""
    best = graph.op("ArgMax", z, axis=1, keepdims=1)
    is_best = graph.op("Equal", np.arange(k)[None, :], best)
    others = graph.op("Where", is_best, -np.inf, graph.shifted(z))
    return others, graph.reduce("ReduceSum", graph.op("Exp", others))


def norm(graph: Graph, h: str) -> str:
    """Return the Euclidean length of each row, (N, 1)."""
    return graph.op("Sqrt", graph.reduce("ReduceSum", graph.op("Mul", h, h)))


def unit(graph: Graph, h: str) -> str:
    """Return rows divided by their lengths."""
    return graph.op("Div", h, graph.op("Max", norm(graph, h), _TINY))


def head_logits(
    graph: Graph, rows: Rows, d: Document, weight: FloatArray | None = None
) -> str:
    """Return the logits that the last layer makes of the features."""
    return logits_of(graph, rows.lone(d), d, weight)


def logits_of(
    graph: Graph, h: str, d: Document, weight: FloatArray | None = None
) -> str:
    """Return the logits that the last layer makes of a value."""
    weight = np.asarray(d["head"]["weight"]) if weight is None else weight
    product = graph.op("MatMul", h, np.ascontiguousarray(weight.T))
    return graph.op("Add", product, np.asarray(d["head"]["bias"])[None, :])


def weighted(graph: Graph, scores: str, w: Document) -> str:
    """Return the weighted sum (N, 1) of standardised scores (N, m)."""
    gap = graph.op("Sub", scores, np.asarray(w["mean"])[None, :])
    standard = graph.op("Div", gap, np.asarray(w["scale"])[None, :])
    return graph.op("MatMul", standard, np.asarray(w["weight"])[:, None])
