"""Exports of detectors that are made of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from core.export.detectors.base import DetectorExport, Document, FloatArray, Rows
from core.export.detectors.parts import weighted

if TYPE_CHECKING:
    from core.export.graphs import Graph

__all__ = ["combined"]

_RANK_AVERAGE = '''

def rank_average(rows, d):
    """Mean rank of the members among in-distribution rows."""
    scores, total = member_scores(rows, d), 0
    for own, values in zip(d["parameters"]["ordered"].T, scores.T):
        below = np.searchsorted(own, values, side="left")
        upto = np.searchsorted(own, values, side="right")
        total = total + ((below + upto) / 2 + 0.5) / (len(own) + 1)
    return total / scores.shape[1]
'''

_LOGISTIC = '''

def logistic_combination(rows, d):
    """Weighted sum of the standardised scores of the members."""
    return weighted(member_scores(rows, d), d["parameters"]["weights"])
'''


def combined(every: Mapping[str, DetectorExport]) -> dict[str, DetectorExport]:
    """Return the entries of combinations, whose members are found in `every`."""

    def members(graph: Graph, rows: Rows, d: Document) -> list[str]:
        return [
            every[member["method"]].write(graph, rows, member)
            for member in d["parameters"]["members"]
        ]

    def rank_average(graph: Graph, rows: Rows, d: Document) -> str:
        ordered: FloatArray = np.asarray(d["parameters"]["ordered"])
        columns, total = members(graph, rows, d), ""
        for place, values in enumerate(columns):
            rank = _rank(graph, values, ordered[:, place])
            total = graph.op("Add", total, rank) if total else rank
        return graph.op("Div", total, float(len(columns)))

    def logistic_combination(graph: Graph, rows: Rows, d: Document) -> str:
        scores = graph.op("Concat", *members(graph, rows, d), axis=1)
        return weighted(graph, scores, d["parameters"]["weights"])

    return {
        "rank-average": DetectorExport(
            "mean rank of the members among in-distribution rows",
            _RANK_AVERAGE,
            rank_average,
        ),
        "logistic-combination": DetectorExport(
            "weighted sum of the standardised scores of the members",
            _LOGISTIC,
            logistic_combination,
        ),
    }


def _rank(graph: Graph, values: str, ordered: FloatArray) -> str:
    """Return the mean rank of values (N, 1) among numbers, between 0 and 1."""
    below = _count(graph, values, ordered, "Greater")
    upto = _count(graph, values, ordered, "GreaterOrEqual")
    middle = graph.op("Div", graph.op("Add", below, upto), 2.0)
    return graph.op("Div", graph.op("Add", middle, 0.5), float(len(ordered) + 1))


def _count(graph: Graph, values: str, ordered: FloatArray, how: str) -> str:
    """Return how many numbers a comparison finds below values (N, 1), by halving."""
    n = len(ordered)
    table = graph.constant(np.append(-np.inf, ordered))
    at = graph.op("ArgMax", values, axis=1, keepdims=1)  # zeros
    for power in reversed(range(n.bit_length())):
        ahead = graph.op("Add", at, np.array([[1 << power]]))
        probe = graph.op("Min", ahead, np.array([[n]]))
        is_there = graph.op(how, values, graph.op("Gather", table, probe))
        at = graph.op("Where", is_there, probe, at)
    return graph.to_inner(at)
