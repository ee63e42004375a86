"""Rankings of several data sets or metrics: kept, read back, and put together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from core.consensus import (
    FEWEST_DATA_SETS,
    Consensus,
    CriticalDifference,
    consensus,
    critical_difference,
)
from core.messages import DataError

if TYPE_CHECKING:
    from core.analysis import Analysis
    from core.settings import Settings
    from core.standings import Standing

__all__ = [
    "RANKED_BY",
    "DataSetScores",
    "Overall",
    "comparison_document",
    "data_set_document",
    "put_together",
    "read_comparison",
    "scores_of",
]

RANKED_BY = ("nll", "brier", "ece")
"""Cross-validated metrics that calibrators can be ranked by; lower is better."""


@dataclass(frozen=True, slots=True)
class DataSetScores:
    """What calibrators reached on one data set.

    Parameters
    ----------
    name : str
        Of its file.
    fingerprint : str
        Tells data sets apart; empty where it is not known.
    scores : mapping of str to mapping of str to float
        Calibrator id -> metric -> cross-validated value.
    """

    name: str
    fingerprint: str
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Overall:
    """One order out of the rankings of data sets and metrics.

    Parameters
    ----------
    metrics : tuple of str
    data_sets : tuple of str
        Names of the data sets.
    columns : tuple of (str, str)
        (metric, data set) of each ranking.
    scores : mapping of str to tuple of float
        Calibrator id -> its value in each ranking.
    agreed : Consensus
    tested : CriticalDifference or None
        None over several metrics, or where data sets are too few.
    left_out : tuple of str
        Calibrators that some ranking lacks.
    """

    metrics: tuple[str, ...]
    data_sets: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    scores: Mapping[str, tuple[float, ...]]
    agreed: Consensus
    tested: CriticalDifference | None
    left_out: tuple[str, ...]

    @property
    def ranks(self) -> dict[str, tuple[float, ...]]:
        """Calibrator id -> its rank in each ranking, 1 for the best; ties share."""
        from scipy import stats

        values = np.array([self.scores[name] for name in self.agreed.order])
        found = stats.rankdata(values, axis=0)
        return {
            name: tuple(map(float, line))
            for name, line in zip(self.agreed.order, found, strict=True)
        }

    @property
    def agreement_sentence(self) -> str:
        """How far the rankings agree with the order, and how certain that is."""
        certain = "no majority is overruled"
        if not self.agreed.is_condorcet:
            certain = "majorities form a cycle"
        if not self.agreed.is_exact:
            certain += ", searched, not certain to be the optimum"
        words = (
            f"The order agrees with {self.agreed.agreement:.0%} of all pairwise "
            f"rankings; {certain}. Only ranks are compared: losses of different data "
            "sets or metrics have different scales."
        )
        if not math.isnan(self.agreed.stability):
            words += (
                " Without any one ranking it keeps a Kendall's tau of at least "
                f"{self.agreed.stability:.2f}."
            )
        return words

    @property
    def difference_sentence(self) -> str:
        """Which mean ranks cannot be told apart, or why that is not said."""
        if self.tested is not None:
            p = self.tested.p_value
            said = "< 0.001" if p < 0.001 else f"{p:.3f}"
            groups = "; ".join(", ".join(group) for group in self.tested.groups)
            return (
                f"Friedman p {said}; mean ranks that are closer than "
                f"{self.tested.distance:.2f} cannot be told apart (Nemenyi): "
                f"{groups or 'none'}."
            )
        if len(self.metrics) > 1:
            return (
                "No critical differences: metrics of the same rows are not "
                "independent rankings."
            )
        if len(self.data_sets) > 1:
            return f"Critical differences need at least {FEWEST_DATA_SETS} data sets."
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        tested = None if self.tested is None else self.tested.to_dict()
        return self.agreed.to_dict() | {
            "metrics": list(self.metrics),
            "n_data_sets": len(self.data_sets),
            "critical_difference": tested,
            "left_out": list(self.left_out),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one line per calibrator and ranking, in the order of the consensus."""
        ranks = self.ranks
        return pd.DataFrame(
            [
                {
                    "place": place,
                    "method": name,
                    "mean_rank": self.agreed.mean_rank[name],
                    "data_set": data_set,
                    "metric": metric,
                    "value": self.scores[name][column],
                    "rank": ranks[name][column],
                }
                for place, name in enumerate(self.agreed.order, 1)
                for column, (metric, data_set) in enumerate(self.columns)
            ]
        )


