"""Several detectors as one score: mean ranks, and a logistic combination."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.messages import FitError, Note, Progress, part_of
from core.ood.base import DETECTORS, Detector
from core.ood.rows import Rows
from core.ood.weights import TUNED, UNTUNED, WeightedSum, held_out_fifth
from core.predictions import Predictions

__all__ = ["Combination", "LogisticCombination", "RankAverage", "default_panel"]

FloatArray = NDArray[np.floating[Any]]


def default_panel() -> tuple[str, ...]:
    """Return the detectors that are offered at once."""
    return tuple(name for name, m in DETECTORS.items() if m.tier == "default")


class Combination(Detector):
    """Base of detectors that are made of others.

    Parameters
    ----------
    members : tuple of str, default=()
        Ids of the detectors; by default those of the panel that the rows allow.

    Attributes
    ----------
    members_ : dict of str to Detector
        Fitted on all reference rows.
    """

    accepts = frozenset({"features", "labels", "head"})
    requires = frozenset()
    assumes = "No single score is the best on every set; what they miss differs."

    members_: dict[str, Detector]

    def __init__(self, *, members: tuple[str, ...] = ()) -> None:
        self.members = members

    @abstractmethod
    def _combine(self, scores: FloatArray) -> FloatArray:
        """Return one score for each row of scores of shape (n, m)."""

    @abstractmethod
    def _learn(self, scores: FloatArray) -> None:
        """Learn from scores of in-distribution rows that fitted no member."""

    def _fit(self, rows: Rows, progress: Progress) -> None:
        names = self._usable_members(rows.own)
        held = held_out_fifth(rows)
        fit, apart = (rows, rows) if held is None else held
        self.members_ = self._fitted(names, fit, part_of(progress, 0, 0.5))
        self._learn(self._scores(apart))
        if held is None:
            text = (
                "Too few rows to hold some out: members are compared on the rows that "
                "fitted them."
            )
            self.notes_.append(Note("members-in-sample", "warning", text))
        else:
            self.members_ = self._fitted(names, rows, part_of(progress, 0.5, 1))
        shown = ", ".join(DETECTORS[name].label for name in names)
        text = f"Made of {len(names)} scores: {shown}."
        self.notes_.append(Note("members", "info", text))
        for name, member in self.members_.items():
            self.notes_ += [
                Note(note.code, note.severity, f"{DETECTORS[name].label}: {note.text}")
                for note in member.notes_
                if note.severity != "info"
            ]

    def _usable_members(self, own: Predictions) -> tuple[str, ...]:
        has_head = self.head_ is not None
        names = tuple(DETECTORS[name].id for name in self.members or default_panel())
        usable = tuple(
            name
            for name in names
            if DETECTORS[name].target.unusable_reason(own, has_head=has_head) is None
        )
        missing = [name for name in names if name not in usable]
        if not usable or (self.members and missing):
            raise FitError(
                f"These scores cannot be used: {', '.join(missing)}.",
                own.name,
                "Give what they need, or name other members.",
            )
        return usable

    def _fitted(
        self, names: tuple[str, ...], rows: Rows, progress: Progress
    ) -> dict[str, Detector]:
        found, n = {}, len(names)
        for number, name in enumerate(names):
            report = part_of(progress, number / n, (number + 1) / n)
            found[name] = DETECTORS[name]().fit_rows(rows, self.head_, report)
        return found

    def _block_scores(self, block: Rows) -> FloatArray:
        return np.column_stack([m._score(block) for m in self.members_.values()])

    def _scores(self, rows: Rows) -> FloatArray:
        """Return the scores of every member for any number of rows, shape (n, m)."""
        return np.concatenate([self._block_scores(block) for block in rows.blocks()])

    def check_rows(self, p: Predictions) -> None:
        """Refuse rows that a member cannot read."""
        super().check_rows(p)
        for member in self.members_.values():
            member.check_rows(p)

    def _score(self, rows: Rows) -> FloatArray:
        return self._combine(self._block_scores(rows))

    def _state(self) -> dict[str, Any]:
        return {"members": [member.to_dict() for member in self.members_.values()]}

    def _restore(self, state: Mapping[str, Any]) -> None:
        made = [Detector.from_dict(item) for item in state["members"]]
        self.members_ = {item.method_id: item for item in made}


@DETECTORS.register(
    "rank-average",
    label="Rank average",
    reference="-",
    formula=r"\frac1m \sum_j \hat F_j(s_j)",
    tier="more",
)
class RankAverage(Combination):
    """Mean rank of several scores among in-distribution rows.

    Parameters
    ----------
    members : tuple of str, default=()
        Ids of the detectors; by default those of the panel that the rows allow.

    Notes
    -----
    The rank of a score is the share of held-out in-distribution rows below it: a
    fifth of the reference rows, which members fitted on the others have scored. Rows
    beyond all of them rank alike.
    """

    ordered_: FloatArray

    def _learn(self, scores: FloatArray) -> None:
        self.ordered_ = np.sort(scores, axis=0)

    def _combine(self, scores: FloatArray) -> FloatArray:
        n = len(self.ordered_)
        total = np.zeros(len(scores))
        for own, values in zip(self.ordered_.T, scores.T, strict=True):
            below = np.searchsorted(own, values, side="left")
            upto = np.searchsorted(own, values, side="right")
            total += ((below + upto) / 2 + 0.5) / (n + 1)
        return np.asarray(total / scores.shape[1])

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"ordered": self.ordered_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        ordered = np.asarray(state["ordered"], dtype=np.float64)
        self.ordered_ = ordered.reshape(-1, len(self.members_))


@DETECTORS.register(
    "logistic-combination",
    label="Logistic combination",
    reference="after Lee et al. 2018, arXiv:1807.03888",
    formula=r"\sum_j w_j (s_j - \mu_j) / \sigma_j",
    tier="more",
)
class LogisticCombination(Combination):
    """Weighted sum of several scores; OOD rows choose the weights where there are any.

    Parameters
    ----------
    members : tuple of str, default=()
        Ids of the detectors; by default those of the panel that the rows allow.

    Notes
    -----
    Without out-of-distribution rows (`tune`) the standardised scores count alike.
    """

    is_tunable = True

    weights_: WeightedSum

    def _learn(self, scores: FloatArray) -> None:
        self.weights_ = WeightedSum.untuned(tuple(self.members_), scores)
        self.notes_.append(self.weights_.note)

    def tune(self, *ood: Predictions) -> Self:
        """Weigh the members by logistic regression against rows known to be OOD.

        Parameters
        ----------
        *ood : Predictions
            Sets of out-of-distribution rows that are not reported on.
        """
        for rows in ood:
            self.check_rows(rows)
        scores = np.concatenate([self._scores(Rows(rows)) for rows in ood])
        self.weights_ = self.weights_.tuned(scores)
        kept = [n for n in self.notes_ if n.code not in (TUNED, UNTUNED)]
        self.notes_ = [*kept, self.weights_.note]
        return self

    def _combine(self, scores: FloatArray) -> FloatArray:
        return self.weights_.combine(scores)

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"weights": self.weights_.to_dict()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        self.weights_ = WeightedSum.from_dict(state["weights"])
