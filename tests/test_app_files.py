"""Files by role in one upload: every page stands, and says which rows are tested."""

from __future__ import annotations

import pytest
from test_app import opened, settle, table, words
from test_app_apply import go


@pytest.mark.parametrize("page", ["overview", "calibrators", "data", "export"])
def test_pages_of_a_calibration_and_a_test_file(page: str) -> None:
    at = opened()
    uploader = next(u for u in at.file_uploader if "upload_bar" in u.key)
    lines = table(600).splitlines(keepends=True)
    val, test = b"".join(lines[:301]), b"".join([lines[0], *lines[301:]])
    uploader.set_value([("val.csv", val, "text/csv"), ("test.csv", test, "text/csv")])
    at.run()
    settle(at)
    at = go(at, page)
    assert not at.exception
    assert "test.csv" in words(at)
    assert "calibration file: 300 fit rows, 300 test rows" in words(at)
