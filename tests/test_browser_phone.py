"""On a phone: buttons beside the figures, and a sign where more lies sideways."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser_server import PHONE, Server, Visitor, visit
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

# Buttons that lie over the data or the legend of their figure, and hidden ones.
_IN_THE_WAY = """() => {
    const charts = [...document.querySelectorAll('.js-plotly-plot')];
    return charts.flatMap(chart => {
        const button = chart.querySelector('.modebar-btn[data-title^="Download"]');
        if (getComputedStyle(button.parentElement).opacity !== '1') return ['hidden'];
        const a = button.getBoundingClientRect();
        const others = [...chart.querySelectorAll('.nsewdrag, .legendtext')];
        return others.filter(e => {
            const b = e.getBoundingClientRect();
            return a.left < b.right && b.left < a.right
                && a.top < b.bottom && b.top < a.bottom;
        }).map(e => e.getAttribute('class'));
    });
}"""


@pytest.fixture(scope="module")
def phone(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who holds a phone."""
    with visit(browser, server, PHONE) as somebody:
        yield somebody


def test_the_button_of_a_figure_is_seen_and_beside_it(phone: Visitor) -> None:
    v = phone.go("Reliability")
    v.charts()
    assert v.page.evaluate(_IN_THE_WAY) == []
    v.page.get_by_role("radio", name="Each class").click(force=True)
    v.settle()
    v.charts(3)
    assert v.page.evaluate(_IN_THE_WAY) == []
    v.go("Calibrators")
    v.charts(2)
    assert v.page.evaluate(_IN_THE_WAY) == []


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
