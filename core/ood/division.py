"""Which rows fit a detector, which set its threshold and which are reported on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.decisions import halves
from core.head import Head
from core.messages import FitError, Note
from core.ood.rows import layers_of
from core.predictions import Predictions, Study, as_keys
from core.settings import Settings
from core.splitting import Round, Split, make_split

__all__ = ["OodRows", "divide", "divide_inside", "with_sets"]

IndexArray = NDArray[np.int64]

_THRESHOLD_SHARE = 0.25  # of a file that says nothing, where no share was asked for
_MOST_SHARE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class OodRows:
    """Rows of a study by what they are for; no row has two roles.

    Parameters
    ----------
    reference : Predictions
        In-distribution rows that fit detectors.
    held_out : Predictions
        In-distribution rows that did not train the network, for scores that need such
        (`Detector.fits_on`); the reference itself where it is not a file of its own.
    threshold : Predictions
        In-distribution rows that set thresholds.
    test : Predictions
        In-distribution rows that are reported on.
    ood : mapping of str to Predictions
        OOD sets that are reported on.
    validation : mapping of str to Predictions
        Rows of the OOD sets that were set aside to tune on; empty by default.
    head : Head or None
    split : Split
        How the in-distribution file was divided.
    notes : tuple of Note
    """

    reference: Predictions
    held_out: Predictions
    threshold: Predictions
    test: Predictions
    ood: Mapping[str, Predictions]
    validation: Mapping[str, Predictions]
    head: Head | None
    split: Split
    notes: tuple[Note, ...] = field(default=())

    @property
    def sentence(self) -> str:
        """Which rows do what, in a few words."""
        parts = [
            f"{len(self.reference):,} reference rows ({self.reference.name})",
            f"{len(self.threshold):,} threshold rows",
            f"{len(self.test):,} in-distribution test rows",
        ]
        parts += [f"{name} {len(rows):,}" for name, rows in self.ood.items()]
        if self.validation:
            n = sum(map(len, self.validation.values()))
            parts.append(f"{n:,} OOD rows set aside to tune on")
        return ", ".join(parts)


def divide(study: Study, settings: Settings) -> OodRows:
    """Return the rows of a study by role, as `core.splitting` divides them.

    The fit rows of the split fit detectors, or the `reference` of the study where it
    has one. A detector is one model, so that rows are never cross-fitted: a file that
    says nothing of a split is divided by a holdout. Where no row has the threshold
    role, half of the fit rows (whole groups) set thresholds and do not fit.

    Parameters
    ----------
    study : Study
    settings : Settings
        The split and its shares, `ood_tuning`, `ood_validation` and `seed`.

    Raises
    ------
    FitError
        If there are too few rows to divide.
    """
    return with_sets(divide_inside(study, settings), study, settings)


def divide_inside(study: Study, settings: Settings) -> OodRows:
    """Return the in-distribution rows by role; OOD sets and last layer play no part.

    As `divide`: the copies that it makes may be kept while sets come and go.
    """
    own, notes = study.evaluation, []
    is_inside = np.ones(len(own), dtype=bool) if own.is_ood is None else ~own.is_ood
    marked = {}
    if not is_inside.all():
        marked["ood"] = own.take(np.flatnonzero(~is_inside), f"{own.name}: ood")
    usable, shared = _apart(study, np.flatnonzero(is_inside))
    notes += shared
    split = _split(study, settings, usable)
    notes += split.notes
    round_, more = _with_threshold(study, split, settings)
    notes += more
    source = study.fit if split.kind == "fit-file" and study.fit else own
    fit = source.take(round_.fit)
    return OodRows(
        reference=study.reference or fit,
        held_out=fit,
        threshold=source.take(round_.threshold),
        test=own.take(round_.test),
        ood=marked,
        validation={},
        head=None,
        split=split,
        notes=tuple(notes),
    )


def with_sets(inside: OodRows, study: Study, settings: Settings) -> OodRows:
    """Return what `divide_inside` made, with the OOD sets and the last layer."""
    parts = _tuning_parts({**inside.ood, **study.ood}, settings)
    return replace(
        inside,
        ood={name: rows for name, (rows, _) in parts.items()},
        validation={n: aside for n, (_, aside) in parts.items() if aside is not None},
        head=study.head,
    )


def _apart(study: Study, rows: IndexArray) -> tuple[IndexArray, list[Note]]:
    """Leave out rows that the reference holds too, by their ids; refuse it twice."""
    if study.reference is None:
        return rows, []
    own, reference = study.evaluation, study.reference
    left, right = own.column("id"), reference.column("id")
    if left is None or right is None:
        is_shared = np.full(rows.size, _is_same(own, reference))
    else:
        known = set(as_keys(right).dropna())
        is_shared = as_keys(left).iloc[rows].isin(known).to_numpy()
    if not is_shared.any():
        return rows, []
    if is_shared.all():
        raise FitError(
            "Every in-distribution row is a reference row too.",
            study.evaluation.name,
            "Give rows that the reference does not hold.",
        )
    text = (
        f"{int(is_shared.sum()):,} rows of {study.evaluation.name} are in "
        f"{study.reference.name} too and are left out."
    )
    return rows[~is_shared], [Note("shared-with-reference", "warning", text)]


def _is_same(own: Predictions, reference: Predictions) -> bool:
    """Whether two files hold the same scores and features, row by row."""
    if len(own) != len(reference):
        return False
    layers, others = layers_of(own.features), layers_of(reference.features)
    pairs = [(own.logits, reference.logits), (own.confidence, reference.confidence)]
    pairs += [(layers.get(name), others.get(name)) for name in {*layers, *others}]
    return all(
        a is b or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in pairs
    )


def _split(study: Study, settings: Settings, usable: IndexArray) -> Split:
    """Divide the in-distribution rows once; a file that says nothing by a holdout."""
    if settings.split != "cross-fit":
        found = make_split(study, settings, usable=usable)
        if found.kind in ("file", "fit-file"):
            return found
        if found.kind != "cross-fit" and found.rounds[0].threshold.size:
            return found
    fit = settings.fit_fraction
    threshold = settings.threshold_fraction or _THRESHOLD_SHARE
    if study.reference is not None and not settings.threshold_fraction:
        fit = threshold = fit / 2  # the reference fits: fewer rows are needed here
    threshold = min(threshold, _MOST_SHARE - fit)
    kind = "time" if settings.split == "time" else "holdout"
    changed = settings.replace(
        split=kind, fit_fraction=fit, threshold_fraction=threshold
    )
    return make_split(study, changed, usable=usable)


def _with_threshold(
    study: Study, split: Split, settings: Settings
) -> tuple[Round, list[Note]]:
    """Return the round of the split with threshold rows, from fit rows if need be."""
    (round_,) = split.rounds
    if round_.threshold.size:
        return round_, []
    own = study.fit if split.kind == "fit-file" and study.fit else study.evaluation
    codes = own.group_codes()
    groups = None if codes is None else codes[round_.fit]
    parts = halves(round_.fit, groups, settings.seed)
    fit, threshold = round_.fit[parts.choose], round_.fit[parts.measure]
    if not fit.size or not threshold.size:
        raise FitError(
            "There are too few fit rows, or groups of them, to set thresholds.",
            own.name,
            "Give more rows, or call some threshold in the split column.",
        )
    text = (
        f"No row is called threshold: {threshold.size:,} of the {round_.fit.size:,} "
        "fit rows set thresholds and do not fit."
    )
    return Round(fit, threshold, round_.test), [Note("threshold-rows", "info", text)]


def _tuning_parts(
    ood: Mapping[str, Predictions], settings: Settings
) -> dict[str, tuple[Predictions, Predictions | None]]:
    """Return what is reported on of each OOD set, and what is set aside."""
    needs = settings.ood_tuning == "validation" or settings.threshold_rule != "tpr"
    found: dict[str, tuple[Predictions, Predictions | None]] = {}
    for number, (name, rows) in enumerate(ood.items()):
        codes = rows.group_codes()
        unit: NDArray[Any] = np.arange(len(rows)) if codes is None else codes
        names, code = np.unique(unit, return_inverse=True)
        n_aside = round(settings.ood_validation * names.size)
        if not needs or not 0 < n_aside < names.size:
            found[name] = rows, None
            continue
        rng = np.random.default_rng([settings.seed, number])
        is_aside = np.zeros(names.size, dtype=bool)
        is_aside[rng.permutation(names.size)[:n_aside]] = True
        kept, aside = (np.flatnonzero(mask[code]) for mask in (~is_aside, is_aside))
        found[name] = rows.take(kept), rows.take(aside)
    return found
