"""What all tests share: the root, a kernel cache, deterministic properties."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from browser_server import Server, Visitor
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports numba; subprocesses of the tests inherit it. Each worker has
# its own: two processes that compile one kernel for different types at once may swap
# the files of Numba's cache (its index and its data are not written together).
_cache = Path(os.environ.get("NUMBA_CACHE_DIR", ROOT / ".cache" / "numba"))
os.environ["NUMBA_CACHE_DIR"] = str(_cache / os.environ.get("PYTEST_XDIST_WORKER", ""))

# The same examples in every run; compiling a kernel may take its time.
hypothesis.settings.register_profile(
    "plumbline",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("plumbline")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture(autouse=True)
def _pages_as_they_are() -> None:
    """Set what app/.streamlit/config.toml says and AppTest does not read."""
    if "streamlit" in sys.modules:
        sys.modules["streamlit"].config.set_option("runner.magicEnabled", False)


# The tests with a browser are one group of pytest-xdist: all of them have one server.


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Start the app once, its kernels compiled as `make run` has them compiled."""
    from browser_server import browse, serve, warm_up

    command = [sys.executable, "-m", "app", "warm-up"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    with serve() as running:
        with browse() as first:
            warm_up(first, running)
        yield running


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    """Start a browser; after its last test the server may not have complained."""
    from browser_server import browse

    with browse() as running:
        yield running
    assert not server.problems(), server.written()


@pytest.fixture
def visitor(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Return somebody who opens the app for the first time."""
    from browser_server import visit

    with visit(browser, server) as somebody:
        yield somebody
