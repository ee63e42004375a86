"""What the benchmarks share: the table that `make bench` writes, and torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.side_by_side import HEAD, Report, machine

from core.parallel import thread_count
from core.warm_up import warm_up

RESULTS = Path(__file__).with_name("results.md")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Collect what is measured; print it at the end, and write it if all is there."""
    warm_up()
    found = Report()
    yield found
    head = HEAD.format(threads=thread_count(), machine=machine())
    text = head + "\n".join([*found.lines, "", *found.notes]) + "\n"
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stdout.write("\n" + text)
    if os.environ.get("PLUMBLINE_BENCH_WRITE"):
        RESULTS.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def torch() -> Any:
    """Return torch, with as many threads as ours."""
    module = pytest.importorskip("torch", reason="run by make bench")
    module.set_num_threads(thread_count())
    return module
