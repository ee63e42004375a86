"""Who stands where: each compared calibrator with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.calibrators import CALIBRATORS
from core.comparison import RANKING_METRICS
from core.contrasts import Contrast, Flips, contrasts, flips, refit_changes
from core.fitting import Fitted, fit_source
from core.measurement import UNCALIBRATED
from core.messages import Note
from core.predictions import Study
from core.settings import Settings
from core.splitting import make_split
from core.uncertainty import Estimate

if TYPE_CHECKING:
    from core.analysis import Analysis

__all__ = ["Arrival", "Standing", "arrival_of", "standings"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a calibrator as soon as it is fitted.

    Parameters
    ----------
    nll : float
        Cross-validated mean NLL of the fit rows.
    seconds : float
        What one fit of all fit rows took.
    """

    nll: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One compared calibrator.

    Parameters
    ----------
    place : int
        By cross-validated NLL, from 1.
    method : str
        Id of the calibrator, or "uncalibrated".
    validated : mapping of str to Estimate
        "nll", "brier" and "ece" inside the fit rows, cross-validated.
    behind : Estimate
        Paired difference of that NLL to the best one's.
    tested : mapping of str to Estimate
        Metric id -> number on the test rows.
    contrasts : mapping of str to Contrast
        Metric id -> paired difference to the baseline on the test rows; empty for the
        baseline itself.
    flips : Flips
        Test rows whose predicted class differs from that of the scores as they are.
    refits : tuple of float or None
        Least and greatest change of the NLL from the baseline over refits; None where
        fit rows are many, or for the baseline.
    n_parameters : int
    seconds : float or None
        What one fit of all fit rows took.
    is_accuracy_preserving : bool
    notes : tuple of Note
    """

    place: int
    method: str
    validated: Mapping[str, Estimate]
    behind: Estimate
    tested: Mapping[str, Estimate]
    contrasts: Mapping[str, Contrast]
    flips: Flips
    refits: tuple[float, float] | None
    n_parameters: int
    seconds: float | None
    is_accuracy_preserving: bool
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "place": self.place,
            "method": self.method,
            "cross_validated": {k: e.to_dict() for k, e in self.validated.items()},
            "behind_best": self.behind.to_dict(),
            "tested": {k: e.to_dict() for k, e in self.tested.items()},
            "changes": {k: c.to_dict() for k, c in self.contrasts.items()},
            "n_changed_predictions": self.flips.changed,
            "n_gained": self.flips.gained,
            "n_lost": self.flips.lost,
            "nll_change_over_refits": None if self.refits is None else [*self.refits],
            "n_parameters": self.n_parameters,
            "fit_seconds": self.seconds,
            "keeps_predictions": self.is_accuracy_preserving,
            "notes": [note.to_dict() for note in self.notes],
        }

    def flat(self) -> dict[str, Any]:
        """Return everything as one line of a table."""
        line: dict[str, Any] = {"place": self.place, "method": self.method}
        for metric, found in self.validated.items():
            line |= _ends(f"cv_{metric}", found)
        line |= _ends("behind_best", self.behind)
        for metric, found in self.tested.items():
            line |= _ends(f"test_{metric}", found)
        for metric, item in self.contrasts.items():
            line |= _ends(f"change_{metric}", item.change)
            line[f"change_{metric}_p"] = item.p_value
            line[f"change_{metric}_p_holm"] = item.adjusted_p
        low, high = self.refits or (None, None)
        return line | {
            "n_changed_predictions": self.flips.changed,
            "n_gained": self.flips.gained,
            "n_lost": self.flips.lost,
            "refit_change_nll_min": low,
            "refit_change_nll_max": high,
            "n_parameters": self.n_parameters,
            "fit_seconds": self.seconds,
            "keeps_predictions": self.is_accuracy_preserving,
            "notes": " ".join(note.text for note in self.notes),
        }


def standings(
    analysis: Analysis, baseline: str = UNCALIBRATED, *, view: str = "top-label"
) -> tuple[Standing, ...]:
    """Return the compared calibrators, best first by cross-validated NLL.

    Parameters
    ----------
    analysis : Analysis
        With a comparison.
    baseline : str, default="uncalibrated"
        What the others are compared with on the test rows.
    view : {"top-label", "positive-class"}, default="top-label"

    Raises
    ------
    ValueError
        If nothing was compared.
    KeyError
        If the baseline was not compared.
    """
    compared, overview = analysis.comparison, analysis.overview
    if compared is None or overview.split is None:
        msg = "nothing was compared"
        raise ValueError(msg)
    found = contrasts(compared, baseline, view=view)
    before = overview.rows.take(overview.split.test)
    over_refits = refit_changes(compared, baseline)
    made = []
    for place, (method, nll, behind) in enumerate(compared.ranking, 1):
        fitted = analysis.fitted.get(method)
        entry = CALIBRATORS[method]
        n_parameters = entry.n_parameters(analysis.study.evaluation.n_classes)
        made.append(
            Standing(
                place=place,
                method=method,
                validated=_in_order(compared.validated.get(method, {"nll": nll})),
                behind=behind,
                tested=compared.views[view][method].estimates,
                contrasts={m: c[method] for m, c in found.items() if method in c},
                flips=flips(before, before if fitted is None else fitted.rows),
                refits=over_refits.get(method),
                n_parameters=fitted.calibrator.n_fitted_ if fitted else n_parameters,
                seconds=None if fitted is None else fitted.seconds,
                is_accuracy_preserving=(
                    entry.is_accuracy_preserving
                    if fitted is None
                    else fitted.calibrator.keeps_predictions
                ),
                notes=() if fitted is None else fitted.notes,
            )
        )
    return tuple(made)


def arrival_of(study: Study, settings: Settings, fitted: Fitted) -> Arrival:
    """Return what can be said of a calibrator before all are compared.

    Parameters
    ----------
    study : Study
    settings : Settings
        That it was fitted with.
    fitted : Fitted
    """
    split = make_split(study, settings)
    weight = fit_source(study, split).sample_weight()
    mass = None if weight is None else weight[split.fit]
    return Arrival(float(np.average(fitted.ranking, weights=mass)), fitted.seconds)


def _in_order(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {metric: found[metric] for metric in RANKING_METRICS if metric in found}


def _ends(name: str, item: Estimate) -> dict[str, Any]:
    found = {name: item.value, f"{name}_low": item.low, f"{name}_high": item.high}
    if item.null_low is not None:
        found |= {
            f"{name}_null_low": item.null_low,
            f"{name}_null_high": item.null_high,
            f"{name}_p": item.p_value,
        }
    return found
