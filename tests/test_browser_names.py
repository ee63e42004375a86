"""Names that would do harm if a page took them for more than names."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from browser_server import run_alone, visit
from playwright.sync_api import expect
from prediction_files import predictions

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "**bold** $x$ :red[y] :material/home:",
    "[link](javascript:alert(2))",
    "=cmd()|' /C calc'!A0",
    "naïve 日本語 🎯",
    "L" * 200,
)


def test_hostile_names_are_shown_as_they_are(visitor, tmp_path) -> None:
    v = visitor
    number = np.arange(1500) // 50
    starts = np.array(["@SUM(A1) ", "<script>alert(3)</script> ", "+1+1 "])
    group = [f"{starts[item % 3]}{item}" for item in number]
    hostile = {"=1+1 <b>x</b>": np.arange(1500), "group": group}
    split = np.where(number % 2, "fit", "test")
    content = predictions(classes=HOSTILE, split=split, **hostile)
    file_name = "<img src=x onerror=alert(4)> **b** $x$ [l](javascript:alert(5)).csv"
    v.upload(file_name, content)
    assert not v.key("problem-box").count(), v.key("problem-box").inner_text()
    assert "Overconfident." in v.words()
    for title in ("Overview", "Calibrators", "Data"):
        v.go(title)
        assert file_name in v.words(), title
        main = v.page.get_by_test_id("stMain")
        assert not main.locator("img[src=x], script, b").count()
        assert not main.locator('a[href^="javascript"]').count()
        assert v.overflow() <= 1
        v.no_complaints()
    words = v.words()
    assert "logit_<img src=x onerror=alert(1)>" in words
    assert "=1+1 <b>x</b>" in words

    v.go("Export")
    v.key("prepare").get_by_role("button").click()
    v.key("get_export_json").wait_for()
    v.settle()
    name, content_csv = v.download(v.key("get_export_csv").get_by_role("button"))
    assert re.fullmatch(r"[A-Za-z0-9_-]+-calibrated\.csv", name)
    rows = pd.read_csv(io.BytesIO(content_csv))
    texts = [*rows.columns, *rows.select_dtypes("str").to_numpy().ravel()]
    assert not [text for text in texts if str(text).startswith(("=", "+", "-", "@"))]
    assert "'=1+1 <b>x</b>" in rows.columns
    assert "'@SUM(A1) 0" in set(rows["group"])
    assert "'=cmd()|' /C calc'!A0" in set(rows["prediction"])

    # One calibrator for all rows: the module gives what is in the table.
    _, module = v.download(v.key("get_export_python").get_by_role("button"))
    (tmp_path / "calibrator.py").write_bytes(module)
    given = pd.read_csv(io.BytesIO(content))
    np.save(tmp_path / "in.npy", given[[f"logit_{name}" for name in HOSTILE]])
    run_alone(tmp_path / "calibrator.py", tmp_path / "in.npy", tmp_path / "out.npy")
    alone = np.load(tmp_path / "out.npy")
    columns = [f"prob_{name}" for name in HOSTILE]
    np.testing.assert_allclose(rows[columns], alone, rtol=0, atol=1e-12)


def test_a_binary_class_of_markup_is_only_a_name(browser, server) -> None:
    names = (HOSTILE[0], HOSTILE[1])
    with visit(browser, server) as v:
        v.upload("two.csv", predictions(400, classes=names))
        v.page.get_by_role("radio", name="Positive class").click(force=True)
        expect(v.page.get_by_text("where it came true")).to_be_visible()
        v.settle()
        assert f"probability of {names[1]}" in v.words().replace("`", "")
        title = v.page.locator(".js-plotly-plot .xtitle").first
        expect(title).to_contain_text(names[1])
        assert not v.page.get_by_test_id("stMain").locator("img[src=x]").count()
