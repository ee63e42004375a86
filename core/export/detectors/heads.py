"""Exports of the scores of features and the last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.export.detectors.base import DetectorExport, Document, FloatArray, Rows
from core.export.detectors.parts import (
    head_logits,
    log_sum_exp,
    logits_of,
    norm,
    unit,
)

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS"]

_TINY = 1e-12
_LARGEST_EXPONENT = 300.0

_REACT = '''

def react(rows, d):
    """Energy of features that are cut at a threshold."""
    h = np.minimum(lone(rows, d), d["parameters"]["threshold"])
    return -log_sum_exp(head_logits(h, d))
'''

_VRA = '''

def vra(rows, d):
    """Energy of features that are clipped to a band."""
    low, high = d["parameters"]["bounds"]
    return -log_sum_exp(head_logits(np.clip(lone(rows, d), low, high), d))
'''

_ASH = '''

def ash(rows, d):
    """Energy of the largest activations of each row."""
    h, variant = lone(rows, d), d["options"]["variant"]
    kept = n_kept(h.shape[1], d)
    places = np.argsort(-h, axis=1, kind="stable")[:, :kept]
    values = np.take_along_axis(h, places, axis=1)
    before = h.sum(axis=1)
    if variant == "b":
        values = np.broadcast_to((before / kept)[:, None], values.shape)
    elif variant == "s":
        values = values * np.exp(sharpening(before, values.sum(axis=1)))[:, None]
    shaped = np.zeros_like(h)
    np.put_along_axis(shaped, places, values, axis=1)
    return -log_sum_exp(head_logits(shaped, d))
'''

_SCALE = '''

def scale(rows, d):
    """Energy of features that are scaled by how much their largest ones lack."""
    h = lone(rows, d)
    kept = n_kept(h.shape[1], d)
    top = np.partition(h, h.shape[1] - kept, axis=1)[:, -kept:]
    factor = np.exp(sharpening(h.sum(axis=1), top.sum(axis=1)))[:, None]
    bias = d["head"]["bias"].astype(np.float64)
    return -log_sum_exp((head_logits(h, d) - bias) * factor + bias)
'''

_DICE = '''

def dice(rows, d):
    """Energy of logits made of the weights that contribute most."""
    return -log_sum_exp(head_logits(lone(rows, d), d, d["parameters"]["weight"]))
'''

_RESIDUAL = '''

def residual(rows, d):
    """Length of the features outside the principal subspace."""
    p = d["parameters"]
    return norm((lone(rows, d) - p["origin"]) @ p["null_space"])
'''

_VIM = '''

def vim(rows, d):
    """Residual as one more logit, against the energy of the others."""
    lse = log_sum_exp(head_logits(lone(rows, d), d))
    return d["parameters"]["alpha"] * residual(rows, d) - lse
'''

_FDBD = '''

def fdbd(rows, d):
    """Minus the distances to the boundaries of the predicted class, per deviation."""
    h, weight = lone(rows, d), d["head"]["weight"].astype(np.float64)
    square = (weight**2).sum(axis=1)
    gram = square[:, None] + square[None, :] - 2 * weight @ weight.T
    near = gram <= 1e-12 * np.maximum(square[:, None], square[None, :])
    inverse = np.where(near, 0, 1 / np.sqrt(np.where(near, 1, gram)))
    z = head_logits(h, d)
    distance = ((z.max(axis=1)[:, None] - z) * inverse[z.argmax(axis=1)]).sum(axis=1)
    gap = h - d["parameters"]["mean"] if d["options"]["norm"] == "mean" else h
    return -distance / np.maximum(norm(gap), 1e-12)
'''

_NCI = '''

def nci(rows, d):
    """Minus how far features point along the weights of the predicted class."""
    h = lone(rows, d)
    gap = h - d["parameters"]["mean"]
    best = head_logits(h, d).argmax(axis=1)
    along = (d["head"]["weight"].astype(np.float64)[best] * gap).sum(axis=1)
    along = along / np.maximum(norm(gap), 1e-12)
    return -along - d["options"]["weight"] * np.abs(h).sum(axis=1)
'''

_GRADNORM = '''

def gradnorm(rows, d):
    """Minus the gradient norm of the divergence from the uniform."""
    h = lone(rows, d)
    p = np.exp(log_softmax(head_logits(h, d)))
    return -np.abs(h).sum(axis=1) * np.abs(1 - p.shape[1] * p).sum(axis=1)
'''

_ABET = '''

def abet_posthoc(rows, d):
    """Energy of cosines at a temperature of its own for each row."""
    p, h = d["parameters"], lone(rows, d)
    cosine = unit(h) @ unit(d["head"]["weight"].astype(np.float64)).T
    if p["temperature"] is not None:
        return -log_sum_exp(cosine / p["temperature"])
    inputs = (h - p["centre"]) / p["spread"]
    with np.errstate(over="ignore"):
        t = 1 / (1 + np.exp(-(inputs @ p["direction"] + p["bias"]))) + 1e-12
    return -log_sum_exp(cosine / t[:, None])
'''


def _energy(graph: Graph, z: str) -> str:
    return graph.op("Neg", log_sum_exp(graph, z))


def _sum(graph: Graph, h: str) -> str:
    return graph.reduce("ReduceSum", h)


def _react(graph: Graph, rows: Rows, d: Document) -> str:
    h = graph.op("Min", rows.lone(d), float(d["parameters"]["threshold"]))
    return _energy(graph, logits_of(graph, h, d))


def _vra(graph: Graph, rows: Rows, d: Document) -> str:
    low, high = (float(bound) for bound in d["parameters"]["bounds"])
    h = graph.op("Min", graph.op("Max", rows.lone(d), low), high)
    return _energy(graph, logits_of(graph, h, d))


def _kept(d: Document) -> int:
    width = int(next(iter(d["layers"].values())))
    return max(width - round(width * float(d["options"]["percentile"]) / 100), 1)


def _factor(graph: Graph, before: str, after: str) -> str:
    """Return exp(before / after), the exponent between -300 and 300."""
    ratio = graph.op("Div", before, after)
    is_lost = graph.op("Less", ratio, float(np.finfo(np.float64).min))  # -inf
    ratio = graph.op("Where", is_lost, 0.0, ratio)
    ratio = graph.op("Where", graph.op("IsNaN", ratio), 1.0, ratio)
    ratio = graph.op("Max", ratio, -_LARGEST_EXPONENT)
    return graph.op("Exp", graph.op("Min", ratio, _LARGEST_EXPONENT))


def _ash(graph: Graph, rows: Rows, d: Document) -> str:
    h, variant, kept = rows.lone(d), d["options"]["variant"], _kept(d)
    values, places = graph.largest(h, kept)
    if variant == "b":
        mean = graph.op("Div", _sum(graph, h), float(kept))
        values = graph.op("Expand", mean, graph.op("Shape", values))
    elif variant == "s":
        factor = _factor(graph, _sum(graph, h), _sum(graph, values))
        values = graph.op("Mul", values, factor)
    nothing = graph.op("Expand", np.zeros((1, 1)), graph.op("Shape", h))
    shaped = graph.op("ScatterElements", nothing, places, values, axis=1)
    return _energy(graph, logits_of(graph, shaped, d))


def _scale(graph: Graph, rows: Rows, d: Document) -> str:
    h = rows.lone(d)
    top, _ = graph.largest(h, _kept(d))
    factor = _factor(graph, _sum(graph, h), _sum(graph, top))
    bias = graph.constant(np.asarray(d["head"]["bias"])[None, :])
    product = graph.op("Sub", head_logits(graph, rows, d), bias)
    return _energy(graph, graph.op("Add", graph.op("Mul", product, factor), bias))


def _dice(graph: Graph, rows: Rows, d: Document) -> str:
    weight: FloatArray = np.asarray(d["parameters"]["weight"])
    return _energy(graph, head_logits(graph, rows, d, weight))


def _residual(graph: Graph, rows: Rows, d: Document) -> str:
    p = d["parameters"]
    gap = graph.op("Sub", rows.lone(d), np.asarray(p["origin"])[None, :])
    return norm(graph, graph.op("MatMul", gap, np.asarray(p["null_space"])))


def _vim(graph: Graph, rows: Rows, d: Document) -> str:
    length = graph.op("Mul", _residual(graph, rows, d), float(d["parameters"]["alpha"]))
    return graph.op("Sub", length, log_sum_exp(graph, head_logits(graph, rows, d)))


def _fdbd(graph: Graph, rows: Rows, d: Document) -> str:
    h, weight = rows.lone(d), np.asarray(d["head"]["weight"]).astype(np.float64)
    square = (weight**2).sum(axis=1)
    gram = square[:, None] + square[None, :] - 2 * weight @ weight.T
    near = gram <= _TINY * np.maximum(square[:, None], square[None, :])
    inverse = np.where(near, 0.0, 1 / np.sqrt(np.where(near, 1.0, gram)))
    z = head_logits(graph, rows, d)
    lead = graph.op("Sub", graph.reduce("ReduceMax", z), z)
    best = graph.op("ArgMax", z, axis=1, keepdims=0)
    own = graph.op("Gather", inverse, best, axis=0)
    distance = _sum(graph, graph.op("Mul", lead, own))
    if d["options"]["norm"] == "mean":
        h = graph.op("Sub", h, np.asarray(d["parameters"]["mean"])[None, :])
    size = graph.op("Max", norm(graph, h), _TINY)
    return graph.op("Neg", graph.op("Div", distance, size))


def _nci(graph: Graph, rows: Rows, d: Document) -> str:
    h = rows.lone(d)
    z = head_logits(graph, rows, d)
    best = graph.op("ArgMax", z, axis=1, keepdims=0)
    weight = np.asarray(d["head"]["weight"]).astype(np.float64)
    own = graph.op("Gather", weight, best, axis=0)
    gap = graph.op("Sub", h, np.asarray(d["parameters"]["mean"])[None, :])
    along = _sum(graph, graph.op("Mul", own, gap))
    along = graph.op("Div", along, graph.op("Max", norm(graph, gap), _TINY))
    size = graph.op("Mul", _sum(graph, graph.op("Abs", h)), d["options"]["weight"])
    return graph.op("Neg", graph.op("Add", along, size))


def _gradnorm(graph: Graph, rows: Rows, d: Document) -> str:
    k = len(d["head"]["bias"])
    p = graph.softmax(head_logits(graph, rows, d))
    gap = graph.op("Sub", 1.0, graph.op("Mul", p, float(k)))
    uneven = _sum(graph, graph.op("Abs", gap))
    size = _sum(graph, graph.op("Abs", rows.lone(d)))
    return graph.op("Neg", graph.op("Mul", size, uneven))


def _abet(graph: Graph, rows: Rows, d: Document) -> str:
    p, h = d["parameters"], rows.lone(d)
    weight = np.asarray(d["head"]["weight"]).astype(np.float64)
    size = np.maximum(np.linalg.norm(weight, axis=1), _TINY)
    columns = np.ascontiguousarray((weight / size[:, None]).T)
    cosine = graph.op("MatMul", unit(graph, h), columns)
    if p["temperature"] is not None:
        temperature: str | float = float(p["temperature"])
    else:
        gap = graph.op("Sub", h, np.asarray(p["centre"])[None, :])
        inputs = graph.op("Div", gap, np.asarray(p["spread"])[None, :])
        pull = graph.op("MatMul", inputs, np.asarray(p["direction"])[:, None])
        pull = graph.op("Add", pull, float(p["bias"]))
        below = graph.op("Add", graph.op("Exp", graph.op("Neg", pull)), 1.0)
        temperature = graph.op("Add", graph.op("Div", 1.0, below), _TINY)
    return _energy(graph, graph.op("Div", cosine, temperature))


_OF_HEAD = "h W' + b"

EXPORTS = {
    "react": DetectorExport(f"-log sum exp({_OF_HEAD}) of min(h, c)", _REACT, _react),
    "vra": DetectorExport(
        f"-log sum exp({_OF_HEAD}) of h clipped to a band",
        _VRA,
        _vra,
    ),
    "ash": DetectorExport(
        f"-log sum exp({_OF_HEAD}) of the largest activations of each row", _ASH, _ash
    ),
    "scale": DetectorExport(
        "-log sum exp(e^(s1 / s2) h W' + b), s1 the sum of h, s2 that of its largest",
        _SCALE,
        _scale,
    ),
    "dice": DetectorExport(
        f"-log sum exp({_OF_HEAD}) with the weights that contribute most",
        _DICE,
        _dice,
    ),
    "residual": DetectorExport("|R' (h - u)|", _RESIDUAL, _residual),
    "vim": DetectorExport(f"a |R' (h - u)| - log sum exp({_OF_HEAD})", _VIM, _vim),
    "fdbd": DetectorExport(
        "minus the distances to the boundaries of the predicted class, over |h - mean|",
        _FDBD,
        _fdbd,
    ),
    "nci": DetectorExport(
        "-(w of the predicted class)' (h - mean) / |h - mean| - a |h|_1", _NCI, _nci
    ),
    "gradnorm": DetectorExport(
        "-|h|_1 times the sum of |1 - K p|, p = softmax(h W' + b)",
        _GRADNORM,
        _gradnorm,
    ),
    "abet-posthoc": DetectorExport(
        "-log sum exp(cos(h, w) / T), T = sigmoid(a' (h - m) / s + a0)", _ABET, _abet
    ),
}
"""By id of the detector."""
