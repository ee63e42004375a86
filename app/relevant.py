"""Settings that are relevant to a result: all others are the default ones.

Caches are keyed by them, so that nothing is computed again for what it does not read.
"""

from __future__ import annotations

from core.analysis import UNCALIBRATED
from core.fitting import unusable_reason
from core.predictions import Study
from core.settings import Settings

__all__ = [
    "to_detections",
    "to_detector",
    "to_division",
    "to_first_page",
    "to_fit",
    "to_methods",
    "to_resamples",
    "to_scores",
]

_FITTING = ("split", "n_folds", "fit_fraction", "threshold_fraction", "seed")
_MEASURING = (
    *_FITTING,
    *("threshold_rule", "ood_tuning", "ood_validation"),
    *("level", "n_resamples", "near_sets", "far_sets"),
)


def to_fit(settings: Settings, method: str) -> Settings:
    """Return only what fitting a method reads, so that nothing else refits it."""
    own = tuple(item for item in settings.options if item[0] == method)
    kept = {name: getattr(settings, name) for name in _FITTING}
    return Settings(options=own, **kept)


def to_scores(settings: Settings) -> Settings:
    """Return the settings without the choice of calibrators."""
    return settings.replace(
        calibrators=(),
        baseline=UNCALIBRATED,
        method=UNCALIBRATED,
        options=(),
        temperature=None,
    )


def to_resamples(settings: Settings) -> Settings:
    """Return the settings without those that change neither rows nor resamples."""
    own = Settings()
    kept = {
        name: getattr(own, name) for name in ("n_bins", "strategy", "norm", "level")
    }
    return settings.replace(**kept)


def to_first_page(study: Study, settings: Settings) -> Settings:
    """Return the settings of the first page: temperature scaling, where it can be."""
    is_usable = unusable_reason(study, "temperature") is None
    return settings.replace(
        calibrators=("temperature",) if is_usable else (),
        baseline=UNCALIBRATED,
        method="temperature",
        temperature=None,
    )


def to_methods(settings: Settings) -> Settings:
    """Return the settings without what concerns neither the methods nor their rows."""
    return settings.replace(
        method=UNCALIBRATED, baseline=UNCALIBRATED, temperature=None
    )


def to_division(settings: Settings) -> Settings:
    """Return only what decides which rows detectors are fitted and tested on."""
    return _only(settings, _FITTING)


def to_detections(settings: Settings) -> Settings:
    """Return only what the numbers of detectors depend on."""
    return _only(settings, (*_MEASURING, "options"))


def to_detector(method: str, settings: Settings) -> str:
    """Return a detector by its id and options."""
    return f"{method} {sorted(settings.method_options(method).items())!r}"


def _only(settings: Settings, names: tuple[str, ...]) -> Settings:
    """Return settings that are the default ones but for some."""
    return Settings(**{name: getattr(settings, name) for name in names})
