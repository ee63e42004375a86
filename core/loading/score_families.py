"""Columns named as scores, by their stem, apart from statistics of the scores."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from core.loading.columns import Roles
from core.loading.names import NAMES, NEGATIVE_LOGS, parse_score_name, plain
from core.messages import Answer, DataError, Note

__all__ = [
    "NO_CLASSES",
    "Family",
    "find_families",
    "is_statistic",
    "sum_to_one",
    "take_family",
]

_STATISTICS = {
    *("max", "maximum", "min", "minimum", "mean", "avg", "average", "median", "std"),
    *("stdev", "stddev", "sd", "var", "variance", "se", "sem", "stderr", "margin"),
    *("gap", "entropy", "energy", "norm", "logsumexp", "lse", "argmax", "rank"),
    *("time", "ms", "sec", "seconds", "duration", "latency", "loss", "nll", "iqr"),
    *("uncertainty", "threshold", "cutoff", "timestamp", "std_error", "std_err"),
    *("standard_error", "max_prob", "max_logit"),
}
_MEANS = {"mean", "avg", "average", "median"}
NO_CLASSES = {*_MEANS, "pct", "percent", "percentage", "perc"}
"""What follows the stem of one score and names no class."""
_BOUNDS = {
    *("low", "high", "lower", "upper", "lo", "hi", "lcl", "ucl", "lwr", "upr"),
    *("ci_low", "ci_high", "ci_lower", "ci_upper", "lower_ci", "upper_ci"),
    *("lower_bound", "upper_bound", "ci_lo", "ci_hi", "q05", "q95", "q025", "q975"),
}
_NO_SCORES = {
    *("p_value", "p_val", "pvalue", "pval", "loss", "entropy", "uncertainty", "nll"),
    *("perplexity", "ppl", "variance", "stderr", "std", "variability", "latency"),
    *("runtime", "duration", "elapsed", "log_loss", "cross_entropy", "residual"),
}
"""Names of a decimal that is no score by itself."""
_VERSIONS = {
    *("raw", "calibrated", "uncalibrated", "cal", "uncal", "before", "after", "old"),
    *("new", "scaled", "unscaled", "recalibrated", "adjusted", "orig", "original"),
}
_COPY = re.compile(r"(?P<name>.+)\.\d+")  # how pandas writes a repeated name


@dataclass(slots=True)
class Family:
    """Columns of one stem.

    Parameters
    ----------
    members : list of (str, str)
        Column and class.
    aside : list of str
        Columns that are statistics of the others.
    """

    members: list[tuple[str, str]] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)


def find_families(roles: Roles) -> dict[str, list[tuple[str, str]]]:
    """Return stem -> (column, class) for columns that are named as scores."""
    return {stem: family.members for stem, family in _families(roles).items()}


def _families(roles: Roles) -> dict[str, Family]:
    found: dict[str, list[tuple[str, str]]] = {}
    reserved = {
        name for role in ("predicted", "confidence", "correct") for name in NAMES[role]
    } - {"pred", "prediction", "predictions", "predicted", "preds"}
    label = roles.label
    known = [] if label is None else roles.distinct(label)
    for name in roles.free():
        parsed = parse_score_name(name)
        if parsed is None or plain(name) in reserved:
            continue
        if parsed.stem in NEGATIVE_LOGS and not parsed.suffix:
            continue  # the loss of a row
        # Text in a column that is surely a score is an error to report.
        is_class = parsed.suffix.isdigit() or parsed.suffix in known
        if not roles.is_numeric(name) and not (parsed.kind and is_class):
            continue
        found.setdefault(parsed.stem, []).append((name, parsed.suffix))
    families = {stem: _parted(roles, members) for stem, members in found.items()}
    return {stem: family for stem, family in families.items() if family.members}


def _parted(roles: Roles, members: list[tuple[str, str]]) -> Family:
    """Set statistics aside, unless a label names them or all of them sum to 1."""
    words = roles.class_words()
    has_stem = any(not suffix for _, suffix in members)
    family = Family()
    for name, suffix in members:
        is_bound = has_stem and plain(suffix) in _BOUNDS
        is_other = is_statistic(roles, name) or is_bound
        if is_other and suffix.casefold() not in words:
            family.aside.append(name)
        else:
            family.members.append((name, suffix))
    means = [name for name in family.aside if _suffix(name) in _MEANS]
    if not family.members and len(means) == 1:
        family.members = [(means[0], "")]  # prob_mean, beside prob_std
        family.aside.remove(means[0])
    bare = [name for name, suffix in family.members if not suffix]
    if len(bare) == 1 and len(family.members) > 2 and "" not in words:
        family.members = [item for item in family.members if item[1]]
        family.aside += bare
    if family.aside and sum_to_one(roles, [name for name, _ in members]):
        return Family(members)
    return family


def _suffix(name: str) -> str:
    parsed = parse_score_name(name)
    return plain(parsed.suffix) if parsed else ""


def is_statistic(roles: Roles, name: str) -> bool:
    """Whether a name speaks of a statistic, which no label names as a class."""
    word = plain(name)
    words = roles.class_words()
    parsed = parse_score_name(name)
    suffix = parsed.suffix if parsed else ""
    if {name.strip().casefold(), suffix.casefold()} & words:
        return False
    if word in _NO_SCORES:
        return True
    stem, _, last = (plain(suffix) if parsed else word).rpartition("_")
    if parsed is None:
        return bool(stem) and last in _STATISTICS
    # logit_cat_std is one of class cat, prob_room_time that of a class.
    if plain(suffix) in _STATISTICS:
        return True
    return last in _STATISTICS and stem in {plain(item) for item in words}


def take_family(roles: Roles, stem: str) -> None:
    """Take the columns of a stem as scores, and say what was not taken with them.

    Raises
    ------
    DataError
        If columns are copies of others by name with other values, or the columns
        are versions of one score.
    """
    family = _families(roles)[stem]
    members = _without_copies(roles, family.members)
    _refuse_versions(roles, [item for item in members if len(members) > 1])
    evidence = f"named {stem}_<class>"
    if len(members) == 1:
        evidence = "the only column named as a score"
    for name, _ in members:
        roles.give(name, "score", evidence)
    for name in family.aside:
        roles.give(name, "other", "a statistic of the scores, no class")
    if family.aside and len(members) > 1:
        names, is_one = ", ".join(family.aside), len(family.aside) == 1
        text = (
            f"{names} {'was' if is_one else 'were'} taken for "
            f"{'a statistic' if is_one else 'statistics'} of the scores, not for "
            f"{'a class' if is_one else 'classes'}. Otherwise choose the score columns."
        )
        roles.raw.notes.append(Note("statistics-aside", "question", text))


def _without_copies(
    roles: Roles, members: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Leave out what pandas wrote for a repeated name, if it holds the same values."""
    names, words = {name for name, _ in members}, roles.class_words()
    kept = []
    for name, suffix in members:
        found = _COPY.fullmatch(name)
        if not found or found["name"] not in names or suffix.casefold() in words:
            kept.append((name, suffix))
            continue
        table = roles.raw.table
        if table[name].equals(table[found["name"]]):
            roles.give(name, "other", f"a copy of {found['name']}")
            text = f"{name} holds the same values as {found['name']}, and is not used."
            roles.raw.notes.append(Note("copied-column", "info", text))
        elif re.search(r"\d\.\d+$", name):
            kept.append((name, suffix))  # classes called 0 and 0.5
        else:
            raise DataError(
                f"{name} is what pandas writes for a second column {found['name']}, "
                "and the two hold different values.",
                f"{roles.raw.name}, column {name}",
                "Keep one of them, or give each a name of its own.",
            )
    return kept


