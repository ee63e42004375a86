"""Find a Chromium for the browser tests, or get one: ``python tests/get_browser.py``.

Looked for in this order: ``PLUMBLINE_BROWSER``, Playwright's own, one on the path.
Where there is none, Playwright downloads its own, or else the system's package
manager installs one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

WHOLE = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The shell is Chromium without what surrounds pages: the tests take a sixth less work.
NAMES = ("chromium-headless-shell", *WHOLE)
WHAT_TO_DO = """\
There is no browser for the browser tests, and none could be installed. Do one of:
  .venv/bin/python -m playwright install --with-deps chromium
  apt-get install chromium                  (Debian, as root)
  export PLUMBLINE_BROWSER=/path/to/chrome  (any Chromium or Chrome)"""

# In a process of its own: Playwright cannot be started twice in one thread, and a
# test that asks for the browser may have started it.
_PLAYWRIGHT_PATH = """\
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


def find_browser() -> str | None:
    """Return the path of a Chromium that starts, or None."""
    return next(filter(_starts, _candidates()), None)


def get_browser() -> str | None:
    """Return the path of a Chromium, installed now if there was none, or None."""
    return find_browser() or _download() or _install()


def _candidates() -> Iterator[str]:
    if chosen := os.environ.get("PLUMBLINE_BROWSER"):
        yield chosen
    if own := _run([sys.executable, "-c", _PLAYWRIGHT_PATH], seconds=30):
        yield own
    yield from filter(None, map(shutil.which, NAMES))


def _starts(path: str) -> bool:
    """Whether the program is there with all its libraries, and no empty wrapper."""
    return _run([path, "--version"], seconds=30) is not None


def _download() -> str | None:
    os.environ.setdefault("PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT", "10000")
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    return find_browser() if _announce_and_run(command, seconds=240) else None


def _install() -> str | None:
    if not (shutil.which("apt-get") and os.geteuid() == 0):
        return None
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    _announce_and_run(["apt-get", "-qq", "update"], seconds=300)
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends"]
    for name in NAMES[:2]:
        if _announce_and_run([*install, name, "fonts-liberation"], seconds=900):
            return find_browser()
    return None


def _announce_and_run(command: list[str], seconds: float) -> bool:
    print("Getting a browser:", *command, file=sys.stderr)
    is_done = _run(command, seconds) is not None
    print("  done" if is_done else "  this did not work", file=sys.stderr)
    return is_done


def _run(command: list[str], seconds: float) -> str | None:
    """Return what the command prints, or None if it fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    browser = get_browser()
    if browser is None:
        sys.exit(WHAT_TO_DO)
    print(browser)
