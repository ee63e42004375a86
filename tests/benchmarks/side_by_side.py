"""Timing of ours and of its peers in turn, and the lines of the table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAUSE = 0.01
RUN_UP = 0.1  # seconds of calls that do not count, before one that does
PACKAGES = (
    "numpy scipy numba scikit-learn torch torchmetrics netcal probmetrics pytorch-ood"
)
HEAD = """# Speed, side by side

Written by `make bench`: medians, in one run on one machine, ours and its peers in turn,
each with {threads} threads and with its output allocated before. What takes less than
{run_up} ms is called for so long before each call that counts, so that caches and cores
are its own. A ratio is the peer's time over ours; "at least" is the bar.

{machine}

| work | ours, ms | against | its ms | ratio | at least | |
|---|---:|---|---:|---:|---:|---|
"""


@dataclass
class Report:
    """The lines of the table, in the order they were measured."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(
        self, work: str, ours: float, peer: str, other: float, at_least: float | None
    ) -> float:
        """Add one line, in seconds; return the ratio."""
        ratio = other / ours
        bar = "" if at_least is None else f"{at_least:g}"
        verdict = "" if at_least is None else ("yes" if ratio >= at_least else "**no**")
        self.lines.append(
            f"| {work} | {1e3 * ours:.4g} | {peer} | {1e3 * other:.4g} | {ratio:.2f} "
            f"| {bar} | {verdict} |"
        )
        return ratio

    def within(self, work: str, seconds: float, limit: float) -> bool:
        """Add a line for work that has a time of its own to keep."""
        verdict = "yes" if seconds <= limit else "**no**"
        self.lines.append(
            f"| {work} | {1e3 * seconds:.4g} | the limit | {1e3 * limit:.4g} "
            f"| {limit / seconds:.2f} | 1 | {verdict} |"
        )
        return seconds <= limit


def medians(
    *functions: Callable[[], Any], runs: int = 11, seconds: float = 20.0
) -> list[float]:
    """Return the median seconds of each, run in turn after a warm-up.

    Slow ones run at least three times, whatever `seconds` says. Before each call that
    counts there are others, of a tenth of a second: the first of them find cores
    asleep, or both threads on one, and the arrays of another in the caches.
    """
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    for run in range(runs):
        for function, found in zip(functions, times, strict=True):
            # threads of the one before spin for a while, on a core of this one
            time.sleep(PAUSE)
            ready = time.perf_counter() + RUN_UP
            # what takes long by itself does not notice
            while not found or found[-1] < RUN_UP:
                function()
                if time.perf_counter() > ready:
                    break
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
        if run >= 2 and time.perf_counter() > end:
            break
    return [statistics.median(found) for found in times]


def machine() -> str:
    """Return processor, system and versions in a line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for text in info.read_text().splitlines():
            if text.startswith("model name"):
                name = text.partition(":")[2].strip()
                break
    versions = []
    for package in PACKAGES.split():
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    python = f"Python {platform.python_version()}"
    cores = f"{os.cpu_count()} x {name}, {platform.system()}"
    return f"{cores}; {', '.join([python, *versions])}."
