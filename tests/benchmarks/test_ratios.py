"""Speed as ratios against named peers, measured in turn in one run.

``make bench`` prints the table. The bars are what the base promises; they hold a
margin, because shared machines are noisy. Medians of several runs count.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray
from sklearn.calibration import _TemperatureScaling

from core.calibrators import TemperatureScaling
from core.metrics import RowScores, Sample, estimates
from core.settings import Settings
from core.softmax import logsumexp, row_statistics, softmax
from core.warm_up import warm_up

pytestmark = pytest.mark.benchmark

RUNS = 7
LARGE, SMALL = (20_000, 1_000), (10_000, 100)


def paired_medians(
    ours: Callable[[], Any], peer: Callable[[], Any]
) -> tuple[float, float]:
    """Return median seconds of both, run in turn after a warm-up each."""
    ours()
    peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for function, found in ((ours, times[0]), (peer, times[1])):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Any:
    """Collect lines and print them as one table at the end."""
    warm_up()
    lines: list[str] = []
    yield lines
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        header = f"{'work':<42}{'ours ms':>9}{'peer ms':>9}{'ratio':>7}  at least"
        sys.stdout.write("\n" + "\n".join([header, *lines]) + "\n")


def check(
    report: list[str],
    work: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    at_least: float,
) -> None:
    """Measure, note a line, and hold the ratio against its bar."""
    mine, other = paired_medians(ours, peer)
    ratio = other / mine
    report.append(
        f"{work:<42}{1e3 * mine:>9.1f}{1e3 * other:>9.1f}{ratio:>7.1f}  {at_least:g}"
    )
    assert ratio >= at_least, work


def logits_of(shape: tuple[int, int]) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 4, shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "at_least"), [(LARGE, 2.0), (SMALL, 1.2)])
def test_softmax_against_scipy(
    report: list[str], shape: tuple[int, int], at_least: float
) -> None:
    z = logits_of(shape)
    out = np.empty_like(z)
    check(
        report,
        f"softmax {shape[0]:,} x {shape[1]:,} / scipy",
        lambda: softmax(z, out=out),
        lambda: scipy.special.softmax(z, axis=1),
        at_least,
    )


def test_logsumexp_against_scipy(report: list[str]) -> None:
    z = logits_of(LARGE)
    check(
        report,
        "logsumexp 20,000 x 1,000 / scipy",
        lambda: logsumexp(z),
        lambda: scipy.special.logsumexp(z, axis=1),
        4.0,
    )


def numpy_statistics(z: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Return what row_statistics returns, by NumPy over the whole matrix."""
    p = scipy.special.softmax(z, axis=1)
    top = np.partition(p, -2, axis=1)
    entropy = scipy.special.entr(p).sum(axis=1)
    return z.argmax(axis=1), top[:, -1] - top[:, -2], entropy, (p * p).sum(axis=1)


def test_row_statistics_against_numpy(report: list[str]) -> None:
    z = logits_of(LARGE)
    check(
        report,
        "row_statistics 20,000 x 1,000 / NumPy",
        lambda: row_statistics(z),
        lambda: numpy_statistics(z),
        5.0,
    )


def test_temperature_fit_against_scikit_learn(report: list[str]) -> None:
    z = logits_of((5_000, 100))
    rng = np.random.default_rng(1)
    y = (z * 0.5 + rng.gumbel(size=z.shape)).argmax(axis=1)
    check(
        report,
        "temperature fit 5,000 x 100 / scikit-learn",
        lambda: TemperatureScaling().fit(z, y),
        lambda: _TemperatureScaling().fit(z, y),
        3.0,
    )


def test_bootstrap_against_a_loop_over_resamples(report: list[str]) -> None:
    rng = np.random.default_rng(2)
    confidence = rng.beta(4, 1.5, 10_000)
    outcome = (rng.random(10_000) < confidence).astype(float)
    scores = RowScores(confidence, outcome, -np.log(confidence), confidence**2)

    def ours() -> None:
        estimates(Sample({"a": scores}, Settings()))

    def loop() -> None:
        for _ in range(1_000):
            rows = rng.integers(0, 10_000, 10_000)
            for values in (outcome, confidence - outcome, confidence, confidence**2):
                values[rows].mean()
            order = np.argsort(-confidence[rows], kind="stable")
            (np.cumsum(1 - outcome[rows][order]) / np.arange(1, 10_001)).mean()

    check(report, "all estimates, 1,000 resamples / loop", ours, loop, 1.5)
