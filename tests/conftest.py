"""What all tests share: the root, a kernel cache, deterministic properties."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

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
