"""Pages for everybody: by keyboard, read aloud, on a phone, with nothing to show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from browser_server import PHONE, Server, Visitor, serve, visit
from playwright.sync_api import Browser, expect
from prediction_files import Sample, columns, csv, hollance, npz, plain

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

PAGES = (
    "Overview",
    "Reliability",
    "Calibrators",
    "Decisions",
    "Out-of-distribution",
    "Data",
    "Export",
    "Methods",
)
ROWS = Sample.draw(300, ("cat", "dog", "owl"))

_FOCUS = """() => {
    const e = document.activeElement;
    return (e.getAttribute('aria-label') || e.innerText || e.tagName).trim();
}"""


@pytest.fixture(scope="module")
def owner(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who has a study open already."""
    with visit(browser, server) as somebody:
        somebody.upload("mine.csv", csv(plain(ROWS)))
        yield somebody


# -------------------------------------------------------------------- read and operate


def test_tab_reaches_the_controls_in_order(owner: Visitor) -> None:
    v = owner.go("Calibrators")
    v.page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    reached: list[str] = []
    for _ in range(45):
        v.page.keyboard.press("Tab")
        reached.append(" ".join(v.page.evaluate(_FOCUS).split()))
    wanted = ["Overview", "Methods", "Open", "Settings", "Keep my pred", "Temperature"]
    places = [
        next((i for i, name in enumerate(reached) if part in name), -1)
        for part in [*wanted, "Fit and compare"]
    ]
    assert -1 not in places, reached
    assert places == sorted(places), reached


def test_a_page_is_used_by_keyboard_alone(owner: Visitor) -> None:
    v = owner.go("Decisions")
    for button in ("Open", "Settings"):
        v.page.get_by_role("button", name=button).focus()
        v.page.keyboard.press("Enter")
        expect(v.page.get_by_test_id("stPopoverBody")).to_be_visible()
        v.page.keyboard.press("Escape")
        expect(v.page.get_by_test_id("stPopoverBody")).to_have_count(0)
    table = v.page.get_by_role("table", name="Operating points by wanted accuracy")
    before = table.inner_text()
    v.page.get_by_role("radio", name="Before").focus()
    v.page.keyboard.press("ArrowRight")
    expect(table).not_to_have_text(before)
    v.settle()
    v.page.get_by_role("link", name="Methods").first.focus()
    v.page.keyboard.press("Enter")
    expect(v.page).to_have_title(re.compile("^Methods"))
    v.settle().no_complaints()


def test_undo_by_keyboard_leaves_text_fields_alone(visitor: Visitor) -> None:
    v = visitor.go("Data")
    seed = v.page.get_by_label("Seed")
    plain = seed.input_value()
    seed.fill("7")
    seed.press("Enter")
    undo = v.key("undo").get_by_role("button")
    expect(undo).to_be_visible()
    v.settle()
    seed.focus()
    v.page.keyboard.press("Alt+z")
    v.settle()
    expect(seed).to_have_value("7")
    expect(undo).to_be_visible()
    v.page.get_by_role("heading", name="Data").click()
    v.page.keyboard.press("Alt+z")
    expect(undo).to_have_count(0)
    expect(v.settle().page.get_by_label("Seed")).to_have_value(plain)


# ----------------------------------------------------------------- two and a thousand

LONG = [f"<b>class {i}</b> <img src=x onerror=alert({i})> & _name_" for i in range(999)]
THOUSAND = Sample.draw(1500, (*LONG, "W" * 200), temperature=3.0)
TWO = Sample.draw(300, ("L" * 200, "<i>a b</i> **c** $x$ :red[y]"))
MANY = {
    "two": ("two.csv", lambda: csv(plain(TWO))),
    "thousand": (
        "thousand.npz",
        lambda: npz(
            logits=THOUSAND.logits.astype(np.float32),
            labels=THOUSAND.labels,
            classes=np.array(THOUSAND.names),
        ),
    ),
}


# Where names of classes are shown.
NAMING = (
    *("Reliability", "Calibrators", "Decisions", "Out-of-distribution"),
    *("Export", "Overview"),
)


@pytest.mark.parametrize(
    "case", ["two", pytest.param("thousand", marks=pytest.mark.slow)]
)
def test_names_of_classes_fit_a_phone(browser, server, case: str) -> None:
    name, make = MANY[case]
    with visit(browser, server, PHONE) as v:
        v.upload(name, make())
        assert not v.key("problem-box").count(), v.words()
        for title in NAMING:
            v.go(title)
            assert name in v.words(), title
            width = v.page.evaluate(
                "document.documentElement.scrollWidth - window.innerWidth"
            )
            assert width <= 0, (title, width)
            main = v.page.get_by_test_id("stMain")
            marks = "img[src=x], script, b, i:not([class])"
            assert not main.locator(marks).count(), title
            v.no_complaints()
            if title == "Reliability":
                other = {"two": "Positive class", "thousand": "Each class"}[case]
                v.page.get_by_role("radio", name=other).click(force=True)
                v.settle()
                assert v.overflow() <= 0
                assert not main.locator(marks).count()


