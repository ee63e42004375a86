"""Files by role in one upload: every page stands, and says which rows are tested."""

from __future__ import annotations

import threading
import time

import pytest
from test_app import opened, settle, table, words
from test_app_apply import go

from core.messages import Cancelled


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


def test_the_bar_of_reading_moves_with_it_and_cancel_stops_it(monkeypatch) -> None:
    at = opened()
    stopped = threading.Event()
    done, heard = [0.0], set()

    def slow(*_, progress, **__):
        try:
            while True:
                part = done[0]
                progress(part, "Reading rows")
                heard.add(part)
                time.sleep(0.01)
        except Cancelled:
            stopped.set()
            raise

    monkeypatch.setattr("app.opening.open_study", slow)
    monkeypatch.setattr("app.jobs.GRACE", 0.1)
    uploader = next(u for u in at.file_uploader if "upload_bar" in u.key)
    uploader.upload("mine.csv", table(300))
    at.run()
    for part in (0.25, 0.5):
        done[0] = part
        while part not in heard:
            time.sleep(0.01)
        at.run()
        assert at.get("progress")[0].proto.value == 100 * part
    at.button(key="cancel-read").click().run()
    assert stopped.wait(5)
    settle(at)
    assert not at.exception
    assert not at.error
    assert "mine.csv" not in words(at)
    assert "This is a sample" in words(at)  # what was there is still there
