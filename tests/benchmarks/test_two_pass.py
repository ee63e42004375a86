"""The experiment of the Two-Pass paper: each algorithm, in cache and out of it.

Left: one row of growing length, one thread, as in Dukhan and Ablavatski
(arXiv 2001.04438). Right: the same number of elements, far out of the cache, in rows of
growing length, on all threads. Beside them what merely copying and reading cost, and
the ceilings that follow from the traffic of each algorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.side_by_side import Report, machine, medians

from core import parallel
from core.parallel import map_rows, thread_count
from core.softmax import softmax

pytestmark = pytest.mark.benchmark

FIGURE = Path(__file__).with_name("two_pass.svg")
# algorithm: trips through memory when a row is out of the cache (read or written)
TRIPS = {"two-pass": 3, "three-pass": 4, "three-pass-reload": 5, "online": 3}
COLOURS = {
    "two-pass": "#1f6fb4",
    "three-pass": "#d95f02",
    "three-pass-reload": "#7a5195",
    "online": "#4d8c57",
    "auto": "#111827",
}
LENGTHS = [int(10**e) for e in (3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8)]
ROWS = [10, 32, 100, 316, 1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000]
OUT_OF_CACHE = 1 << 25  # elements: 128 MB
LAST_CACHE = 1 << 24  # elements of a row that no last-level cache of ours holds


def over_rows(function: Callable[[Any, Any], Any], z: Any, out: Any) -> None:
    """Call a NumPy function on chunks of rows, on all threads."""
    flat, target = z.reshape(-1), out.reshape(-1)
    map_rows(lambda a, b: function(flat[a:b], target[a:b]), flat.size, z.itemsize)


def seconds_of(z: Any, names: tuple[str, ...]) -> dict[str, float]:
    """Return the median time of every algorithm, of a copy and of a sum."""
    out = np.empty_like(z)
    functions = [
        lambda name=name: softmax(z, out=out, algorithm=name) for name in names
    ]
    functions += [
        lambda: over_rows(lambda a, b: np.copyto(b, a), z, out),
        lambda: over_rows(lambda a, b: a.sum(), z, out),
    ]
    runs = 15 if z.size <= 10**6 else 5
    found = medians(*functions, runs=runs)
    return dict(zip((*names, "copy", "read"), found, strict=True))


def test_two_pass(report: Report) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="run by make bench")
    rng = np.random.default_rng(0)
    long = rng.standard_normal(max(LENGTHS), np.float32) * 4
    parallel.configure(1)
    try:
        rows = {n: seconds_of(long[None, :n], tuple(TRIPS)) for n in LENGTHS}
    finally:
        parallel.configure(None)
    many = long[:OUT_OF_CACHE]
    names = (*TRIPS, "auto")
    blocks = {
        k: seconds_of(many[: many.size // k * k].reshape(-1, k), names) for k in ROWS
    }
    draw(pyplot, rows, blocks)
    missed = []
    for n, found in rows.items():
        best = min(found[name] for name in ("three-pass", "three-pass-reload"))
        bar = 1.0 if n > LAST_CACHE else None
        work = f"two-pass, one row of {n:,}, one thread"
        if report.line(work, found["two-pass"], "our best three-pass", best, bar) < (
            bar or 0
        ):
            missed.append(n)
    assert not missed


def draw(pyplot: Any, rows: dict[int, Any], blocks: dict[int, Any]) -> None:
    """Draw both panels: nanoseconds per element, ceilings dotted."""
    pyplot.rcParams.update({"svg.hashsalt": "plumbline", "font.size": 9})
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for axis, found, title in (
        (axes[0], rows, "One row, one thread"),
        (
            axes[1],
            blocks,
            f"{OUT_OF_CACHE / 1e6:.0f} million elements, {thread_count()} threads",
        ),
    ):
        sizes = list(found)
        n_elements = [s if axis is axes[0] else OUT_OF_CACHE // s * s for s in sizes]
        for name in found[sizes[0]]:
            values = [
                1e9 * found[s][name] / n for s, n in zip(sizes, n_elements, strict=True)
            ]
            style = {"copy": ("#9ca3af", "--"), "read": ("#9ca3af", ":")}
            colour, line = style.get(name, (COLOURS.get(name, "black"), "-"))
            axis.plot(sizes, values, line, color=colour, label=name, linewidth=1.6)
        unit = 1e9 * found[sizes[-1]]["copy"] / n_elements[-1] / 2  # one trip
        for name, trips in TRIPS.items():
            if name != "online":
                axis.axhline(
                    trips * unit, color=COLOURS[name], linewidth=0.7, linestyle=":"
                )
        axis.set_xscale("log")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("Elements of a row")
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Time per element, ns")
    axes[0].set_ylim(0, 3)
    axes[1].legend(frameon=False, fontsize=8)
    figure.suptitle(
        "Softmax, float32. Dotted: what 3, 4 and 5 trips through memory cost at the "
        "speed of a copy.",
        fontsize=9,
    )
    figure.text(0.01, 0.01, machine().partition(", Python")[0], fontsize=7)
    figure.tight_layout(rect=(0, 0.02, 1, 0.98))
    figure.savefig(FIGURE, metadata={"Date": None})
