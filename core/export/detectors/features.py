"""Exports of the scores of features: Gaussians, neighbours and stored patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.export.detectors.base import DetectorExport, Document, Rows
from core.export.detectors.parts import log_sum_exp, norm, unit, weighted

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_MAHALANOBIS = '''

def mahalanobis(rows, d):
    """Squared distance to the nearest class mean; of several layers their sum."""
    return over_layers(rows, d, class_distances)


def class_distances(h, layer, d):
    """Return squared distances (n, c) of features to class means."""
    return distances(h, d["parameters"]["gaussians"][layer])
'''

_RELATIVE = '''

def relative_mahalanobis(rows, d):
    """Squared distance to the nearest class mean, less that to the common one."""
    return over_layers(rows, d, relative_distances)


def relative_distances(h, layer, d):
    """Return squared distances to class means, less those to the common mean."""
    p = d["parameters"]
    return distances(h, p["gaussians"][layer]) - distances(h, p["backgrounds"][layer])
'''

_ALIAS = '''

def {name}(rows, d):
    """As {base}; the options say that features have unit length."""
    return {base}(rows, d)
'''

_KNN = '''

def knn(rows, d):
    """Squared distance to the k-th nearest reference row, both of unit length."""
    u, bank = unit(lone(rows, d)), d["parameters"]["bank"].astype(np.float64)
    squares = (bank**2).sum(axis=1) - 2 * u @ bank.T + (u**2).sum(axis=1)[:, None]
    place = min(d["options"]["k"], len(bank)) - 1
    return np.maximum(np.partition(squares, place, axis=1)[:, place], 0)
'''

_SHE = '''

def she(rows, d):
    """Minus the likeness to the stored pattern of the predicted class."""
    h = lone(rows, d)
    pattern = d["parameters"]["patterns"][rows["logits"].argmax(axis=1)]
    if d["options"]["metric"] == "euclidean":
        return norm(h - pattern)
    product = (h * pattern).sum(axis=1)
    if d["options"]["metric"] == "cosine":
        product = product / np.maximum(norm(h) * norm(pattern), 2.3e-308)
    return -product
'''

_NNGUIDE = '''

def nnguide(rows, d):
    """Energy times the mean likeness to the most alike reference rows."""
    bank = d["parameters"]["bank"].astype(np.float64)
    products = unit(lone(rows, d)) @ bank.T
    k = min(d["options"]["k"], len(bank))
    top = np.partition(products, len(bank) - k, axis=1)[:, -k:]
    return -log_sum_exp(rows["logits"]) * top.mean(axis=1)
'''


def _distances(graph: Graph, h: str, g: Document) -> str:
    """Return squared distances (N, c) to the means of Gaussians."""
    means, matrix = np.asarray(g["means"]), np.asarray(g["whitening"])
    centre = means.mean(axis=0)
    white_means = (means - centre) @ matrix
    gap = graph.op("Sub", h, centre[None, :])
    white = graph.op("MatMul", gap, matrix)
    length = graph.reduce("ReduceSum", graph.op("Mul", white, white))
    product = graph.op("MatMul", white, np.ascontiguousarray(white_means.T * -2.0))
    squares = (white_means**2).sum(axis=1)[None, :]
    found = graph.op("Add", graph.op("Add", product, squares), length)
    return graph.op("Max", found, 0.0)


def _over_layers(graph: Graph, rows: Rows, d: Document, parts: tuple[str, ...]) -> str:
    """Return the least distance of each layer, weighed where there are several."""
    p, columns = d["parameters"], []
    for layer in d["layers"]:
        h = rows.features[layer]
        if d["options"]["normalise"]:
            h = unit(graph, h)
        found = [_distances(graph, h, p[part][layer]) for part in parts]
        gap = found[0] if len(found) == 1 else graph.op("Sub", *found)
        columns.append(graph.op("Neg", graph.reduce("ReduceMax", graph.op("Neg", gap))))
    if p["layer_weights"] is None:
        return columns[0]
    return weighted(graph, graph.op("Concat", *columns, axis=1), p["layer_weights"])


def _mahalanobis(graph: Graph, rows: Rows, d: Document) -> str:
    return _over_layers(graph, rows, d, ("gaussians",))


def _relative(graph: Graph, rows: Rows, d: Document) -> str:
    return _over_layers(graph, rows, d, ("gaussians", "backgrounds"))


def _knn(graph: Graph, rows: Rows, d: Document) -> str:
    bank = np.asarray(d["parameters"]["bank"]).astype(np.float64)
    u = unit(graph, rows.lone(d))
    own = graph.reduce("ReduceSum", graph.op("Mul", u, u))
    product = graph.op("MatMul", u, np.ascontiguousarray(bank.T * -2.0))
    squares = graph.op("Add", product, (bank**2).sum(axis=1)[None, :])
    squares = graph.op("Add", squares, own)
    k = min(int(d["options"]["k"]), len(bank))
    nearest, _ = graph.largest(graph.op("Neg", squares), k)
    return graph.op("Max", graph.op("Neg", graph.column(nearest, k - 1)), 0.0)


def _she(graph: Graph, rows: Rows, d: Document) -> str:
    h, metric = rows.lone(d), d["options"]["metric"]
    best = graph.op("ArgMax", rows.logits, axis=1, keepdims=0)
    patterns: Any = np.asarray(d["parameters"]["patterns"])
    pattern = graph.op("Gather", patterns, best, axis=0)
    if metric == "euclidean":
        return norm(graph, graph.op("Sub", h, pattern))
    product = graph.reduce("ReduceSum", graph.op("Mul", h, pattern))
    if metric == "cosine":
        size = graph.op("Mul", norm(graph, h), norm(graph, pattern))
        product = graph.op("Div", product, graph.op("Max", size, 2.3e-308))
    return graph.op("Neg", product)


def _nnguide(graph: Graph, rows: Rows, d: Document) -> str:
    bank = np.asarray(d["parameters"]["bank"]).astype(np.float64)
    products = graph.op(
        "MatMul", unit(graph, rows.lone(d)), np.ascontiguousarray(bank.T)
    )
    k = min(int(d["options"]["k"]), len(bank))
    top, _ = graph.largest(products, k)
    guidance = graph.op("Div", graph.reduce("ReduceSum", top), float(k))
    return graph.op("Neg", graph.op("Mul", log_sum_exp(graph, rows.logits), guidance))


_UNIT = "; h / |h| takes the place of h where the options say so"
_DISTANCE = "least (h - m)' S^-1 (h - m) over class means m"

EXPORTS = {
    "mahalanobis": DetectorExport(_DISTANCE + _UNIT, _MAHALANOBIS, _mahalanobis),
    "relative-mahalanobis": DetectorExport(
        f"{_DISTANCE}, less that to the common mean{_UNIT}", _RELATIVE, _relative
    ),
    "mahalanobis-normalised": DetectorExport(
        _DISTANCE + _UNIT,
        _ALIAS.format(name="mahalanobis_normalised", base="mahalanobis"),
        _mahalanobis,
    ),
    "relative-mahalanobis-normalised": DetectorExport(
        f"{_DISTANCE}, less that to the common mean{_UNIT}",
        _ALIAS.format(
            name="relative_mahalanobis_normalised", base="relative_mahalanobis"
        ),
        _relative,
    ),
    "knn": DetectorExport(
        "squared distance of h / |h| to the k-th nearest reference row", _KNN, _knn
    ),
    "she": DetectorExport(
        "minus the likeness of h to the pattern of the predicted class", _SHE, _she
    ),
    "nnguide": DetectorExport(
        "-log sum exp(z) times the mean of the largest inner products of h / |h| and "
        "the reference rows",
        _NNGUIDE,
        _nnguide,
    ),
}
"""By id of the detector."""
