"""From a file as it is to its verdict: two clicks at most, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pandas as pd
import pytest
from browser_server import RESULTS, Server, Visitor, visit
from playwright.sync_api import Browser, expect
from prediction_files import Sample, layouts

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

LAYOUTS = layouts(Sample.draw(2000, ("cat", "dog", "emu")))
CLICKS, SECONDS = 2, 60
# One of nine in every run, all of them among the slow tests.
IN_TURN = [
    pytest.param(name, marks=[] if place % 9 == 0 else [pytest.mark.slow])
    for place, name in enumerate(LAYOUTS)
]


@pytest.fixture(scope="module")
def measured() -> Iterator[list[dict[str, object]]]:
    """Keep what was measured in test-results."""
    lines: list[dict[str, object]] = []
    yield lines
    RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(lines).to_csv(RESULTS / "time-to-verdict.csv", index=False)


@pytest.fixture(scope="module")
def somebody(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who opens one file after the other."""
    with visit(browser, server) as visitor:
        yield visitor


@pytest.mark.parametrize("name", IN_TURN)
def test_time_to_verdict(
    somebody: Visitor, measured: list[dict[str, object]], name: str
) -> None:
    v, files = somebody, LAYOUTS[name]()
    v.page.keyboard.press("Escape")  # what was opened for the file before
    start, v.clicks = time.perf_counter(), 0
    v.upload(*files[0], *files[1:])
    expect(v.page.get_by_role("heading", name="Overconfident.")).to_be_visible()
    seconds = time.perf_counter() - start
    measured.append({"layout": name, "seconds": round(seconds, 1), "clicks": v.clicks})
    words = v.words()
    assert files[0][0] in words
    assert not v.key("problem-box").count(), words
    assert v.clicks <= CLICKS
    assert seconds < SECONDS
