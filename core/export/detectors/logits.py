"""Exports of the scores of the logits alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.export.detectors.base import DetectorExport, Document, Rows
from core.export.detectors.parts import log_sum_exp, without_top

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["EXPORTS", "entropy", "largest_share"]

_FLOOR = -745.0  # as in core.ood.templates
_TRANSLATION = 10_000.0

_MAX_SOFTMAX = '''

def max_softmax(rows, d):
    """Minus the largest probability."""
    return -np.exp(log_softmax(rows["logits"])).max(axis=1)
'''

_TEMPERATURE_SOFTMAX = '''

def temperature_softmax(rows, d):
    """Minus the largest probability at a temperature."""
    temperature = d["parameters"]["temperature"]
    return -np.exp(log_softmax(rows["logits"], temperature)).max(axis=1)
'''

_GEN = '''

def gen(rows, d):
    """Generalised entropy of the largest probabilities."""
    gamma, many = d["options"]["gamma"], d["options"]["n_classes"]
    z = rows["logits"]
    z = z - z.max(axis=1, keepdims=True)
    rest, k = others(z), z.shape[1]
    low = z.copy()
    np.put_along_axis(low, z.argmax(axis=1)[:, None], -np.inf, axis=1)
    if many < k:
        low = np.partition(low, k - many, axis=1)[:, k - many + 1 :]
    log_p = low - np.log1p(rest)
    # What is missing from 1 of the largest one is the sum of the others.
    with np.errstate(divide="ignore"):
        lead = np.log(rest) - 2 * np.log1p(rest)
        log_products = np.hstack([lead, log_p + np.log1p(-np.exp(log_p))])
    return np.exp(gamma * log_products).sum(axis=1)
'''

_ENERGY = '''

def energy(rows, d):
    """Minus T times the log-sum-exp of the logits over T."""
    temperature = d["options"]["temperature"]
    return -temperature * log_sum_exp(rows["logits"] / temperature)
'''

_MAX_LOGIT = '''

def max_logit(rows, d):
    """Minus the largest logit."""
    return -rows["logits"].max(axis=1)
'''

_ENTROPY = '''

def entropy(rows, d):
    """Entropy of the probabilities, in nats."""
    return entropies(rows["logits"])
'''

_MARGIN = '''

def margin(rows, d):
    """Minus the lead of the largest probability over the second."""
    p = np.sort(np.exp(log_softmax(rows["logits"])), axis=1)
    return p[:, -2] - p[:, -1] if p.shape[1] > 1 else -p[:, -1]
'''

_Z_LOSS = '''

def z_loss(rows, d):
    """Z-loss of the largest logit of each row."""
    z, is_there = rows["logits"], np.isfinite(rows["logits"])
    z = np.where(is_there, z - z.max(axis=1, keepdims=True), 0)
    count = is_there.sum(axis=1)
    mean = z.sum(axis=1) / count
    off = np.where(is_there, z - mean[:, None], 0)
    spread = np.sqrt((off**2).sum(axis=1) / count)
    is_flat = spread <= 1e-14 * -mean
    lead = np.where(is_flat, 0, -mean / np.where(is_flat, 1, spread))
    return np.log1p(np.exp(-lead))
'''

_LOG_PARTITION = '''

def log_partition(rows, d):
    """Squared log-sum-exp of the logits."""
    return log_sum_exp(rows["logits"]) ** 2
'''

_ODIN = '''

def odin(rows, d):
    """Mean logit minus the largest, or minus the softmax at a temperature."""
    z = rows["logits"]
    if d["options"]["form"] == "softmax":
        return -np.exp(log_softmax(z, d["options"]["temperature"])).max(axis=1)
    is_there = np.isfinite(z)
    mean = np.where(is_there, z, 0).sum(axis=1) / is_there.sum(axis=1)
    return mean - z.max(axis=1)
'''

_KL_MATCHING = '''

def kl_matching(rows, d):
    """Least divergence from the typical probabilities of a predicted class."""
    z = rows["logits"]
    with np.errstate(divide="ignore"):
        log_templates = np.maximum(np.log(d["parameters"]["templates"]), -745.0)
    cross = np.exp(log_softmax(z)) @ log_templates.T
    return -entropies(z) - cross.max(axis=1)
'''

_OPENMAX = '''

def openmax(rows, d):
    """Probability of an added class, from tails of distances to class means."""
    p, z = d["parameters"], rows["logits"]
    least = np.where(z == -np.inf, np.inf, z).min(axis=1, keepdims=True)
    z = np.where(z == -np.inf, least, z)
    n, k = z.shape
    alpha = min(d["options"]["alpha"], k)
    order = np.argsort(-z, axis=1, kind="stable")
    revised, row = np.hstack([z, np.zeros((n, 1))]), np.arange(n)
    for place in range(alpha):
        c = order[:, place]
        excess = norm(z - p["means"][c]) - p["start"][c]
        with np.errstate(all="ignore"):
            reach = (excess + (10_000.0 - p["scale"][c])) / p["scale"][c]
            power = np.exp(p["shape"][c] * np.log1p(np.maximum(reach, -1)))
            tail = np.nan_to_num(-np.expm1(-power), nan=0)
        kept = z[row, c] * (1 - (alpha - place) / alpha * tail)
        revised[:, k] += z[row, c] - kept
        revised[row, c] = kept
    return np.exp(log_softmax(revised))[:, k]
'''


def largest_share(graph: Graph, z: str, temperature: float = 1.0) -> str:
    """Return minus the largest probability at a temperature, (N, 1)."""
    shifted = graph.shifted(z)
    if temperature != 1.0:
        shifted = graph.op("Div", shifted, float(temperature))
    total = graph.reduce("ReduceSum", graph.op("Exp", shifted))
    return graph.op("Div", -1.0, total)


def entropy(graph: Graph, z: str, k: int) -> str:
    """Return the entropy of the probabilities, (N, 1)."""
    others, rest = without_top(graph, z, k)
    there = graph.op("Where", graph.is_open(others), others, 0.0)
    product = graph.op("Mul", graph.op("Exp", others), there)
    pull = graph.reduce("ReduceSum", product)
    share = graph.op("Div", pull, graph.op("Add", rest, 1.0))
    return graph.op("Sub", graph.log1p(rest), share)


def _max_softmax(graph: Graph, rows: Rows, d: Document) -> str:  # noqa: ARG001
    return largest_share(graph, rows.logits)


def _temperature_softmax(graph: Graph, rows: Rows, d: Document) -> str:
    return largest_share(graph, rows.logits, d["parameters"]["temperature"])


def _gen(graph: Graph, rows: Rows, d: Document) -> str:
    gamma, many = float(d["options"]["gamma"]), int(d["options"]["n_classes"])
    z, k = rows.logits, int(d["n_classes"])
    others, rest = without_top(graph, z, k)
    log_total = graph.log1p(rest)
    twice = graph.op("Mul", log_total, 2.0)
    products = [graph.op("Sub", graph.op("Log", rest), twice)]
    if k > 1:
        if many < k:
            others, _ = graph.largest(others, many - 1)
        log_p = graph.op("Sub", others, log_total)
        missing = graph.op("Log", graph.op("Sub", 1.0, graph.op("Exp", log_p)))
        products.append(graph.op("Add", log_p, missing))
    every = products[0]
    if len(products) > 1:
        every = graph.op("Concat", *products, axis=1)
    terms = graph.op("Exp", graph.op("Mul", every, gamma))
    return graph.reduce("ReduceSum", terms)


def _energy(graph: Graph, rows: Rows, d: Document) -> str:
    temperature, z = float(d["options"]["temperature"]), rows.logits
    if temperature != 1.0:
        z = graph.op("Div", z, temperature)
    return graph.op("Mul", log_sum_exp(graph, z), -temperature)


def _max_logit(graph: Graph, rows: Rows, d: Document) -> str:  # noqa: ARG001
    return graph.op("Neg", graph.reduce("ReduceMax", rows.logits))


def _entropy(graph: Graph, rows: Rows, d: Document) -> str:
    return entropy(graph, rows.logits, int(d["n_classes"]))


def _margin(graph: Graph, rows: Rows, d: Document) -> str:
    p = graph.softmax(rows.logits)
    if int(d["n_classes"]) < 2:
        return graph.op("Neg", p)
    values, _ = graph.largest(p, 2)
    return graph.op("Sub", graph.column(values, 1), graph.column(values, 0))


def _z_loss(graph: Graph, rows: Rows, d: Document) -> str:  # noqa: ARG001
    is_open = graph.is_open(rows.logits)
    z = graph.op("Where", is_open, graph.shifted(rows.logits), 0.0)
    count = graph.reduce("ReduceSum", graph.to_inner(is_open))
    mean = graph.op("Div", graph.reduce("ReduceSum", z), count)
    off = graph.op("Where", is_open, graph.op("Sub", z, mean), 0.0)
    square = graph.reduce("ReduceSum", graph.op("Mul", off, off))
    spread = graph.op("Sqrt", graph.op("Div", square, count))
    noise = graph.op("Mul", mean, -1e-14)
    is_flat = graph.op("LessOrEqual", spread, noise)
    score = graph.op("Div", mean, graph.op("Where", is_flat, 1.0, spread))
    score = graph.op("Where", is_flat, 0.0, score)
    return graph.log1p(graph.op("Exp", score))


def _log_partition(graph: Graph, rows: Rows, d: Document) -> str:  # noqa: ARG001
    total = log_sum_exp(graph, rows.logits)
    return graph.op("Mul", total, total)


def _odin(graph: Graph, rows: Rows, d: Document) -> str:
    z, options = rows.logits, d["options"]
    if options["form"] == "softmax":
        return largest_share(graph, z, options["temperature"])
    is_open = graph.is_open(z)
    total = graph.reduce("ReduceSum", graph.op("Where", is_open, z, 0.0))
    count = graph.reduce("ReduceSum", graph.to_inner(is_open))
    mean = graph.op("Div", total, count)
    return graph.op("Sub", mean, graph.reduce("ReduceMax", z))


def _kl_matching(graph: Graph, rows: Rows, d: Document) -> str:
    with np.errstate(divide="ignore"):
        templates = np.maximum(np.log(np.asarray(d["parameters"]["templates"])), _FLOOR)
    p = graph.softmax(rows.logits)
    cross = graph.op("MatMul", p, np.ascontiguousarray(templates.T))
    least = graph.op("Neg", graph.reduce("ReduceMax", cross))
    return graph.op("Sub", least, entropy(graph, rows.logits, int(d["n_classes"])))


def _openmax(graph: Graph, rows: Rows, d: Document) -> str:
    p, k = d["parameters"], int(d["n_classes"])
    alpha = min(int(d["options"]["alpha"]), k)
    is_open = graph.is_open(rows.logits)
    above = graph.op("Where", is_open, rows.logits, np.inf)
    z = graph.op("Where", is_open, rows.logits, graph.reduce("ReduceMin", above))
    values, columns = graph.largest(z, alpha)
    numbers = np.arange(k)[None, :]
    shape, scale, start = (np.asarray(p[name]) for name in ("shape", "scale", "start"))
    is_known = np.isfinite(shape)
    tables = [
        graph.constant(np.where(is_known, column, filler)[:, None])
        for column, filler in ((shape, 1.0), (scale, 1.0), (start, 0.0))
    ]
    tables.append(graph.constant(is_known.astype(np.float64)[:, None]))
    means = graph.constant(np.asarray(p["means"]))
    revised, added = z, graph.op("Sub", graph.column(z, 0), graph.column(z, 0))
    for place in range(alpha):
        column = graph.column(columns, place)
        number = graph.op("Squeeze", column, np.array([1]))
        own = [graph.op("Gather", table, number, axis=0) for table in tables]
        gap = graph.op("Sub", z, graph.op("Gather", means, number, axis=0))
        length = graph.op("Sqrt", graph.reduce("ReduceSum", graph.op("Mul", gap, gap)))
        excess = graph.op("Sub", length, own[2])
        gap = graph.op("Add", excess, graph.op("Sub", _TRANSLATION, own[1]))
        reach = graph.op("Max", graph.op("Div", gap, own[1]), -1.0)
        power = graph.op("Exp", graph.op("Mul", graph.log1p(reach), own[0]))
        tail = graph.op("Sub", 1.0, graph.op("Exp", graph.op("Neg", power)))
        share = graph.op("Mul", graph.op("Mul", tail, own[3]), (alpha - place) / alpha)
        value = graph.column(values, place)
        kept = graph.op("Mul", value, graph.op("Sub", 1.0, share))
        added = graph.op("Add", added, graph.op("Sub", value, kept))
        is_here = graph.op("Equal", numbers, column)
        revised = graph.op("Where", is_here, kept, revised)
    every = graph.op("Concat", revised, added, axis=1)
    return graph.column(graph.softmax(every), k)


EXPORTS = {
    "max-softmax": DetectorExport(
        "-max softmax(z)", _MAX_SOFTMAX, _max_softmax, needs_double=False
    ),
    "temperature-softmax": DetectorExport(
        "-max softmax(z / T)",
        _TEMPERATURE_SOFTMAX,
        _temperature_softmax,
        needs_double=False,
    ),
    "gen": DetectorExport(
        "sum of p^gamma (1 - p)^gamma over the largest p = softmax(z)", _GEN, _gen
    ),
    "energy": DetectorExport(
        "-T log sum exp(z / T)", _ENERGY, _energy, needs_double=False
    ),
    "max-logit": DetectorExport("-max z", _MAX_LOGIT, _max_logit, needs_double=False),
    "entropy": DetectorExport("-sum p log p, p = softmax(z)", _ENTROPY, _entropy),
    "margin": DetectorExport(
        "second largest minus largest of softmax(z)",
        _MARGIN,
        _margin,
        needs_double=False,
    ),
    "z-loss": DetectorExport(
        "log(1 + exp((mean z - max z) / standard deviation of z))", _Z_LOSS, _z_loss
    ),
    "log-partition": DetectorExport(
        "(log sum exp z)^2", _LOG_PARTITION, _log_partition
    ),
    "odin": DetectorExport("mean z - max z, or -max softmax(z / T)", _ODIN, _odin),
    "kl-matching": DetectorExport(
        "least divergence of softmax(z) from the templates of the classes",
        _KL_MATCHING,
        _kl_matching,
    ),
    "openmax": DetectorExport(
        "probability of an added class after the top logits were lowered by the "
        "Weibull tails of their distances to class means",
        _OPENMAX,
        _openmax,
    ),
}
"""By id of the detector."""