def put_together(
    sets: Sequence[DataSetScores], metrics: Sequence[str], level: float = 0.95
) -> Overall | None:
    """Return one order; None where there is one ranking, or no common calibrator.

    Parameters
    ----------
    sets : sequence of DataSetScores
        Of different data sets.
    metrics : sequence of str
        Of `RANKED_BY`.
    level : float, default=0.95
        Of critical differences.
    """
    columns = tuple((metric, item) for metric in metrics for item in sets)
    if len(columns) < 2:
        return None
    tables = [
        {
            method: values[metric]
            for method, values in item.scores.items()
            if metric in values and not math.isnan(values[metric])
        }
        for metric, item in columns
    ]
    everywhere = set(tables[0]).intersection(*tables[1:])
    names = sorted(everywhere)
    if not names:
        return None
    scores = [[table[name] for table in tables] for name in names]
    tested = None
    if len(metrics) == 1 and len(names) > 1:
        tested = critical_difference(names, scores, level)
    return Overall(
        metrics=tuple(metrics),
        data_sets=tuple(item.name for item in sets),
        columns=tuple((metric, item.name) for metric, item in columns),
        scores={name: tuple(line) for name, line in zip(names, scores, strict=True)},
        agreed=consensus(names, scores),
        tested=tested,
        left_out=tuple(sorted(set().union(*tables) - everywhere)),
    )


def scores_of(analysis: Analysis, found: Sequence[Standing]) -> DataSetScores:
    """Return what calibrators reached on the rows of an analysis."""
    return DataSetScores(
        analysis.study.evaluation.name,
        analysis.study.fingerprint,
        {
            item.method: {name: one.value for name, one in item.validated.items()}
            for item in found
        },
    )


def data_set_document(analysis: Analysis, found: Sequence[Standing]) -> dict[str, Any]:
    """Return a comparison on one data set as plain JSON values."""
    own, split = analysis.study.evaluation, analysis.overview.split
    assert split is not None  # noqa: S101 - something was compared
    return {
        "file": own.name,
        "fingerprint": analysis.study.fingerprint,
        "classes": list(own.classes),
        "split": split.sentence,
        "n_fit_rows": int(split.fit.size),
        "n_test_rows": int(split.test.size),
        "test_rows": split.rows,
        "methods": [item.to_dict() for item in found],
        "notes": [note.to_dict() for note in analysis.notes],
    }


def comparison_document(
    settings: Settings, data_sets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return comparisons on data sets as one document (see `read_comparison`)."""
    return {
        "settings": settings.to_dict(),
        "baseline": settings.baseline,
        "data_sets": list(data_sets),
    }


def read_comparison(
    text: str | bytes, where: str = "comparison"
) -> tuple[DataSetScores, ...]:
    """Return what the JSON file of a comparison holds of each data set.

    Raises
    ------
    DataError
        For any other file.
    """
    try:
        found = tuple(map(_read_set, json.loads(text)["data_sets"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        found = ()
    if not any(item.scores for item in found):
        raise DataError(
            "This JSON file does not hold a comparison of calibrators.",
            where,
            "Give the comparison.json that `python -m app compare` or the Calibrators "
            "page wrote.",
        )
    return found


def _read_set(document: Mapping[str, Any]) -> DataSetScores:
    scores = {}
    for item in document["methods"]:
        values = {
            str(metric): float(entry["value"])
            for metric, entry in item["cross_validated"].items()
            if metric in RANKED_BY and entry["value"] is not None
        }
        scores[str(item["method"])] = values
    return DataSetScores(
        str(document["file"]), str(document.get("fingerprint", "")), scores
    )
