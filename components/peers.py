"""What other libraries print, as a table for the page and one for a download."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from components.display import code, escape_markdown
from core.metrics.presets import PeerNumber

__all__ = ["peers_frame", "peers_table"]

_VIEWS = {"top-label": "predicted class", "positive-class": "positive class"}


def peers_frame(found: Iterable[PeerNumber]) -> pd.DataFrame:
    """Return what each call prints, our number, and why, as Markdown cells."""
    return pd.DataFrame(
        [
            {
                "Prints": (
                    f"{escape_markdown(item.library)}  \n**{item.value:.6g}**  \n"
                    f":small[:gray[here {item.ours:.6g}]]"
                ),
                "Call, and why": (
                    f"{code(item.call)}  \n:small[{escape_markdown(item.why)} "
                    f":gray[{escape_markdown(item.label)}, {_VIEWS[item.view]}.]]"
                ),
            }
            for item in found
        ]
    )


def peers_table(found: Iterable[PeerNumber]) -> pd.DataFrame:
    """Return the same numbers in full, one line per call."""
    return pd.DataFrame([item.to_dict() for item in found])
