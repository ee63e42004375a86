"""Each class against the rest: small reliability diagrams and the table of gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from components import reliability
from components.theme import Style
from core.binning import BinStatistics
from core.per_class import ClassGaps

__all__ = ["SMALL", "class_alt", "class_figure", "class_table", "clearest_first"]

SMALL = 320


def clearest_first(gaps: ClassGaps) -> NDArray[np.int64]:
    """Return the classes first whose gap is furthest from 0, by its interval's width.

    Of an interval only the side towards 0 counts.
    """
    half = np.where(gaps.gap > 0, gaps.gap - gaps.low, gaps.high - gaps.gap)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.abs(gaps.gap) / half
    found = np.where(np.isfinite(found), found, -1.0)
    return np.argsort(-found, kind="stable")


def class_figure(found: BinStatistics, style: Style, name: str) -> go.Figure:
    """Draw the small reliability diagram of one class against the rest.

    Parameters
    ----------
    found : BinStatistics
    style : Style
        Of the scores, as on every other page.
    name : str
        Of the class.
    """
    fig = reliability.reliability_figure(
        {"class": found},
        labels={"class": name},
        styles={"class": style},
        height=SMALL,
        has_counts=False,
    )
    reliability.shrink(fig)
    seen = found.count > 0
    ends = (found.confidence[seen], found.accuracy[seen])
    reliability.zoom(fig, max(float(end.max(initial=0.0)) for end in ends))
    return fig


def class_table(gaps: ClassGaps, classes: Sequence[str]) -> pd.DataFrame:
    """Return the gap of every class with its interval, the clearest first."""
    order = clearest_first(gaps)
    return pd.DataFrame(
        {
            "class": np.array(classes, dtype=object)[order],
            "rows_with_label": gaps.count[order],
            "mean_probability": gaps.probability[order],
            "share": gaps.share[order],
            "gap": gaps.gap[order],
            "gap_low": gaps.low[order],
            "gap_high": gaps.high[order],
            "level": gaps.level,
            "rows": gaps.n,
        }
    )


def class_alt(name: str, gaps: ClassGaps, column: int) -> str:
    """Return one sentence about one class, for those who cannot see."""
    points = 100 * gaps.gap[column]
    side = "above" if points >= 0 else "below"
    return (
        f"Reliability of the class {name} against the rest: its probability lies "
        f"{abs(points):.1f} points {side} its share of {gaps.n:,} rows."
    )
