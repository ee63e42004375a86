"""On a phone: buttons beside the figures, and a sign where more lies sideways."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser_looks import in_the_way
from browser_server import PHONE, Server, Visitor, visit
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def phone(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who holds a phone."""
    with visit(browser, server, PHONE) as somebody:
        yield somebody


def test_the_buttons_of_small_figures_are_seen_and_beside_them(phone: Visitor) -> None:
    v = phone.go("Reliability")
    v.page.get_by_role("radio", name="Each class").click(force=True)
    v.settle()
    v.charts(3)
    assert in_the_way(v) == []


def test_what_scrolls_sideways_fades_at_its_edge(phone: Visitor) -> None:
    v = phone.go("Calibrators")
    table = v.page.get_by_test_id("stTable").first.locator("> div")
    expect(table).to_have_css("background-image", re.compile("linear-gradient"))
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")


def test_the_live_diagram_counts_its_rows(phone: Visitor) -> None:
    v = phone.go("Calibrators")
    chart = v.page.get_by_role("img", name=re.compile("Reliability diagram. Fitted"))
    words = chart.locator("text").all_text_contents()
    rows = [text for text in words if re.fullmatch(r"[\d,]+", text)]
    assert rows == ["0", "200"]
    assert "Rows" in words
    box = chart.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE[0]
