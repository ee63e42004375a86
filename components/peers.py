"""What other libraries print, as a table for the page and one for a download."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from components.display import code, escape_markdown
from core.metrics.presets import PeerNumber

__all__ = ["peers_frame", "peers_table"]

_VIEWS = {"top-label": "predicted class", "positive-class": "positive class"}


def peers_frame(found: Iterable[PeerNumber]) -> pd.DataFrame:
    """Return the calls with what they print, our number and why, as Markdown cells."""
    return pd.DataFrame(
        [
            {
                "Call, and why": (
                    f"**{escape_markdown(item.library)}** {code(item.call)}  \n"
                    f":small[:gray[{escape_markdown(item.why)}]]"
                ),
                "Prints, and here": (
                    f"**{item.value:.6g}**  \n:small[:gray[{item.ours:.6g} "
                    f"{escape_markdown(item.label)}, {_VIEWS[item.view]}]]"
                ),
            }
            for item in found
        ]
    )


def peers_table(found: Iterable[PeerNumber]) -> pd.DataFrame:
    """Return the same numbers in full, one line per call."""
    return pd.DataFrame([item.to_dict() for item in found])
