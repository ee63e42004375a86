"""What all tests share: the root, a kernel cache, deterministic properties."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from browser_server import Server, Visitor
    from playwright.sync_api import Browser
    from ready_interpreter import ReadyInterpreter

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports numba; subprocesses of the tests inherit it. Each worker has
# its own: two processes that compile one kernel for different types at once may swap
# the files of Numba's cache (its index and data are not written together). It starts
# as a copy of what `make kernels` has compiled.
_cache = Path(os.environ.get("NUMBA_CACHE_DIR", ROOT / ".cache" / "numba"))
if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    for _made in _cache.glob("kernels_*"):
        if not (_cache / _worker / _made.name).exists():
            shutil.copytree(_made, _cache / _worker / _made.name)
    _cache /= _worker
os.environ["NUMBA_CACHE_DIR"] = str(_cache)

# The same examples in every run; compiling a kernel may take its time.
hypothesis.settings.register_profile(
    "plumbline",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("plumbline")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Call a case with a whole file by the argument that takes it."""
    is_file = isinstance(val, (str, bytes)) and len(val) > 100
    return argname if is_file else None


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture(autouse=True)
def _pages_as_they_are() -> None:
    """Set what app/.streamlit/config.toml says and AppTest does not read."""
    if "streamlit" in sys.modules:
        sys.modules["streamlit"].config.set_option("runner.magicEnabled", False)
    if "streamlit.testing.v1" in sys.modules:
        # Every test of a page would read what is installed: a third of a second.
        from streamlit.components.v2 import manifest_scanner

        scan = manifest_scanner.scan_component_manifests
        if not hasattr(scan, "cache_info"):
            manifest_scanner.scan_component_manifests = functools.cache(scan)


@pytest.fixture(scope="session")
def _ready() -> Iterator[ReadyInterpreter]:
    from ready_interpreter import ReadyInterpreter

    interpreter = ReadyInterpreter()
    yield interpreter
    interpreter.close()


@pytest.fixture
def ready_interpreter(
    _ready: ReadyInterpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run exported files in children of an interpreter that is there already."""
    monkeypatch.setattr("core.export.runners.subprocess", _ready)


# A file of tests with a browser is a group of pytest-xdist; each worker has one server.


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Start the app once, its kernels compiled as `make run` has them compiled."""
    from browser_server import serve

    from core.warm_up import warm_up

    warm_up()
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    """Start a browser; after its last test the server may not have complained."""
    from browser_server import browse, open_first

    with browse() as running:
        open_first(running, server)
        yield running
    assert not server.problems(), server.written()


@pytest.fixture
def visitor(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who opens the app for the first time."""
    from browser_server import visit

    with visit(browser, server) as somebody:
        yield somebody
