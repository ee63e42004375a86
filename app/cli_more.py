"""What `evaluate` adds on demand: more metrics, and what other libraries print."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from app import cli_text
from core.messages import Progress

if TYPE_CHECKING:
    from core.analysis import Analysis
    from core.metrics.presets import PeerNumber
    from core.uncertainty import Estimate

__all__ = ["More", "add_flags", "measure"]

ALL = "all"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ask for more numbers."""
    section = parser.add_argument_group("more numbers")
    section.add_argument(
        "--metrics",
        default="",
        metavar="IDS",
        help="metrics to add, separated by commas, or all (see `methods`)",
    )
    section.add_argument(
        "--peers",
        action="store_true",
        help="what scikit-learn, netcal, torchmetrics, MAPIE and relplot would print, "
        "and why it differs",
    )


class More:
    """Numbers that were asked for.

    Parameters
    ----------
    analysis : Analysis
    metrics : dict
        "uncalibrated" or calibrator id -> view -> metric id -> Estimate.
    peers : tuple of PeerNumber or None
        None where they were not asked for.
    """

    def __init__(
        self,
        analysis: Analysis,
        metrics: dict[str, dict[str, dict[str, Estimate]]],
        peers: tuple[PeerNumber, ...] | None,
    ) -> None:
        self.analysis, self.metrics, self.peers = analysis, metrics, peers

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; empty where nothing was asked for."""
        document: dict[str, Any] = {}
        if self.metrics:
            document["more"] = {
                name: {
                    view: {key: item.to_dict() for key, item in found.items()}
                    for view, found in views.items()
                }
                for name, views in self.metrics.items()
            }
        if self.peers is not None:
            document["peers"] = [item.to_dict() for item in self.peers]
        return document

    def text(self) -> str:
        """Return the numbers as the terminal shows them."""
        parts = []
        n_classes = len(self.analysis.study.evaluation.classes)
        for name, views in self.metrics.items():
            for view, found in views.items():
                if found:
                    first = next(iter(found.values()))
                    rows = cli_text.rows_words(first)
                    title = f"More metrics, {name}, {view}, {first.n:,} {rows}"
                    table = cli_text.estimates_table(found, n_classes)
                    parts.append(f"{title}\n{table}")
        if self.peers is not None:
            parts.append("\n".join(["What other libraries print", *self._peer_lines()]))
        return "\n\n".join(parts)

    def _peer_lines(self) -> list[str]:
        if not self.peers:
            return ["Nothing: there are no labels to measure with."]
        lines = []
        for item in self.peers:
            call = f"{item.library}: {item.call}"
            lines.append(cli_text.wrapped(call, indent="  "))
            said = f"{item.value:.6g}; {item.label} here: {item.ours:.6g}. {item.why}"
            lines.append(cli_text.wrapped(said, "    ", "    "))
        return lines


def measure(args: argparse.Namespace, analysis: Analysis, progress: Progress) -> More:
    """Measure what the flags ask for."""
    from core.on_demand import MORE_METRICS, measure_metrics, peers

    given = (analysis.study, analysis.settings, analysis.overview)
    names = [name.strip() for name in args.metrics.split(",") if name.strip()]
    if ALL in names:
        names = list(MORE_METRICS)
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    if names:
        # With calibrators all numbers come from the test rows: the same for all.
        measured = measure_metrics(*given, names, analysis.fitted, progress)
        for name in ("uncalibrated", *analysis.fitted):
            found[name] = {view: columns[name] for view, columns in measured.items()}
    return More(analysis, found, peers(*given) if args.peers else None)