# --------------------------------------------------------------------- nothing to show

UNLABELLED = csv(columns("logit_{}", ROWS.logits, ROWS.names))
EMPTY = {
    "no labels": (
        UNLABELLED,
        {
            "Overview": "Check what was understood",
            "Reliability": "No labels, no diagram.",
            "Calibrators": "No labels, nothing to fit.",
            "Decisions": "No labels, nothing to count.",
            "Out-of-distribution": "In-distribution rows",
            "Data": "No labels, nothing to divide.",
            "Export": "No labels, nothing to fit.",
            "Methods": "Words",
        },
    ),
    "confidences": (
        csv(hollance(ROWS)),
        {
            "Overview": "it can be measured",
            "Reliability": "Rows of a bin",
            "Calibrators": "No calibrator can use this file.",
            "Decisions": "The file has one confidence per row",
            "Out-of-distribution": "In-distribution rows",
            "Data": "it can be measured",
            "Export": "it can be measured",
            "Methods": "Words",
        },
    ),
    "one row": (
        csv(plain(ROWS).head(1)),
        {
            "Overview": "Nothing can be held out",
            "Reliability": "Rows of a bin",
            "Calibrators": "No calibrator could be fitted",
            "Decisions": "Confusion",
            "Out-of-distribution": "In-distribution rows",
            "Data": "1 row",
            "Export": "Verify and prepare",
            "Methods": "Words",
        },
    ),
}


@pytest.mark.parametrize(
    "case",
    ["no labels", "confidences", pytest.param("one row", marks=pytest.mark.slow)],
)
def test_what_cannot_be_shown_is_said(owner: Visitor, case: str) -> None:
    content, said = EMPTY[case]
    name = f"{case.replace(' ', '-')}.csv"
    owner.upload(name, content)
    for title in (*PAGES[1:], PAGES[0]):
        owner.go(title)
        assert said[title].lower() in owner.words().lower(), (title, owner.words())
        assert name in owner.words()
        owner.no_complaints()


def test_a_calibrator_that_cannot_be_used_is_greyed(owner: Visitor) -> None:
    owner.upload("top.csv", csv(hollance(ROWS)))
    owner.go("Calibrators")
    boxes = owner.page.get_by_role("checkbox")
    for box in boxes.all():
        if box.get_attribute("aria-label") != "Keep my predictions":
            expect(box).to_be_disabled()
    assert "needs the scores of every class" in owner.words()


BROKEN = {
    "session": ("Data", "session.json", b"[1, 2", "problem-box"),
    "an unknown calibrator": (
        "Data",
        "session.json",
        json.dumps({"settings": {"method": "odd"}}).encode(),
        "problem-box",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_of_another_kind_is_explained(owner: Visitor, case: str) -> None:
    title, name, content, key = BROKEN[case]
    owner.go(title)
    owner.upload(name, content, to="session")
    expect(owner.key(key)).to_contain_text("How to fix")
    owner.no_complaints()


def test_a_broken_calibrator_is_explained(owner: Visitor) -> None:
    owner.upload("mine.csv", csv(plain(ROWS)))
    owner.go("Export")
    owner.page.get_by_role("radio", name="A saved calibrator").click(force=True)
    expect(owner.key("[class*=upload_saved]")).to_have_count(0)
    owner.settle()
    owner.upload("odd.json", b"{}", to="saved")
    expect(owner.key("saved_problem-box")).to_contain_text("How to fix")
    owner.no_complaints()


@pytest.mark.slow
def test_pages_without_any_file(browser, tmp_path) -> None:
    with serve(PLUMBLINE_FILE=str(tmp_path / "missing.csv")) as other:
        with visit(browser, other) as v:
            assert "missing.csv" in v.key("problem-box").inner_text()
            for title in (*PAGES[1:-1], PAGES[0]):
                v.go(title)
                expect(v.page.get_by_test_id("stFileUploader").first).to_be_visible()
                v.no_complaints()
            v.key("use_sample").get_by_role("button").click()
            expect(v.page.get_by_role("heading", name="Overconfident.")).to_be_visible()
            v.settle()
        assert not other.problems(), other.written()
