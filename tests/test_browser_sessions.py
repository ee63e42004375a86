"""Two people at once, on different files; for a minute among the slow tests."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest

import pytest
from browser_server import Visitor, visit
from playwright.sync_api import expect
from prediction_files import predictions

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]


class Person:
    """Somebody with a file, a verdict and a number of bins of their own.

    What they do stops at each `yield`, right after a click: somebody else clicks
    before the page has settled.

    Parameters
    ----------
    visitor : Visitor
    name : str
        Of the file.
    verdict : str
    n_bins : int
        One more after each look at the overview.
    """

    def __init__(
        self, visitor: Visitor, name: str, verdict: str, n_bins: int, content: bytes
    ) -> None:
        self.visitor, self.name, self.verdict = visitor, name, verdict
        self.n_bins = n_bins
        visitor.upload(name, content)
        visitor.charts()
        found = re.search(r"T = (\d+\.\d+)", visitor.words())
        assert found is not None
        self.temperature = found[1]

    def overview(self) -> Iterator[None]:
        """Ask for one bin more, and look at the verdict."""
        self.visitor.go("Overview", settle=False)
        yield
        self.visitor.settle()
        self.n_bins += 1
        page = self.visitor.page
        page.get_by_role("button", name="Settings").click()
        field = page.get_by_label("Bins", exact=True)
        field.fill(str(self.n_bins))
        field.press("Enter")
        yield
        expect(page).to_have_url(re.compile(f"bins={self.n_bins}"))
        page.keyboard.press("Escape")
        self.visitor.settle()
        words = self.visitor.words()
        assert self.verdict in words, words
        assert f"T = {self.temperature}" in words, words
        page.get_by_role("button", name="Why this number?").first.click()
        mine = page.get_by_text(f"Bins: {self.n_bins} of equal widths")
        expect(mine.first).to_be_visible()
        page.keyboard.press("Escape")
        expect(mine.first).to_be_hidden()

    def calibrators(self) -> Iterator[None]:
        """Fit what is chosen and move the temperature."""
        self.visitor.go("Calibrators", settle=False)
        yield
        self.visitor.settle()
        page = self.visitor.page
        page.get_by_text("Isotonic, one-vs-rest", exact=True).first.click()
        self.visitor.key("fit").get_by_role("button").click()
        yield
        page.wait_for_timeout(300)
        self.visitor.settle()
        exact = re.search(r"T = (\d+\.\d+) \(95% interval", self.visitor.words())
        assert exact is not None
        assert abs(float(exact[1]) - float(self.temperature)) <= 0.0051
        slider = page.get_by_role("slider", name="Try a temperature")
        slider.focus()
        page.keyboard.press("ArrowRight")
        yield
        expect(page.get_by_text("tuned on test")).to_be_visible()

    def export(self) -> Iterator[None]:
        """Prepare the files and take one."""
        self.visitor.go("Export", settle=False)
        yield
        self.visitor.settle()
        self.visitor.key("prepare").get_by_role("button").click()
        yield
        self.visitor.settle()
        button = self.visitor.key("get_export_json").get_by_role("button")
        _, content = self.visitor.download(button)
        known = json.loads(content)
        assert known["fit"]["file"] == self.name

    def data(self) -> Iterator[None]:
        """Look at what was understood."""
        self.visitor.go("Data", settle=False)
        yield
        self.visitor.settle()
        assert "4 score columns, logit_cat to logit_owl" in self.visitor.words()

    def methods(self) -> Iterator[None]:
        """Read about the methods."""
        self.visitor.go("Methods", settle=False)
        yield
        self.visitor.settle()
        assert "Temperature scaling" in self.visitor.words()

    def check(self) -> None:
        """Assert that the page is still this person's own."""
        self.visitor.settle()
        words = self.visitor.words()
        assert self.name in words, words
        assert f"bins={self.n_bins}" in self.visitor.page.url
        self.visitor.no_complaints()


def together(*parts: Iterator[None]) -> None:
    """Let everybody act before anybody waits."""
    for _ in zip_longest(*parts):
        pass


@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_two_sessions_at_once(browser, server, seconds: int) -> None:
    files = [
        predictions(1500, temperature=2.0, seed=1),
        predictions(1200, temperature=0.5, seed=2),
    ]
    with visit(browser, server) as first, visit(browser, server) as second:
        people = [
            Person(first, "ada.csv", "Overconfident.", 20, files[0]),
            Person(second, "ben.csv", "Underconfident.", 40, files[1]),
        ]
        assert people[0].temperature != people[1].temperature
        steps: list[list[Callable[[], Iterator[None]]]] = [
            [who.overview, who.calibrators, who.export, who.data, who.methods]
            for who in people
        ]
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end or turn < 3:
            # A round on the same page, then a round on different ones.
            lag = turn // len(steps[0]) % 2
            together(
                *(
                    own[(turn + lag * number) % len(own)]()
                    for number, own in enumerate(steps)
                )
            )
            for who in people:
                who.check()
            turn += 1
        together(*(who.overview() for who in people))
        for who in people:
            who.check()
