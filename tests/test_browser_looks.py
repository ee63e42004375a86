"""Every page in both themes, on a desk and a phone: nothing faint, cut or nameless."""

from __future__ import annotations

import pytest
from browser_looks import headings, in_the_way, nameless, too_faint
from browser_server import DESKTOP, PHONE, visit
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

WITH_CHARTS = ("Reliability", "Calibrators", "Decisions", "Overview")
PAGES = (
    *WITH_CHARTS[:3],
    "Segmentation",
    "Out-of-distribution",
    "Data",
    "Export",
    "Methods",
    "Overview",
)
LOOKS = [
    pytest.param("light", DESKTOP, id="light-desktop"),
    pytest.param("dark", PHONE, id="dark-phone"),
    pytest.param("dark", DESKTOP, id="dark-desktop", marks=pytest.mark.slow),
    pytest.param("light", PHONE, id="light-phone", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_every_page_fits_and_speaks(browser, server, theme, size) -> None:
    with visit(browser, server, size, theme) as v:
        colour = v.page.get_by_test_id("stApp").evaluate(
            "e => getComputedStyle(e).backgroundColor"
        )
        assert (colour == "rgb(255, 255, 255)") == (theme == "light")
        for title in PAGES:
            v.go(title)
            expect(v.page).to_have_title(f"{title} \u00b7 Plumbline")
            assert v.overflow() <= 1, title
            charts = v.page.locator(".js-plotly-plot")
            assert charts.count() or title not in WITH_CHARTS
            for chart in charts.all():
                expect(chart.locator(".main-svg").first).to_be_attached()
            said = v.page.get_by_test_id("stPlotlyChart").evaluate_all(
                "found => found.map(e => e.getAttribute('aria-label') || '')"
            )
            assert len(said) == charts.count()
            assert all(len(text) > 40 for text in said), said
            assert nameless(v) == [], title
            levels = headings(v)
            assert levels[0] <= 2
            assert min(levels[1:], default=7) > levels[0], levels
            expect(v.page.get_by_role("main")).to_have_count(1)
            assert v.page.evaluate("document.documentElement.lang")
            assert too_faint(v) == [], (title, theme)
            if size == PHONE:
                assert in_the_way(v) == [], title
            v.no_complaints()
        faint = "Too faint to read"
        v.page.get_by_role("heading").first.evaluate(
            f"e => {{ e.textContent = '{faint}'; e.style.opacity = 0.4;"
            " e.style.fontSize = '16px' }"
        )
        assert any(faint in line for line in too_faint(v))  # the measure measures
