"""How long people wait: the command line, and from the start to the first chart."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.side_by_side import Report
from browser_server import browse, serve
from playwright.sync_api import Browser

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data" / "digits_noisy.csv"
CACHE = "NUMBA_CACHE_DIR"
EVALUATE, START, EMPTY = 2.5, 5.0, 25.0
DRAWN = ".js-plotly-plot .scatterlayer .trace"  # not only axes


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser that is already open."""
    with browse() as found:
        yield found


def seconds_to_chart(browser: Browser, cache: str) -> float:
    """Return the time from the command to the first chart of the sample."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    start = time.perf_counter()
    with serve(**{CACHE: cache}) as server:
        page.goto(server.url)
        page.wait_for_selector(DRAWN, timeout=90_000)
        found = time.perf_counter() - start
    page.close()
    return found


def test_evaluate(report: Report) -> None:
    command = [sys.executable, "-m", "app", "evaluate", str(SAMPLE)]
    times = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    found = statistics.median(times[1:])
    assert report.within("evaluate on the sample, fresh process", found, EVALUATE)


def test_first_chart(report: Report, browser: Browser) -> None:
    cache = os.environ.get(CACHE, str(ROOT / ".cache" / "numba"))
    times = [seconds_to_chart(browser, cache) for _ in range(4)]
    found = statistics.median(times[1:])
    assert report.within("app start to the first chart", found, START)


def test_first_chart_with_nothing_compiled(
    report: Report, browser: Browser, tmp_path: Path
) -> None:
    found = seconds_to_chart(browser, str(tmp_path))
    assert report.within("the same, no kernel compiled yet", found, EMPTY)
