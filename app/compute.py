"""The only cached functions: a study and Settings lead to results of `core`.

Keys are a study, as its identity, and Settings. Every function takes `_progress`,
which is no part of the key, so that it can run inside a job (`app.jobs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import streamlit as st

from app import memory, relevant
from core.analysis import (
    UNCALIBRATED,
    Analysis,
    Comparison,
    Overview,
    ViewResult,
    analyze,
    measure,
    positive_index,
    preview_temperature,
)
from core.binning import BinStatistics
from core.calibrators import CALIBRATORS
from core.correctness import LossEffects, compare_losses
from core.decisions import Decisions
from core.decisions import decisions as decisions_of
from core.findings import Findings, find
from core.fitting import Fitted, fit_method
from core.loading import Schema, inspect_file, open_study
from core.messages import FitError, Progress, no_progress, part_of
from core.metrics import Curve
from core.metrics.presets import PeerNumber
from core.on_demand import measure_metrics, reliability_curves
from core.on_demand import peers as peers_of
from core.operating_points import OperatingPoints
from core.operating_points import operating_points as operating_points_of
from core.per_class import ClassGaps, ClassScores, scores_for
from core.per_class import class_bins as class_bins_of
from core.per_class import class_curve as class_curve_of
from core.per_class import class_gaps as class_gaps_of
from core.predictions import Study
from core.settings import Settings
from core.splitting import Split, make_split
from core.uncertainty import Estimate

if TYPE_CHECKING:
    from core.ood import Detection, OodRows, Scored

__all__ = [
    "SAMPLE",
    "SAMPLE_COPIES",
    "SAMPLE_REFERENCE",
    "SAMPLE_STRANGERS",
    "analysis",
    "class_bins",
    "class_curve",
    "class_gaps",
    "class_scores",
    "comparison",
    "curve",
    "decisions",
    "detections",
    "division",
    "division_problem",
    "findings",
    "fitted",
    "forget",
    "inspected",
    "losses",
    "more_metrics",
    "ood_rows",
    "operating_points",
    "overview",
    "peers",
    "positive_class",
    "preview",
    "role_sizes",
    "sample",
    "visit",
]

F = TypeVar("F", bound=Callable[..., Any])

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "digits_noisy.csv"
SAMPLE_COPIES = SAMPLE.with_name("digits_noisy_copies.npz")
SAMPLE_STRANGERS = SAMPLE.with_name("digits_ood.npz")
SAMPLE_REFERENCE = SAMPLE.with_name("digits_reference.npz")
_BY_CONTENT: dict[str | type[Any], Callable[[Any], Any]] = {
    "core.predictions.Study": attrgetter("identity"),
    "core.settings.Settings": methodcaller("to_json"),
}
_caches: list[Any] = []  # of sessions


def _kept(max_entries: int) -> Callable[[F], F]:
    """Return what keeps results of a session by the content of study and Settings."""
    keep = st.cache_resource(
        scope="session",
        max_entries=max_entries,
        show_spinner=False,
        hash_funcs=_BY_CONTENT,
    )

    def keep_results(function: F) -> F:
        found: Any = keep(function)
        _caches.append(found)
        return found

    return keep_results


@st.cache_resource(
    scope="session", max_entries=1, show_spinner=False, on_release=memory.left
)
def visit(session: str, _now: memory.Visit) -> memory.Visit:  # noqa: ARG001 - the key
    """Return the visit of a session; when its page is closed, all it holds goes."""
    return _now


@st.cache_resource(max_entries=1, show_spinner=False)
def sample() -> tuple[Study, Schema]:
    """Return the bundled sample: one read-only copy for all sessions."""
    return open_study(SAMPLE, Settings())


def division(study: Study, settings: Settings) -> Split | None:
    """Return how rows are divided, or None where they cannot be."""
    found = _division(study, relevant.to_fit(settings, ""))
    return found if isinstance(found, Split) else None


def role_sizes(study: Study, settings: Settings) -> dict[str, int]:
    """Return how many rows each role has in any round."""
    found = division(study, settings)
    if found is None:
        return {}
    threshold = np.concatenate([item.threshold for item in found.rounds])
    return {
        "Fit rows": int(found.fit.size),
        "Threshold rows": int(np.unique(threshold).size),
        "Test rows": int(found.test.size),
    }


def division_problem(study: Study, settings: Settings) -> FitError | None:
    """Return why rows cannot be divided, or None if they can."""
    found = _division(study, relevant.to_fit(settings, ""))
    return found if isinstance(found, FitError) else None


def inspected(
    paths: tuple[str, ...], names: tuple[str, ...], number: int, settings: Settings
) -> Schema:
    """Return what would be understood of files; `number` tells openings apart."""
    return _inspected(paths, names, number, settings)


def overview(
    study: Study, settings: Settings, progress: Progress = no_progress
) -> Overview:
    """Return the uncalibrated numbers and the verdict."""
    return _overview(study, relevant.to_scores(settings), progress)


def fitted(
    study: Study, settings: Settings, method: str, progress: Progress = no_progress
) -> Fitted:
    """Return a fitted calibrator; bins, levels and the like do not refit it."""
    method = CALIBRATORS[method].id
    return _fitted(study, relevant.to_fit(settings, method), method, progress)


def analysis(
    study: Study,
    settings: Settings,
    progress: Progress = no_progress,
    arrived: Callable[[str, Fitted | None], None] | None = None,
) -> Analysis:
    """Return everything for the chosen calibrators; `arrived` hears of each."""
    plain = settings.replace(temperature=None, baseline=UNCALIBRATED)
    return _analysis(study, plain, progress, arrived)


def comparison(
    study: Study,
    settings: Settings,
    methods: tuple[str, ...],
    progress: Progress = no_progress,
) -> Comparison | None:
    """Return some calibrators side by side, or None where nothing can be fitted."""
    return analysis(study, settings.replace(calibrators=methods), progress).comparison


def findings(
    study: Study, settings: Settings, progress: Progress = no_progress
) -> Findings | None:
    """Return what stands out before any repair: class, slice and rows."""
    return _findings(study, relevant.to_scores(settings), progress)


def class_scores(study: Study, settings: Settings, method: str) -> ClassScores:
    """Return the probabilities of every class, before a repair or after it.

    Both are of the test rows where `settings` has calibrators to compare.
    """
    first = overview(study, settings)
    if CALIBRATORS[method].id == UNCALIBRATED:
        is_compared = bool(_made(study, settings, method))
        return scores_for(study, first, is_compared=is_compared)
    own = relevant.to_fit(settings, method)
    return _class_scores(study, own, CALIBRATORS[method].id, first)


def class_bins(scores: ClassScores, column: int, settings: Settings) -> BinStatistics:
    """Return the bins of one class against the rest."""
    return class_bins_of(scores, column, settings)


def class_gaps(study: Study, settings: Settings, method: str) -> ClassGaps:
    """Return the gap of every class, before a repair or after it."""
    return _class_gaps(study, settings.replace(temperature=None), method)


def curve(
    study: Study,
    settings: Settings,
    method: str,
    view: str,
    kind: str,
    progress: Progress = no_progress,
) -> Curve:
    """Return a reliability curve, before a repair or after it."""
    return _curve(
        study,
        relevant.to_methods(settings),
        CALIBRATORS[method].id,
        view,
        kind,
        progress,
    )


def class_curve(
    study: Study,
    settings: Settings,
    method: str,
    column: int,
    kind: str,
    progress: Progress = no_progress,
) -> Curve:
    """Return the reliability curve of one class against the rest."""
    return _class_curve(
        study, relevant.to_methods(settings), method, column, kind, progress
    )


def more_metrics(
    study: Study,
    settings: Settings,
    method: str,
    view: str,
    names: tuple[str, ...],
    progress: Progress = no_progress,
) -> dict[str, Estimate]:
    """Return metrics on demand, before a repair or after it.

    As `evaluate --metrics` has them.
    """
    wanted = ",".join(names)
    method = CALIBRATORS[method].id
    return _more_metrics(
        study, relevant.to_methods(settings), method, view, wanted, progress
    )


def losses(
    study: Study, settings: Settings, progress: Progress = no_progress
) -> LossEffects:
    """Return what each loss of the correctness-aware calibrator does to test rows."""
    return _losses(study, settings, progress)


def decisions(study: Study, settings: Settings) -> Decisions:
    """Return what the scores as they are take for what."""
    return _decisions(study, relevant.to_scores(settings))


def operating_points(
    study: Study, settings: Settings, method: str, progress: Progress = no_progress
) -> OperatingPoints | FitError:
    """Return thresholds with their rates, or why there are none."""
    return _operating_points(
        study, relevant.to_methods(settings), CALIBRATORS[method].id, progress
    )


def peers(
    study: Study, settings: Settings, progress: Progress = no_progress
) -> tuple[PeerNumber, ...]:
    """Return what other libraries print; as `evaluate --peers` has it."""
    return _peers(study, relevant.to_scores(settings), progress)


def ood_rows(study: Study, settings: Settings) -> OodRows:
    """Return the rows by role; sets come and go without new copies of the others."""
    # Only one page needs detectors, and the first chart does not wait for them.
    from core.ood import with_sets

    alone = Study(study.evaluation, fit=study.fit, reference=study.reference)
    return with_sets(
        _ood_inside(alone, relevant.to_division(settings)), study, settings
    )


def detections(
    study: Study,
    settings: Settings,
    methods: tuple[str, ...],
    progress: Progress = no_progress,
) -> Iterator[Detection]:
    """Yield detectors on a study as they come; what was computed before comes first.

    Only the settings that numbers and options depend on count: a threshold is chosen
    by `core.ood.with_threshold`.
    """
    from core.ood import detect_in_turn

    asked = relevant.to_detections(settings)
    known = _ood_known(study, asked.replace(options=()))
    keys = {name: relevant.to_detector(name, settings) for name in methods}
    before = {name: known[key] for name, key in keys.items() if key in known}
    rows = ood_rows(study, settings)
    # Pages choose thresholds; only which rows are set aside for them matters here.
    asked = asked.replace(threshold_rule="tpr")
    for found in detect_in_turn(rows, asked, methods, progress, known=before):
        known.update({keys[name]: item for name, item in found.results.items()})
        yield found


def preview(study: Study, settings: Settings, temperature: float) -> ViewResult:
    """Return the test rows at a temperature set by hand, rounded to four digits."""
    return _preview(study, relevant.to_scores(settings), round(temperature, 4))


def _made(
    study: Study, settings: Settings, method: str, progress: Progress = no_progress
) -> dict[str, Fitted]:
    """Return what is compared: all of it is measured on the same rows."""
    found = {}
    names = dict.fromkeys(CALIBRATORS[m].id for m in (*settings.calibrators, method))
    for name in names:
        if name == UNCALIBRATED:
            continue
        try:
            found[name] = fitted(study, settings, name, part_of(progress, 0.0, 0.2))
        except FitError:
            if name == method:
                raise
    return found


def forget() -> None:
    """Drop everything that was computed for this session."""
    for cached in _caches:
        cached.clear()


def positive_class(found: Analysis) -> int:
    """Return the column of the class that the positive-class view speaks of."""
    return positive_index(found.study.evaluation, found.settings)


@_kept(max_entries=4)
def _division(study: Study, settings: Settings) -> Split | FitError:
    try:
        return make_split(study, settings)
    except FitError as error:
        return error


@_kept(max_entries=4)
def _inspected(
    paths: tuple[str, ...],
    names: tuple[str, ...],
    number: int,  # noqa: ARG001 - part of the key
    settings: Settings,
) -> Schema:
    return inspect_file(paths, settings=settings, name=names)


@_kept(max_entries=4)
def _before(study: Study, settings: Settings) -> dict[str, Any]:  # noqa: ARG001 - key
    """Return the last results but for bins and level, to go on from."""
    return {}


@_kept(max_entries=8)
def _overview(study: Study, settings: Settings, _progress: Progress) -> Overview:
    _progress(0.0, "Measuring the scores as they are")
    before = _before(study, relevant.to_resamples(settings))
    before["overview"] = measure(study, settings, _progress, before.get("overview"))
    found: Overview = before["overview"]
    return found


@_kept(max_entries=16)
def _fitted(
    study: Study, settings: Settings, method: str, _progress: Progress
) -> Fitted:
    return fit_method(study, settings, method, _progress)


@_kept(max_entries=8)
def _analysis(
    study: Study,
    settings: Settings,
    _progress: Progress,
    _arrived: Callable[[str, Fitted | None], None] | None,
) -> Analysis:
    before = _before(study, relevant.to_resamples(settings))
    hooks: dict[str, Any] = {"measured": overview, "fitted": fitted}
    hooks |= {"arrived": _arrived, "known": before.get("analysis")}
    before["analysis"] = analyze(study, settings, _progress, **hooks)
    found: Analysis = before["analysis"]
    return found


@_kept(max_entries=1)
def _class_scores(
    study: Study, settings: Settings, method: str, _first: Overview
) -> ClassScores:
    return scores_for(study, _first, fitted(study, settings, method))


@_kept(max_entries=8)
def _class_gaps(study: Study, settings: Settings, method: str) -> ClassGaps:
    return class_gaps_of(class_scores(study, settings, method), settings.level)


@_kept(max_entries=16)
def _curve(
    study: Study,
    settings: Settings,
    method: str,
    view: str,
    kind: str,
    _progress: Progress,
) -> Curve:
    made = _made(study, settings, method, _progress)
    part = part_of(_progress, 0.2 if made else 0.0, 1.0)
    found = reliability_curves(
        study,
        settings,
        overview(study, settings),
        made,
        part,
        kind=kind,
        view=view,
        method=method,
    )
    return found[view][method]


@_kept(max_entries=64)
def _class_curve(
    study: Study,
    settings: Settings,
    method: str,
    column: int,
    kind: str,
    _progress: Progress,
) -> Curve:
    scores = class_scores(study, settings, method)
    return class_curve_of(scores, column, settings, kind, _progress)


@_kept(max_entries=16)
def _more_metrics(
    study: Study,
    settings: Settings,
    method: str,
    view: str,
    names: str,
    _progress: Progress,
) -> dict[str, Estimate]:
    made = _made(study, settings, method, _progress)
    part = part_of(_progress, 0.2 if made else 0.0, 1.0)
    first = overview(study, settings)
    wanted = names.split(",")
    found = measure_metrics(
        study, settings, first, wanted, made, part, view=view, method=method
    )
    return found[view][method]


@_kept(max_entries=8)
def _operating_points(
    study: Study, settings: Settings, method: str, _progress: Progress
) -> OperatingPoints | FitError:
    made = _made(study, settings, method, _progress)
    first = overview(study, settings)
    _progress(0.2, "Choosing thresholds")
    try:
        return operating_points_of(study, settings, first, made.get(method))
    except FitError as error:
        return error


@_kept(max_entries=2)
def _decisions(study: Study, settings: Settings) -> Decisions:
    return decisions_of(study.evaluation, overview(study, settings), settings.level)


@_kept(max_entries=4)
def _losses(study: Study, settings: Settings, _progress: Progress) -> LossEffects:
    return compare_losses(study, settings, _progress)


@_kept(max_entries=4)
def _peers(
    study: Study, settings: Settings, _progress: Progress
) -> tuple[PeerNumber, ...]:
    return peers_of(study, settings, overview(study, settings), _progress)


@_kept(max_entries=4)
def _findings(study: Study, settings: Settings, _progress: Progress) -> Findings | None:
    return find(study, settings, overview(study, settings, _progress))


@_kept(max_entries=32)
def _preview(study: Study, settings: Settings, temperature: float) -> ViewResult:
    return preview_temperature(study, settings, overview(study, settings), temperature)


@_kept(max_entries=1)
def _ood_inside(study: Study, settings: Settings) -> OodRows:
    from core.ood import divide_inside

    return divide_inside(study, settings)


@_kept(max_entries=2)
def _ood_known(study: Study, settings: Settings) -> dict[str, Scored]:  # noqa: ARG001 - key
    """Return the detectors of a study by id and options: the jobs fill it."""
    return {}
