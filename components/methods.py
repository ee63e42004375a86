"""What the registries say of their members, as rows for page and download."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from components import tables
from components.display import escape_markdown
from core.calibrators import CalibratorMethod
from core.registry import ADVICE, Method, Param, Registry

__all__ = [
    "GLOSSARY",
    "advice_markdown",
    "formula_lines",
    "found_methods",
    "methods_frame",
    "option_words",
    "reading_order",
    "reference_markdown",
]

GLOSSARY = {
    "test": "Rows that no fit and no threshold ever read. Reported numbers come from "
    "them.",
    "cross-fitted": "Every row is measured with a calibrator fitted on the other "
    "folds, so that all rows can be test rows.",
    "in-sample": "Measured on rows that were used to choose or to fit: it flatters, "
    "and is marked wherever it appears.",
    "null range": "What a perfectly calibrated model with as many rows would show by "
    "chance. A distance inside it says nothing.",
    "interval": "Where the number may lie at the chosen level. Changes are paired: the "
    "same resampled rows before and after.",
}
"""Words that every page uses, a line each."""

_ADVICE = {"when": "Use it", "not_when": "Not", "cost": "Cost"}

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def found_methods(
    registries: Iterable[Registry], words: str
) -> list[tuple[str, Method]]:
    """Return (family, method) of the methods that match every word.

    Parameters
    ----------
    registries : iterable of Registry
    words : str
        Searched in id, aliases, label, summary and reference, without case.
    """
    wanted = words.casefold().split()
    return [
        (registry.family, method)
        for registry in registries
        for method in registry.values()
        if all(word in _searched(method) for word in wanted)
    ]


def methods_frame(methods: Iterable[tuple[str, Method]]) -> pd.DataFrame:
    """Return the methods as a table, one line each."""
    return pd.DataFrame(
        [
            {
                "family": family,
                "id": method.id,
                "label": method.label,
                "summary": method.summary,
                "formula": method.formula,
                "reference": method.reference,
                "tier": method.tier,
                "aliases": " ".join(method.aliases),
                "options": "; ".join(option_words(param) for param in method.params),
                **{trait: method.advice.get(trait, "") for trait in ADVICE},
            }
            for family, method in methods
        ]
    )


def advice_markdown(method: Method) -> str:
    """Return when to use a method, when not, and what it costs; empty if unsaid."""
    lines = [
        f"**{_ADVICE[trait]}** {escape_markdown(text)}"
        for trait, text in method.advice.items()
    ]
    return ":small[" + "  \n".join(lines) + "]" if lines else ""


def formula_lines(formula: str) -> str:
    """Return a formula whose definitions stand below it, so that it fits a phone."""
    parts = re.split(r"(?<=,)\\quad\s+", formula)
    if len(parts) == 1:
        return formula
    return r"\begin{gathered}" + r"\\".join(parts) + r"\end{gathered}"


def reading_order(method: Method) -> tuple[int, int, str]:
    """Return a key that sorts what matters most, and what is simplest, first."""
    place = 0
    if "direction" in method.traits:
        known = tables.ORDER
        place = known.index(method.id) if method.id in known else len(known)
    elif isinstance(method, CalibratorMethod):
        place = method.n_parameters(10)
    return int(method.tier != "default"), place, method.label


def option_words(param: Param) -> str:
    """Return an option with its default and its limits, such as "n = 15 (1 to 99)"."""
    limits = ", ".join(param.choices)
    if param.minimum is not None and param.maximum is not None:
        limits = f"{param.minimum:g} to {param.maximum:g}"
    elif param.minimum is not None:
        limits = f"at least {param.minimum:g}"
    elif param.maximum is not None:
        limits = f"at most {param.maximum:g}"
    return f"{param.name} = {param.default}" + (f" ({limits})" if limits else "")


def reference_markdown(reference: str) -> str:
    """Return a reference with its arXiv number as a link; empty for "-"."""
    if reference.strip() in ("", "-"):
        return ""
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", reference)


def _searched(method: Method) -> str:
    parts = (
        method.id,
        *method.aliases,
        method.label,
        method.summary,
        method.reference,
    )
    return " ".join(parts).casefold()
