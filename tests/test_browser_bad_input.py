"""Bad input in a real browser: the cases of core and of the command line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input_cases import CASES, Case
from browser_server import Server, Visitor, visit
from playwright.sync_api import Browser, expect
from prediction_files import Sample, csv, plain, predictions

from core.loading import open_study
from core.settings import Settings

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

MINE = csv(plain(Sample.draw(300, ("cat", "dog", "owl"))))
ORDER = ("refuse", "ask", "note")


@pytest.fixture(scope="module")
def owner(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who has a study open already."""
    with visit(browser, server) as somebody:
        somebody.upload("mine.csv", MINE)
        yield somebody


def standing(visitor: Visitor) -> tuple[str, str]:
    """Return the line of the file and the verdict."""
    main = visitor.page.get_by_test_id("stMainBlockContainer")
    line = main.get_by_test_id("stMarkdown").first.inner_text()
    return line, main.locator("h1").first.inner_text()


def said_on(visitor: Visitor) -> str:
    """Return every word of the page, the remarks behind a button included."""
    more = visitor.page.get_by_role("button", name=re.compile("more remark"))
    if more.count():
        more.first.click()
        expect(visitor.page.get_by_test_id("stPopoverBody")).to_be_visible()
    words = flat(visitor.page.locator("body").inner_text())
    if more.count():
        visitor.page.keyboard.press("Escape")
    return words


def flat(text: str) -> str:
    """Return a text as people read it."""
    text = re.sub(r"[\u2060\u200b]", "", text).replace("\u00a0", " ")
    return " ".join(text.split())


# One of eight in every run (all of them by core and command line), all among the slow.
IN_TURN = [
    pytest.param(name, marks=[] if place % 8 == 0 else [pytest.mark.slow])
    for place, name in enumerate(
        sorted(CASES, key=lambda n: ORDER.index(CASES[n].verdict))
    )
]


@pytest.mark.parametrize("name", IN_TURN)
def test_every_case(owner: Visitor, name: str) -> None:
    case = CASES[name]
    files = case.make()
    before = standing(owner)
    owner.upload(files[0][0], files[0][1], *files[1:])
    owner.no_complaints()
    box = owner.key("problem-box")
    if case.verdict == "note":
        expect(box).to_have_count(0)
        assert files[0][0] in standing(owner)[0]
        assert note_of(case) in said_on(owner)
        return
    expect(box).to_be_visible()
    words = flat(box.inner_text())
    assert case.said in words
    assert case.where in words
    assert "How to fix" in words
    assert standing(owner) == before
    answers = owner.page.locator('[class*="st-key-problem-answer"]')
    assert bool(answers.count()) == (case.verdict == "ask")
    if case.verdict == "ask":
        answers.first.get_by_role("button").click()
        expect(box).to_have_count(0)
        owner.settle()
        assert files[0][0] in standing(owner)[0]


def test_the_popover_shuts_when_a_file_has_come(owner: Visitor) -> None:
    owner.upload("again.csv", MINE)
    expect(owner.page.get_by_test_id("stPopoverBody")).to_have_count(0)
    assert "again.csv" in standing(owner)[0]


def note_of(case: Case) -> str:
    """Return the text that core notes of a case; empty where there is nothing."""
    names, contents = zip(*case.make(), strict=True)
    study, _ = open_study(contents, Settings(), name=names)
    return flat(" ".join(n.text for n in study.evaluation.notes if n.code == case.said))


def test_text_among_numbers_is_a_question_with_an_answer(visitor) -> None:
    lines = predictions(400).decode().splitlines()
    for row, text in ((12, "oops"), (70, "n/a")):
        cells = lines[row].split(",")
        cells[2] = text
        lines[row] = ",".join(cells)
    visitor.upload("gaps.csv", "\n".join(lines).encode())
    box = visitor.key("problem-box")
    assert "oops" in box.inner_text()
    assert "row 12" in box.inner_text()
    assert "digits_noisy.csv" in visitor.words()
    box.get_by_role("button").first.click()
    expect(box).to_have_count(0)
    visitor.settle()
    words = visitor.words()
    assert "gaps.csv" in words
    assert "398 rows" in words
    assert "2 rows left out" in words
    visitor.go("Data")
    assert "2 rows were left out" in visitor.words()
    name, content = visitor.download(visitor.key("left_out").get_by_role("button"))
    assert name == "gaps-left-out.csv"
    assert list(pd.read_csv(io.BytesIO(content))["row"]) == [12, 70]


def test_a_file_over_the_limit_stays_where_it_is(
    owner: Visitor, tmp_path: Path
) -> None:
    before = standing(owner)
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(1025 << 20)  # of which nothing is on the disk
    owner.page.get_by_test_id("stPopoverButton").filter(has_text="Open").click()
    expect(owner.page.get_by_test_id("stPopoverBody")).to_be_visible()
    spot = owner.page.locator('[class*="st-key-upload_bar"]')
    spot.locator("input[type=file]").set_input_files(path)
    expect(spot).to_contain_text("must be 1.0GB or smaller")
    owner.settle()
    assert standing(owner) == before
    owner.page.keyboard.press("Escape")
    owner.no_complaints()


def test_a_class_without_a_fit_row_is_said(owner: Visitor) -> None:
    of = Sample.draw(300, ("cat", "dog", "owl"))
    part = np.where(of.labels == 2, "test", np.where(np.arange(300) % 2, "fit", "test"))
    owner.upload("gap.csv", csv(plain(of).assign(split=part)))
    assert "1 of 3 classes have no fit row" in said_on(owner)
