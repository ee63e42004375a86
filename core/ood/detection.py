"""Detectors on a study: fitted, scored, measured, with thresholds of their own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.decisions import proportion
from core.messages import DataError, FitError, Note, Progress, no_progress, part_of
from core.ood.base import DETECTORS, Detector, score_all
from core.ood.combined import default_panel
from core.ood.delong import compare_aurocs
from core.ood.division import OodRows, divide
from core.ood.evaluation import SetsEvaluation, evaluate_sets
from core.ood.thresholds import Threshold, binomial_share, choose_threshold
from core.predictions import Predictions, Study
from core.settings import Settings
from core.uncertainty import Estimate

__all__ = [
    "INSIDE",
    "Detection",
    "Scored",
    "SetScores",
    "detect",
    "detect_rows",
    "fit_detector",
    "measure_scores",
    "results_of",
    "study_reasons",
    "unusable_reasons",
    "with_threshold",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

INSIDE = "in-distribution"
"""Name of the in-distribution test rows among the OOD sets."""
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class SetScores:
    """The scores of one detector, by what the rows are for.

    Parameters
    ----------
    threshold, test : ndarray of shape (n,)
        In-distribution rows that set the threshold, and that are reported on.
    ood : mapping of str to ndarray
        OOD sets that are reported on.
    validation : ndarray or None
        OOD rows that were set aside.
    """

    threshold: FloatArray
    test: FloatArray
    ood: Mapping[str, FloatArray]
    validation: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What one detector makes of a study.

    Parameters
    ----------
    method : str
        Id of the detector.
    detector : Detector or None
        None for scores that were uploaded.
    scores : SetScores
    evaluation : SetsEvaluation or None
        None without an OOD set.
    threshold : Threshold
    rates : mapping of str to Estimate
        "in-distribution" and each OOD set -> share of its rows that is accepted.
    notes : tuple of Note
    """

    method: str
    detector: Detector | None
    scores: SetScores
    evaluation: SetsEvaluation | None
    threshold: Threshold
    rates: Mapping[str, Estimate]
    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the scores and the detector."""
        found = self.evaluation
        return {
            "method": self.method,
            "evaluation": None if found is None else found.to_dict(),
            "threshold": self.threshold.to_dict(),
            "accepted": {name: item.to_dict() for name, item in self.rates.items()},
            "notes": [note.to_dict() for note in self.notes],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """Several detectors on the same rows.

    Parameters
    ----------
    rows : OodRows
    results : mapping of str to Scored
        By id, in the order that was asked for.
    skipped : mapping of str to str
        Detectors that cannot be used here, with the reason.
    """

    rows: OodRows
    results: Mapping[str, Scored]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def against(
        self, baseline: str, *, level: float = 0.95
    ) -> dict[str, dict[str, Estimate]]:
        """Return method -> set -> how much its AUROC exceeds the baseline's, paired."""
        base, inside = self.results[baseline].scores, self.rows.test.group_codes()
        found: dict[str, dict[str, Estimate]] = {}
        for method, item in self.results.items():
            if method == baseline:
                continue
            found[method] = {
                name: compare_aurocs(
                    (item.scores.test, values),
                    (base.test, base.ood[name]),
                    level=level,
                    id_groups=inside,
                    ood_groups=self.rows.ood[name].group_codes(),
                )
                for name, values in item.scores.ood.items()
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = self.rows
        return {
            "sentence": rows.sentence,
            "n_reference": len(rows.reference),
            "n_threshold": len(rows.threshold),
            "n_test": len(rows.test),
            "n_ood": {name: len(item) for name, item in rows.ood.items()},
            "results": {name: item.to_dict() for name, item in self.results.items()},
            "skipped": dict(self.skipped),
            "notes": [note.to_dict() for note in rows.notes],
        }


def unusable_reasons(
    rows: OodRows, methods: Sequence[str] | None = None
) -> dict[str, str]:
    """Return why each detector that cannot be used on these rows cannot.

    Parameters
    ----------
    rows : OodRows
    methods : sequence of str, optional
        Ids; by default every detector.
    """
    has_head, found = rows.head is not None, {}
    for name in DETECTORS if methods is None else methods:
        target = DETECTORS[name].target
        reason = target.unusable_reason(_fit_rows(rows, name), has_head=has_head)
        for other in (rows.threshold, rows.test, *rows.ood.values()):
            reason = reason or target.unscorable_reason(other)
        if reason is not None:
            found[name] = reason
    return found


def study_reasons(study: Study) -> dict[str, str]:
    """Return why detectors cannot be used on a study, before its rows are divided.

    What is known of the rows by role only (too few of them, say) is not in it.
    """
    own, found = study.evaluation, {}
    for name in DETECTORS:
        target = DETECTORS[name].target
        fit = own if DETECTORS[name].fits_on == "held-out" else study.reference or own
        reason = target.unusable_reason(fit, has_head=study.head is not None)
        for other in (own, *study.ood.values()):
            reason = reason or target.unscorable_reason(other)
        if reason is not None:
            found[name] = reason
    return found


def fit_detector(
    rows: OodRows, settings: Settings, method: str, progress: Progress = no_progress
) -> Detector:
    """Fit one detector on the rows that are there for it, with its chosen options.

    Raises
    ------
    FitError
        If it cannot be fitted on them.
    """
    entry = DETECTORS[method]
    try:
        options = entry.validate(settings.method_options(entry.id))
    except ValueError as error:
        how = "Correct or remove the option."
        raise FitError(f"{error}.", "options", how) from error
    made: Detector = entry(**options)
    return made.fit(_fit_rows(rows, method), head=rows.head, progress=progress)


def detect(
    study: Study,
    settings: Settings,
    progress: Progress = no_progress,
    methods: Sequence[str] | None = None,
) -> Detection:
    """Fit detectors, score every set, choose thresholds and measure.

    Parameters
    ----------
    study : Study
    settings : Settings
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    methods : sequence of str, optional
        Ids; by default those of the settings, else the default panel. Those that the
        rows do not allow are skipped with the reason.

    Returns
    -------
    Detection
    """
    wanted = methods or settings.detectors or default_panel()
    return detect_rows(divide(study, settings), settings, wanted, progress)


def detect_rows(
    rows: OodRows,
    settings: Settings,
    methods: Sequence[str],
    progress: Progress = no_progress,
) -> Detection:
    """Return some detectors on rows that are divided already; as `detect`."""
    names = tuple(dict.fromkeys(DETECTORS[name].id for name in methods))
    skipped = unusable_reasons(rows, names)
    found = results_of(rows, settings, names, skipped, progress)
    return Detection(rows, {item.method: item for item in found}, skipped)


def results_of(
    rows: OodRows,
    settings: Settings,
    names: Sequence[str],
    skipped: dict[str, str],
    progress: Progress = no_progress,
) -> Iterator[Scored]:
    """Fit detectors and score every set together, then yield what each is worth.

    Parameters
    ----------
    rows : OodRows
    settings : Settings
    names : sequence of str
        Ids.
    skipped : dict of str to str
        Detectors that cannot be used, with the reason; the fits add to it.
    progress : callable, optional
    """
    made: dict[str, Detector] = {}
    usable = [name for name in names if name not in skipped]
    for number, name in enumerate(usable):
        report = part_of(
            progress, 0.5 * number / len(usable), 0.5 * (number + 1) / len(usable)
        )
        try:
            found = fit_detector(rows, settings, name, report)
            for own in (rows.threshold, rows.test, *rows.ood.values()):
                found.check_rows(own)
        except (FitError, DataError) as error:
            where = "" if error.where in ("", "options") else f"{error.where}: "
            skipped[name] = f"{where}{error.what}"
        else:
            made[name] = found
    scores = _scores_of(rows, made, settings, part_of(progress, 0.5, 0.7))
    for number, name in enumerate(made):
        start, stop = (0.7 + 0.3 * i / len(made) for i in (number, number + 1))
        yield measure_scores(
            name,
            scores[name],
            settings,
            rows=rows,
            detector=made[name],
            progress=part_of(progress, start, stop),
        )


def measure_scores(
    method: str,
    scores: SetScores,
    settings: Settings,
    *,
    rows: OodRows | None = None,
    detector: Detector | None = None,
    progress: Progress = no_progress,
) -> Scored:
    """Return what scores are worth: their numbers, a threshold and what it accepts.

    Parameters
    ----------
    method : str
    scores : SetScores
    settings : Settings
        The rule of the threshold, `level`, `n_resamples` and `seed`.
    rows : OodRows, optional
        For the groups of the rows; without it every row is independent.
    detector : Detector, optional
        That made the scores.
    progress : callable, optional
    """
    groups = _Groups(rows)
    threshold = _threshold_of(scores, groups, settings)
    evaluation = None
    if scores.ood:
        kinds = dict.fromkeys(settings.near_sets, "near")
        kinds |= dict.fromkeys(settings.far_sets, "far")
        evaluation = evaluate_sets(
            scores.test,
            scores.ood,
            level=settings.level,
            n_resamples=settings.n_resamples,
            seed=settings.seed,
            id_groups=groups.test,
            ood_groups=groups.ood,
            shifts=kinds,
            progress=progress,
        )
    rates = _rates_of(scores, threshold, groups, settings.level)
    notes = () if detector is None else tuple(detector.notes_)
    return Scored(method, detector, scores, evaluation, threshold, rates, notes)


def with_threshold(
    found: Scored, settings: Settings, rows: OodRows | None = None
) -> Scored:
    """Return the same scores with a threshold that other settings ask for.

    Parameters
    ----------
    found : Scored
    settings : Settings
        The rule of the threshold; that it needs rows set aside or not is part of how
        `rows` were divided.
    rows : OodRows, optional
        For the groups of the rows.
    """
    groups = _Groups(rows)
    threshold = _threshold_of(found.scores, groups, settings)
    rates = _rates_of(found.scores, threshold, groups, settings.level)
    return replace(found, threshold=threshold, rates=rates)


def _threshold_of(scores: SetScores, groups: _Groups, settings: Settings) -> Threshold:
    return choose_threshold(
        scores.threshold,
        scores.validation,
        rule=settings.threshold_rule,
        target=settings.threshold_target,
        cost=settings.miss_cost,
        ood_share=settings.ood_share,
        level=settings.level,
        is_grouped=groups.threshold is not None,
    )


def _rates_of(
    scores: SetScores, threshold: Threshold, groups: _Groups, level: float
) -> dict[str, Estimate]:
    return {
        name: _accepted(threshold.accepts(values), codes, level)
        for name, values, codes in (
            (INSIDE, scores.test, groups.test),
            *((n, v, groups.ood.get(n)) for n, v in scores.ood.items()),
        )
    }


class _Groups:
    """Groups of the rows by role; None where rows are independent."""

    def __init__(self, rows: OodRows | None) -> None:
        self.threshold = self.test = None
        self.ood: dict[str, IndexArray] = {}
        if rows is not None:
            self.threshold = rows.threshold.group_codes()
            self.test = rows.test.group_codes()
            codes = {name: item.group_codes() for name, item in rows.ood.items()}
            self.ood = {n: found for n, found in codes.items() if found is not None}


def _fit_rows(rows: OodRows, method: str) -> Predictions:
    is_apart = DETECTORS[method].fits_on == "held-out"
    return rows.held_out if is_apart else rows.reference


def _accepted(
    hits: NDArray[np.bool_], groups: IndexArray | None, level: float
) -> Estimate:
    if groups is None:
        return binomial_share(int(hits.sum()), hits.size, level=level)
    return proportion(hits, groups=groups, level=level, rows="test")


def _scores_of(
    rows: OodRows,
    made: Mapping[str, Detector],
    settings: Settings,
    progress: Progress,
) -> dict[str, SetScores]:
    """Score every set by all detectors at once, but for those that are cross-fitted."""
    tunable = [name for name, item in made.items() if item.is_tunable]
    is_tuned = settings.ood_tuning == "validation" and bool(rows.validation)
    for name in tunable if is_tuned else ():
        made[name].tune(*rows.validation.values())
    is_crossed = settings.ood_tuning == "cross-fit" and bool(rows.ood)
    crossed = tunable if is_crossed else []
    plain = {name: item for name, item in made.items() if name not in crossed}
    sets = [rows.threshold, rows.test, *rows.ood.values(), *rows.validation.values()]
    found: dict[str, SetScores] = {}
    parts = []
    for number, own in enumerate(sets):
        report = part_of(progress, number / len(sets), (number + 1) / len(sets))
        parts.append(score_all(plain, own, report))
    n = len(rows.ood)
    for name in plain:
        columns = [part[name] for part in parts]
        ood = dict(zip(rows.ood, columns[2 : 2 + n], strict=True))
        aside = np.concatenate(columns[2 + n :]) if columns[2 + n :] else None
        found[name] = SetScores(columns[0], columns[1], ood, aside)
    for name in crossed:
        found[name] = _cross_fitted(rows, made[name], settings)
    return {name: found[name] for name in made}


def _cross_fitted(rows: OodRows, detector: Detector, settings: Settings) -> SetScores:
    """Score each OOD row by weights that other OOD rows chose.

    In-distribution rows, which choose no weights, get the mean over the folds. The
    detector itself ends tuned on all OOD rows.
    """
    folds = {}
    for number, (name, own) in enumerate(rows.ood.items()):
        codes = own.group_codes()
        unit: NDArray[Any] = np.arange(len(own)) if codes is None else codes
        names, code = np.unique(unit, return_inverse=True)
        rng = np.random.default_rng([settings.seed, number])
        folds[name] = (rng.permutation(names.size) % _FOLDS)[code]
    threshold, test = np.zeros(len(rows.threshold)), np.zeros(len(rows.test))
    ood = {name: np.full(len(own), np.nan) for name, own in rows.ood.items()}
    for fold in range(_FOLDS):
        others = [
            own.take(np.flatnonzero(folds[name] != fold))
            for name, own in rows.ood.items()
            if (folds[name] != fold).any()
        ]
        made = copy(detector).tune(*others)
        threshold += made.score(rows.threshold) / _FOLDS
        test += made.score(rows.test) / _FOLDS
        for name, own in rows.ood.items():
            mine = np.flatnonzero(folds[name] == fold)
            if mine.size:
                ood[name][mine] = made.score(own.take(mine))
    detector.tune(*rows.ood.values())
    text = (
        f"Cross-fitted on the OOD sets: each of their rows was scored by weights that "
        f"the other {_FOLDS - 1} folds chose. It has met these kinds of rows before."
    )
    detector.notes_ = [*detector.notes_, Note("cross-fitted-on-ood", "warning", text)]
    validation = [detector.score(own) for own in rows.validation.values()]
    return SetScores(
        threshold, test, ood, np.concatenate(validation) if validation else None
    )
