"""Ranks of calibrators over several data sets or metrics, as a table of the page."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from components import tables, theme
from components.display import escape_markdown
from core.calibrators import CALIBRATORS
from core.metrics import METRICS
from core.rankings import Overall

__all__ = ["label_of", "listed", "named", "ranks_frame", "title"]

_LONGEST = 18  # letters of a data set's name over its column


def label_of(method: str) -> str:
    """Return the label of a calibrator; an id that is not known stands for itself."""
    return CALIBRATORS[method].label if method in CALIBRATORS else method


def listed(methods: Iterable[str]) -> str:
    """Return labels separated by commas; those that hold one themselves lose it."""
    labels = (label_of(method).partition(", ") for method in methods)
    return ", ".join(f"{a} ({b})" if b else a for a, _, b in labels)


def named(sentence: str, overall: Overall) -> str:
    """Return a sentence with labels in the place of ids, and true minus signs."""
    words = []
    for part in sentence.split(" "):
        bare = part.rstrip(".,;")
        if bare in overall.scores:
            words.append(listed([bare]) + part[len(bare) :])
        else:
            words.append(re.sub(r"^-(?=\d)", "\N{MINUS SIGN}", part))
    return " ".join(words)


def title(overall: Overall) -> str:
    """Return who is first by Kemeny's consensus and by Borda, and whether that tells.

    As Markdown.
    """
    order, ranks = overall.agreed.order, overall.agreed.mean_rank
    first, borda = order[0], overall.agreed.borda_order
    over = tables.count_of(len(overall.data_sets), "data set")
    by = ", ".join(METRICS[metric].label for metric in overall.metrics)
    tied = [name for name in order if ranks[name] == ranks[first]]
    groups = () if overall.tested is None else overall.tested.groups
    near = next((group for group in groups if first in group), ())
    others = [name for name in near if name not in tied]
    bold = f"**{escape_markdown(listed(tied))}**"
    text = (
        f"{bold} {'is' if len(tied) == 1 else 'tie and are'} first over {over} by {by}"
    )
    if others:
        names = escape_markdown(listed(others))
        text += f"; no difference to {names} is detectable"
    if [ranks[name] for name in order] == [ranks[name] for name in borda]:
        return f"{text}. Kemeny and Borda give the same order."
    return f"{text} (Kemeny). Borda's order: {escape_markdown(listed(borda))}."


def ranks_frame(overall: Overall) -> pd.DataFrame:
    """Return calibrators in the order of the consensus, with every rank as Markdown."""
    is_several = len(overall.metrics) > 1
    heads: list[str] = []
    for metric, name in overall.columns:
        head = escape_markdown(theme.shortened(name, _LONGEST))
        if is_several:
            head += f" \u00b7 {METRICS[metric].label}"
        while head in heads:  # names that were cut may look alike
            head += "\N{WORD JOINER}"
        heads.append(head)
    lines = []
    for place, (name, ranks) in enumerate(overall.ranks.items(), 1):
        line = {"": str(place), "Calibrator": escape_markdown(label_of(name))}
        line["Mean rank"] = f"{overall.agreed.mean_rank[name]:.2f}"
        values = overall.scores[name]
        for head, (metric, _), rank, value in zip(
            heads, overall.columns, ranks, values, strict=True
        ):
            shown = tables.format_value(metric, value)
            line[head] = f"{rank:g}  \n:small[:gray[{shown}]]"
        lines.append(line)
    return pd.DataFrame(lines)
