"""What the benchmarks share: the table that `make bench` writes, and torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.side_by_side import HEAD, RUN_UP, Report, machine

from core.parallel import thread_count
from core.warm_up import warm_up

RESULTS = Path(__file__).with_name("results.md")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Collect what is measured; print it at the end, and write it if all is there."""
    warm_up()
    found = Report()
    yield found
    shared = {"threads": thread_count(), "run_up": round(1e3 * RUN_UP)}
    head = HEAD.format(**shared, machine=machine())
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
    _make_torchvision_importable(module)
    return module


def _make_torchvision_importable(torch: Any) -> None:
    """Declare two operators where torchvision's own were built for another torch.

    The peers import it, and call none of them.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
        torch.torchvision_operators = library  # it declares them while it lives