def _refuse_versions(roles: Roles, members: list[tuple[str, str]]) -> None:
    """Ask which of several versions of one score is meant."""
    words = roles.class_words()
    suffixes = [plain(suffix) for _, suffix in members]
    is_version = [not word or word in _VERSIONS for word in suffixes]
    is_pair = len(members) == 2 and suffixes.count("") == 1  # logit and logit_T
    if not members or not any(suffixes) or not (all(is_version) or is_pair):
        return
    names = [name for name, _ in members]
    if set(suffixes) & words or sum_to_one(roles, names):
        return
    raise DataError(
        f"{' and '.join(names)} look like versions of one score, not like classes.",
        f"{roles.raw.name}, column {names[0]}",
        "Choose one of them, or all of them if they are classes.",
        answers=tuple(
            Answer(f"{name} is the score", "score_columns", _quoted(name))
            for name in names
        ),
    )


def _quoted(name: str) -> str:
    """Return a name as a cell of a line of CSV."""
    has_marks = any(mark in name for mark in ',"\n\r')
    return '"' + name.replace('"', '""') + '"' if has_marks else name


def sum_to_one(roles: Roles, names: list[str]) -> bool:
    """Whether the first rows of these columns sum to 1."""
    if len(names) < 2:
        return False
    total: Any = 0.0
    for name in names:
        cells = roles.raw.table[name].slice(0, 10_000).to_pandas()
        total = total + pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    total = total[~np.isnan(total)]
    return bool(total.size) and bool((np.abs(total - 1) <= 1e-3).mean() >= 0.99)
