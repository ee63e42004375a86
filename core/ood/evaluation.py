"""How well a score tells two sets of rows apart, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import Note, Progress, no_progress
from core.ood.delong import AurocParts, auroc_estimate, checked_scores
from core.ood.resampling import Basis, binned, draws_of
from core.ood.separation import LABELS, separations
from core.uncertainty import Estimate

__all__ = [
    "GROUPS",
    "OodEvaluation",
    "SetsEvaluation",
    "evaluate_ood",
    "evaluate_sets",
    "shift_of",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

GROUPS = ("near", "far")
"""Kinds of shift that sets are averaged over, by the first word of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class OodEvaluation:
    """What a score does on one out-of-distribution set.

    In-distribution rows are the positives where nothing else is said.

    Parameters
    ----------
    auroc : Estimate
        Chance that an OOD row has the larger score; ties count half.
    aupr_in, aupr_out : Estimate
        Average precision with in-distribution, or OOD, rows as positives. They depend
        on `prevalence`.
    fpr95 : Estimate
        Share of OOD rows that are accepted where 95 % of in-distribution rows are
        (in-distribution as positives: the papers' convention).
    fpr95_ood_positive : Estimate
        Share of in-distribution rows that are rejected where 95 % of OOD rows are (OOD
        as positives: OpenOOD and pytorch-ood).
    detection_accuracy : Estimate
        Mean of the shares treated rightly at the best threshold.
    n_id, n_ood : int
    notes : tuple of Note
    """

    auroc: Estimate
    aupr_in: Estimate
    aupr_out: Estimate
    fpr95: Estimate
    fpr95_ood_positive: Estimate
    detection_accuracy: Estimate
    n_id: int
    n_ood: int
    notes: tuple[Note, ...] = ()

    @property
    def prevalence(self) -> float:
        """Share of OOD rows: what an uninformative score has as AUPR-out."""
        return self.n_ood / (self.n_id + self.n_ood)

    @property
    def is_below_chance(self) -> bool:
        """Whether OOD rows have the lower scores: the AUROC is under 0.5."""
        return self.auroc.value < 0.5

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The six numbers by name."""
        return {name: getattr(self, name) for name in LABELS}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **{name: item.to_dict() for name, item in self.estimates.items()},
            "n_id": self.n_id,
            "n_ood": self.n_ood,
            "prevalence": self.prevalence,
            "notes": [note.to_dict() for note in self.notes],
        }


@dataclass(frozen=True, slots=True, eq=False)
class SetsEvaluation:
    """What a score does on several OOD sets against the same in-distribution rows.

    Parameters
    ----------
    sets : mapping of str to OodEvaluation
    means : mapping of str to mapping of str to Estimate
        "near", "far" (where sets are called so) and "all" -> name of a number -> its
        mean over these sets, every set counting alike.
    members : mapping of str to tuple of str
        The sets of each mean.
    """

    sets: Mapping[str, OodEvaluation]
    means: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "sets": {name: item.to_dict() for name, item in self.sets.items()},
            "means": {
                name: {key: item.to_dict() for key, item in found.items()}
                for name, found in self.means.items()
            },
            "members": {name: list(found) for name, found in self.members.items()},
        }


def evaluate_ood(
    score_id: ArrayLike,
    score_ood: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    id_groups: IndexArray | None = None,
    ood_groups: IndexArray | None = None,
    rows: str = "test",
) -> OodEvaluation:
    """Return AUROC, AUPR, FPR at 95 % TPR and detection accuracy with intervals.

    Parameters
    ----------
    score_id, score_ood : array-like of shape (n,) and (m,)
        Larger = more out-of-distribution. Infinite scores are ranks like any other.
    level : float, default=0.95
        Of the intervals.
    n_resamples, seed : int
        Of the bootstrap.
    id_groups, ood_groups : ndarray of int, optional
        Rows that belong together; they widen the intervals.
    rows : str, default="test"
        What the rows are, seen from the fit.

    Returns
    -------
    OodEvaluation

    Raises
    ------
    DataError
        If a set is empty or a score is NaN.

    Notes
    -----
    The AUROC has DeLong's interval [1]_ on the logit scale, by group where groups are
    given; where the sets do not overlap, an exact bound from the smaller set. The
    other intervals come from a Bayesian bootstrap inside each set [2]_; scores are put
    into at most 1,024 bins of equal counts for it, values are exact.

    References
    ----------
    .. [1] DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44.
    .. [2] Rubin (1981), The Annals of Statistics 9.

    Examples
    --------
    >>> found = evaluate_ood([0.1, 0.2, 0.3, 0.4], [0.35, 0.9])
    >>> found.auroc.value, found.fpr95.value
    (0.875, 0.5)
    """
    groups = {} if ood_groups is None else {"": ood_groups}
    found = evaluate_sets(
        score_id,
        {"": score_ood},
        level=level,
        n_resamples=n_resamples,
        seed=seed,
        id_groups=id_groups,
        ood_groups=groups,
        rows=rows,
    )
    return found.sets[""]


def evaluate_sets(
    score_id: ArrayLike,
    score_ood: Mapping[str, ArrayLike],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    id_groups: IndexArray | None = None,
    ood_groups: Mapping[str, IndexArray] | None = None,
    shifts: Mapping[str, str] | None = None,
    rows: str = "test",
    progress: Progress = no_progress,
) -> SetsEvaluation:
    """Return what a score does on each OOD set, and means over near and far ones.

    Parameters
    ----------
    score_id : array-like of shape (n,)
    score_ood : mapping of str to array-like
        Name of the set -> its scores.
    level, n_resamples, seed, id_groups, rows
        As in `evaluate_ood`.
    ood_groups : mapping of str to ndarray of int, optional
    shifts : mapping of str to {"near", "far", ""}, optional
        Kind of shift of each set; by default by its name (`shift_of`).
    progress : callable, optional
    """
    inside = checked_scores(score_id, "in-distribution")
    outside = {name: checked_scores(v, name or "OOD") for name, v in score_ood.items()}
    clusters = ood_groups or {}
    parts = {name: AurocParts.of(inside, v) for name, v in outside.items()}
    exact = {name: separations(*binned(inside, v)) for name, v in outside.items()}
    draws = draws_of(inside, outside, n_resamples, seed, id_groups, clusters, progress)

    def numbers(names: tuple[str, ...]) -> dict[str, Estimate]:
        sizes = [outside[name].size for name in names]
        groups = [clusters.get(name) for name in names]
        basis = Basis(
            level=level,
            n=inside.size + sum(sizes),
            rows=rows,
            n_resamples=n_resamples,
            seed=seed,
            by_group=id_groups is not None or any(g is not None for g in groups),
            has_interval=min(inside.size, *sizes) > 1,
        )
        found = {
            "auroc": auroc_estimate([parts[n] for n in names], basis, id_groups, groups)
        }
        for key in LABELS:
            if key not in found:
                value = np.mean([exact[name].values[key][0] for name in names])
                drawn = np.mean([draws[name].values[key] for name in names], axis=0)
                found[key] = basis.estimate(float(value), drawn)
        return found

    sets = {}
    for name, values in outside.items():
        made = numbers((name,))
        sets[name] = OodEvaluation(
            **made,
            n_id=inside.size,
            n_ood=values.size,
            notes=_notes(made["auroc"], values.size),
        )
    members = _members(tuple(outside), shifts)
    means = {group: numbers(names) for group, names in members.items()}
    return SetsEvaluation(sets, means, members)


def shift_of(name: str) -> str:
    """Return "near" or "far" where the name of a set starts with the word, else "".

    Examples
    --------
    >>> shift_of("near_cifar100"), shift_of("far: svhn"), shift_of("nearby")
    ('near', 'far', '')
    """
    for group in GROUPS:
        rest = name.lower().removeprefix(group)
        if rest != name.lower() and (not rest or not rest[0].isalnum()):
            return group
    return ""


def _notes(auroc: Estimate, n_ood: int) -> tuple[Note, ...]:
    notes = []
    if auroc.value < 0.5:
        text = (
            f"AUROC {auroc.value:.3f} is under 0.5: OOD rows have the lower scores. "
            "The score is reported as it is, not turned round."
        )
        notes.append(Note("below-chance", "warning", text))
    if n_ood == 1:
        text = "The set has one row: its numbers have no interval."
        notes.append(Note("one-ood-row", "warning", text))
    return tuple(notes)


def _members(
    names: tuple[str, ...], shifts: Mapping[str, str] | None
) -> dict[str, tuple[str, ...]]:
    """Return the sets of each mean; none for a single set."""
    if len(names) < 2:
        return {}
    shifts = shifts or {}
    kind = {name: shifts.get(name, shift_of(name)) for name in names}
    groups = {
        group: tuple(name for name in names if kind[name] == group) for group in GROUPS
    }
    return {group: found for group, found in groups.items() if found} | {"all": names}
