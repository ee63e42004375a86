"""Softmax, log-sum-exp and row statistics against torch, SciPy and the memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import scipy.special
from benchmarks.side_by_side import Report, medians
from numpy.typing import NDArray

from core.parallel import thread_count
from core.softmax import logsumexp, row_statistics, softmax
from core.temperature_grid import temperature_grid

pytestmark = pytest.mark.benchmark

# rows, classes: at least so many times as fast as torch into `out`, and as SciPy
SOFTMAX = {
    (50_000, 1_000): (1.0, 5.0),
    (2_000, 50_000): (1.0, 5.0),
    (64, 1_000_000): (1.0, 5.0),
    (10_000, 100): (1.0, 4.0),
    (100_000, 10): (4.0, 4.0),
    (1_000_000, 2): (4.0, 4.0),
}
LOG_SUM = {
    (50_000, 1_000): (2.5, 8.0),
    (2_000, 50_000): (2.5, 8.0),
    (64, 1_000_000): (2.5, 8.0),
    (10_000, 100): (1.2, 8.0),
}


def logits_of(shape: tuple[int, int]) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, np.float32) * 4


def named(shape: tuple[int, int]) -> str:
    return f"{shape[0]:,} x {shape[1]:,}"


def runs_of(z: NDArray[Any]) -> int:
    return 41 if z.size <= 10**7 else 9


@pytest.mark.parametrize("shape", SOFTMAX, ids=named)
def test_softmax(report: Report, torch: Any, shape: tuple[int, int]) -> None:
    z = logits_of(shape)
    out = np.empty_like(z)
    theirs, target = torch.from_numpy(z), torch.empty(shape)
    scipys = np.empty_like(z)

    def peer() -> None:
        scipys[:] = scipy.special.softmax(z, axis=1)

    ours, other = medians(
        lambda: softmax(z, out=out),
        lambda: torch.softmax(theirs, 1, out=target),
        runs=runs_of(z),
    )
    exact = scipy.special.softmax(z[:2].astype(np.float64), axis=1)
    np.testing.assert_allclose(out[:2], exact, rtol=2e-6, atol=1e-37)
    # torch sums in single precision
    np.testing.assert_allclose(out, target.numpy(), rtol=1e-3, atol=1e-30)
    again, slow = medians(lambda: softmax(z, out=out), peer, runs=5)
    work = f"softmax {named(shape)}"
    bars = SOFTMAX[shape]
    rate = 2 * z.nbytes / ours / 1e9
    report.notes.append(f"- {work}: {rate:.1f} GB/s read and written.")
    first = report.line(work, ours, "torch, into `out`", other, bars[0])
    second = report.line(work, again, "scipy", slow, bars[1])
    assert first >= bars[0]
    assert second >= bars[1]


@pytest.mark.parametrize("shape", LOG_SUM, ids=named)
def test_logsumexp(report: Report, torch: Any, shape: tuple[int, int]) -> None:
    z = logits_of(shape)
    out = np.empty(shape[0], np.float32)
    theirs, target = torch.from_numpy(z), torch.empty(shape[0])
    ours, other = medians(
        lambda: logsumexp(z, out=out),
        lambda: torch.logsumexp(theirs, 1, out=target),
        runs=runs_of(z),
    )
    np.testing.assert_allclose(out, target.numpy(), rtol=1e-4)
    again, slow = medians(
        lambda: logsumexp(z, out=out),
        lambda: scipy.special.logsumexp(z, axis=1),
        runs=5,
    )
    work = f"logsumexp {named(shape)}"
    bars = LOG_SUM[shape]
    report.notes.append(f"- {work}: {z.nbytes / ours / 1e9:.1f} GB/s read.")
    first = report.line(work, ours, "torch, into `out`", other, bars[0])
    second = report.line(work, again, "scipy", slow, bars[1])
    assert first >= bars[0]
    assert second >= bars[1]


def test_row_statistics(report: Report) -> None:
    """Within four times a two-thread sum of the same array, which reads it once."""
    z = logits_of((50_000, 1_000))
    y = z.argmax(axis=1)
    parts = np.array_split(z.reshape(-1), thread_count())
    with ThreadPoolExecutor(len(parts)) as pool:
        ours, limit = medians(
            lambda: row_statistics(z, y), lambda: list(pool.map(np.sum, parts))
        )
    work = "row_statistics 50,000 x 1,000"
    report.notes.append(f"- read-only sum: {z.nbytes / limit / 1e9:.1f} GB/s.")
    assert report.line(work, ours, "a sum that reads it once", limit, 0.25) >= 0.25


def test_temperature_grid(report: Report) -> None:
    z = logits_of((50_000, 1_000))
    y = np.random.default_rng(1).integers(0, 1_000, len(z))
    grid = temperature_grid(z, y)

    def singles() -> None:
        for temperature in grid.temperature:
            row_statistics(z, y, temperature=temperature)

    ours, other = medians(lambda: temperature_grid(z, y), singles, runs=3)
    work = f"{len(grid.temperature)} temperatures, 50,000 x 1,000"
    ratio = report.line(work, ours, "single trips of ours", other, 3.0)
    assert ratio >= 3.0
