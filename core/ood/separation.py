"""The numbers of two sets of scores, from counts in the order of the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LABELS", "TPR", "Separation", "separations"]

FloatArray = NDArray[np.floating[Any]]

TPR = 0.95
"""Share of the positives at which the false positives are counted."""
LABELS = {
    "auroc": "AUROC",
    "aupr_in": "AUPR, in-distribution positive",
    "aupr_out": "AUPR, OOD positive",
    "fpr95": "FPR at 95 % TPR, in-distribution positive",
    "fpr95_ood_positive": "FPR at 95 % TPR, OOD positive",
    "detection_accuracy": "Detection accuracy",
}
"""Names of the numbers as users read them."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """The numbers of b pairs of sets.

    Parameters
    ----------
    values : mapping of str to ndarray of shape (b,)
        By the keys of `LABELS`.
    """

    values: Mapping[str, FloatArray]

    @staticmethod
    def concatenate(parts: Sequence[Separation]) -> Separation:
        """Return several blocks of pairs, one after the other."""
        return Separation(
            {
                name: np.concatenate([part.values[name] for part in parts])
                for name in LABELS
            }
        )


def separations(inside: FloatArray, outside: FloatArray) -> Separation:
    """Return every number from counts of in-distribution and OOD rows.

    Parameters
    ----------
    inside, outside : ndarray of shape (b, m)
        Rows at each of m scores in ascending order.
    """
    n_id, n_ood = inside.sum(axis=1), outside.sum(axis=1)
    id_upto, ood_upto = inside.cumsum(axis=1), outside.cumsum(axis=1)
    id_from = n_id[:, None] - id_upto + inside
    ood_from = n_ood[:, None] - ood_upto + outside
    with np.errstate(invalid="ignore", divide="ignore"):
        precision_in = id_upto / (id_upto + ood_upto)
        precision_out = ood_from / (id_from + ood_from)
    wins = (outside * (id_upto - inside / 2)).sum(axis=1)
    right = id_upto / n_id[:, None] - ood_upto / n_ood[:, None]
    accepting = (id_upto < TPR * n_id[:, None] - _ROUNDING).sum(axis=1)
    # From above: the highest score from which on 95 % of the OOD rows are.
    rejecting = (ood_from >= TPR * n_ood[:, None] - _ROUNDING).sum(axis=1) - 1
    row = np.arange(len(inside))
    return Separation(
        {
            "auroc": wins / (n_id * n_ood),
            "aupr_in": (inside * np.nan_to_num(precision_in)).sum(axis=1) / n_id,
            "aupr_out": (outside * np.nan_to_num(precision_out)).sum(axis=1) / n_ood,
            "fpr95": ood_upto[row, accepting] / n_ood,
            "fpr95_ood_positive": id_from[row, rejecting] / n_id,
            "detection_accuracy": 0.5 + np.maximum(right.max(axis=1), 0) / 2,
        }
    )
