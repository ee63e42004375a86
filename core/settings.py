"""Settings: everything that a session chose, in one frozen value."""

from __future__ import annotations

import json
import math
import numbers
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from core.messages import DataError

__all__ = ["CHOICES", "LIMITS", "SESSION_FORMAT", "Settings"]

SESSION_FORMAT = "plumbline-session"
SESSION_VERSION = 1

CHOICES = {
    "input_kind": ("auto", "logits", "probabilities", "confidence"),
    "invalid_rows": ("refuse", "leave-out"),
    "renormalise": ("ask", "yes"),
    "label_base": ("auto", "0", "1"),
    "split": ("auto", "file", "cross-fit", "holdout", "time"),
    "strategy": ("uniform", "quantile"),
    "norm": ("l1", "l2", "max"),
    "threshold_rule": ("tpr", "fpr", "cost"),
    "ood_tuning": ("none", "validation", "cross-fit"),
}
LIMITS: dict[str, tuple[float, float]] = {
    "n_folds": (2, 50),
    "fit_fraction": (0.05, 0.95),
    "threshold_fraction": (0.0, 0.9),
    "n_bins": (1, 1000),
    "level": (0.5, 0.999),
    "n_resamples": (100, 20_000),
    "seed": (0, 2**32 - 1),
    "temperature": (1e-3, 1e3),
    "threshold_target": (0.0, 1.0),
    "miss_cost": (1e-6, 1e6),
    "ood_share": (0.0, 1.0),
    "ood_validation": (0.05, 0.9),
}
_WHOLE = ("n_folds", "n_bins", "n_resamples", "seed")
_TUPLES = (
    *("score_columns", "slice_columns", "calibrators"),
    *("detectors", "near_sets", "far_sets"),
)
_COLUMNS = (
    "label_column",
    "id_column",
    "group_column",
    "weight_column",
    "time_column",
    "split_column",
    "ood_column",
    "dataset_column",
    "positive_class",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a session chose: widgets, session file and flags fill the same one.

    Column fields: ``None`` takes what `core.loading.inspect_file` found, an empty
    string says "no such column", any other string names the column.

    Parameters
    ----------
    input_kind : {"auto", "logits", "probabilities", "confidence"}, default="auto"
        What the scores are.
    label_column, id_column, group_column, weight_column, time_column, split_column
        Roles of columns.
    ood_column : str or None, default=None
        Column that marks out-of-distribution rows (1, true or yes).
    dataset_column : str or None, default=None
        Column that names the set of each out-of-distribution row.
    score_columns : tuple of str, default=()
        Score columns in class order; empty for those that were found.
    slice_columns : tuple of str or None, default=None
        Columns to slice by.
    positive_class : str or None, default=None
        Class that binary results speak of; the second class by default.
    invalid_rows : {"refuse", "leave-out"}, default="refuse"
        What happens to rows with missing or unreadable scores.
    renormalise : {"ask", "yes"}, default="ask"
        Whether rows of probabilities that do not sum to 1 may be rescaled.
    label_base : {"auto", "0", "1"}, default="auto"
        Number of the first class, where labels are numbers; "auto" takes the names of
        the classes first, then 0.
    split : {"auto", "file", "cross-fit", "holdout", "time"}, default="auto"
        How rows get their roles; "auto" takes the split column or cross-fits.
    n_folds : int, default=5
        Folds of cross-fitting.
    fit_fraction, threshold_fraction : float, defaults 0.5 and 0.0
        Shares of the fit and threshold rows of a holdout or a split by time.
    n_bins : int, default=15
        Bins of reliability diagrams and of the expected calibration error.
    strategy : {"uniform", "quantile"}, default="uniform"
        Equal widths or equal counts.
    norm : {"l1", "l2", "max"}, default="l1"
        Norm of the expected calibration error.
    level : float, default=0.95
        Level of every interval.
    n_resamples : int, default=1000
        Resamples of the bootstrap and of the null simulation.
    seed : int, default=0
        Seed of folds and of resampling.
    calibrators : tuple of str, default=("temperature",)
        Calibrators to fit and to compare with the uncalibrated scores.
    baseline : str, default="uncalibrated"
        What compared calibrators are set against: one of them, or "uncalibrated".
    method : str, default="temperature"
        The calibrator that the report shows and the export writes.
    options : tuple of (method, name, value), default=()
        Options of methods that differ from their defaults.
    temperature : float or None, default=None
        A temperature set by hand; results with it are badged "tuned on test".
    detectors : tuple of str, default=()
        Out-of-distribution detectors to compare; none for the default panel.
    detector : str, default="max-softmax"
        The detector that is exported.
    threshold_rule : {"tpr", "fpr", "cost"}, default="tpr"
        What a threshold is chosen for: a share of accepted in-distribution rows, a
        share of accepted out-of-distribution rows, or the least cost.
    threshold_target : float, default=0.95
        That share.
    miss_cost : float, default=1
        Cost of an accepted out-of-distribution row; a rejected in-distribution row
        costs 1.
    ood_share : float, default=0.1
        Share of out-of-distribution rows to expect where costs are weighed.
    ood_tuning : {"none", "validation", "cross-fit"}, default="none"
        Whether out-of-distribution rows may tune what has weights to tune: not at all,
        rows that are set aside, or every row for the others.
    ood_validation : float, default=0.2
        Share of each out-of-distribution set that is set aside where it is needed.
    near_sets, far_sets : tuple of str, default=()
        Sets that are averaged as near and as far ones; by default those whose names
        start with near or far.

    Raises
    ------
    DataError
        If a value is outside its limits.
    """

    input_kind: str = "auto"
    label_column: str | None = None
    score_columns: tuple[str, ...] = ()
    id_column: str | None = None
    group_column: str | None = None
    weight_column: str | None = None
    time_column: str | None = None
    split_column: str | None = None
    ood_column: str | None = None
    dataset_column: str | None = None
    slice_columns: tuple[str, ...] | None = None
    positive_class: str | None = None
    invalid_rows: str = "refuse"
    renormalise: str = "ask"
    label_base: str = "auto"
    split: str = "auto"
    n_folds: int = 5
    fit_fraction: float = 0.5
    threshold_fraction: float = 0.0
    n_bins: int = 15
    strategy: str = "uniform"
    norm: str = "l1"
    level: float = 0.95
    n_resamples: int = 1000
    seed: int = 0
    calibrators: tuple[str, ...] = ("temperature",)
    baseline: str = "uncalibrated"
    method: str = "temperature"
    options: tuple[tuple[str, str, Any], ...] = ()
    temperature: float | None = None
    detectors: tuple[str, ...] = ()
    detector: str = "max-softmax"
    threshold_rule: str = "tpr"
    threshold_target: float = 0.95
    miss_cost: float = 1.0
    ood_share: float = 0.1
    ood_tuning: str = "none"
    ood_validation: float = 0.2
    near_sets: tuple[str, ...] = ()
    far_sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise _bad(name, getattr(self, name), f"one of {', '.join(choices)}")
        for name, (low, high) in LIMITS.items():
            self._check_number(name, low, high)
        for name in _COLUMNS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise _bad(name, value, "the name of a column, or nothing")
        if not isinstance(self.baseline, str):
            raise _bad("baseline", self.baseline, "the id of a calibrator")
        for name in _TUPLES:
            value = getattr(self, name)
            if value is None and name == "slice_columns":
                continue
            # A lone string would be taken apart into its letters.
            if not isinstance(value, (tuple, list)):
                raise _bad(name, value, "a list of names")
            object.__setattr__(self, name, tuple(str(item) for item in value))
        object.__setattr__(self, "options", _checked_options(self.options))
        if self.fit_fraction + self.threshold_fraction > 0.95:
            total = self.fit_fraction + self.threshold_fraction
            raise DataError(
                f"The settings fit share and threshold share add up to {total:.3g}: "
                "no test rows would be left.",
                f"fit share {self.fit_fraction:g}, threshold share "
                f"{self.threshold_fraction:g}",
                "Lower one of them: together at most 0.95.",
            )

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if name == "temperature" and value is None:
            return
        try:
            number = float(value) if isinstance(value, numbers.Real) else math.nan
        except OverflowError:  # a whole number of hundreds of digits
            number = math.nan
        whole = name not in _WHOLE or number.is_integer()
        if isinstance(value, bool) or not (low <= number <= high) or not whole:
            raise _bad(name, value, f"a number from {low:g} to {high:g}")
        # A session file may say 15.0, and 15.0 must not make a second cache key.
        object.__setattr__(self, name, int(number) if name in _WHOLE else number)

    def method_options(self, method: str) -> dict[str, Any]:
        """Return the options chosen for one method."""
        return {name: value for owner, name, value in self.options if owner == method}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        plain["options"] = [list(item) for item in self.options]
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build settings from plain values; unknown names raise DataError."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise DataError(
                f"The session has a setting that this version does not know: "
                f"{unknown[0]!r}.",
                "session file",
                "Remove it, or open the session with the version that wrote it.",
            )
        ready: dict[str, Any] = {
            k: tuple(v) if k in _TUPLES and isinstance(v, list) else v
            for k, v in values.items()
        }
        return cls(**ready)

    def to_json(self) -> str:
        """Return the session file: format, version and every setting."""
        document = {
            "format": SESSION_FORMAT,
            "version": SESSION_VERSION,
            "settings": self.to_dict(),
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a session file; anything else raises DataError."""
        try:
            document = json.loads(text)
            is_session = document["format"] == SESSION_FORMAT
            values, version = document["settings"], document.get("version", 1)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            is_session, values, version = False, None, 1
        if not is_session or not isinstance(values, dict):
            raise DataError(
                "This is not a session file.",
                "session file",
                f'Choose a JSON file that starts with "format": "{SESSION_FORMAT}".',
            )
        if version != SESSION_VERSION:
            raise DataError(
                f"The session file has version {str(version)[:20]!r}; this one reads "
                f"version {SESSION_VERSION}.",
                "session file",
                "Open it with the Plumbline that wrote it, and save it anew.",
            )
        return cls.from_dict(values)


def _checked_options(options: Any) -> tuple[tuple[str, str, Any], ...]:
    try:
        found = tuple((str(owner), str(name), value) for owner, name, value in options)
        hash(found)  # settings are keys of caches
    except (TypeError, ValueError):
        raise _bad("options", options, "triples (method, option, value)") from None
    return found


def _bad(name: str, value: Any, rule: str) -> DataError:
    return DataError(
        f"The setting {name} must be {rule}, got {value!r}.",
        f"setting {name}",
        f"Choose {rule}.",
    )
