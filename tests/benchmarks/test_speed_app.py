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
from benchmarks.bare_browser import BareBrowser, browse_bare
from benchmarks.side_by_side import Report
from browser_server import serve

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data" / "digits_noisy.csv"
CACHE = "NUMBA_CACHE_DIR"
EVALUATE, START, EMPTY = 2.5, 5.0, 25.0
DRAWN = ".js-plotly-plot .scatterlayer .trace"  # not only axes


@pytest.fixture(scope="module")
def browser() -> Iterator[BareBrowser]:
    """Return a browser that is already open."""
    with browse_bare() as found:
        yield found


def seconds_to_chart(browser: BareBrowser, cache: str) -> float:
    """Return the time from the command to the first chart of the sample."""
    with browser.page(DRAWN) as page:
        time.sleep(1.0)  # an empty page has things of its own to do
        start = time.time()
        with serve(**{CACHE: cache}) as server:
            return page.painted_at(server.url) - start


def test_evaluate(report: Report) -> None:
    command = [sys.executable, "-m", "app", "evaluate", str(SAMPLE)]
    times = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    found = statistics.median(times[1:])
    assert report.within("evaluate on the sample, fresh process", found, EVALUATE)


def test_first_chart(report: Report, browser: BareBrowser) -> None:
    cache = os.environ.get(CACHE, str(ROOT / ".cache" / "numba"))
    times = [seconds_to_chart(browser, cache) for _ in range(4)]
    found = statistics.median(times[1:])
    assert report.within("app start to the first chart", found, START)


def test_first_chart_with_nothing_compiled(
    report: Report, browser: BareBrowser, tmp_path: Path
) -> None:
    found = seconds_to_chart(browser, str(tmp_path))
    assert report.within("the same, no kernel compiled yet", found, EMPTY)
