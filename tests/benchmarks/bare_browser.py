"""A browser as a visitor has it: nothing listens to what its pages run.

Playwright asks V8 for every exception, and so for the place in the source where it was
raised. Plotly's module raises and catches four while it is loaded, and each time its
4.7 MB are parsed again to find the place: 1.2 to 1.6 s instead of 0.7 to 0.9 s, and no
visitor waits for that. Here the DevTools protocol opens a page and asks for one
variable of it; V8 is not told to report anything.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browser_server import BROWSER_FLAGS
from get_browser import WHAT_TO_DO, WHOLE, find_browser
from websockets.sync.client import ClientConnection, connect

__all__ = ["BareBrowser", "browse_bare"]

_STARTS, _DRAWS = 30.0, 120.0  # seconds at most
# When the first match has a size and the frame with it was painted, in seconds of the
# epoch; nothing is asked of the page meanwhile.
_WATCH = """(() => {
    const look = () => {
        const found = document.querySelector(SELECTOR);
        if (found && found.checkVisibility() && found.getBoundingClientRect().width > 0)
            requestAnimationFrame(() => setTimeout(() => {
                window.paintedAt = (performance.timeOrigin + performance.now()) / 1000;
            }));
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
})()"""


class BareBrowser:
    """A running Chromium.

    Parameters
    ----------
    port : int
        Where its DevTools listen, on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/json"

    @contextlib.contextmanager
    def page(self, selector: str) -> Iterator[BarePage]:
        """Open an empty page that will look for a selector; close it at the end."""
        made = self._ask("new?about:blank", "PUT")
        with connect(made["webSocketDebuggerUrl"], max_size=None) as socket:
            page = BarePage(socket)
            page.call("Page.enable")
            source = _WATCH.replace("SELECTOR", json.dumps(selector))
            page.call("Page.addScriptToEvaluateOnNewDocument", source=source)
            yield page
        self._ask(f"close/{made['id']}")

    def _ask(self, what: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self._address}/{what}", method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_STARTS) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text.startswith(b"{") else None


class BarePage:
    """A page of a `BareBrowser`.

    Parameters
    ----------
    socket : ClientConnection
        To its DevTools.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._n_calls = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Return the answer to a command of the DevTools protocol."""
        self._n_calls += 1
        command = {"id": self._n_calls, "method": method, "params": parameters}
        self._socket.send(json.dumps(command))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._n_calls:
                return answer["result"]

    def painted_at(self, url: str) -> float:
        """Go to an address; return when the selector was painted, in seconds."""
        self.call("Page.navigate", url=url)
        end = time.monotonic() + _DRAWS
        while time.monotonic() < end:
            found = self.call("Runtime.evaluate", expression="window.paintedAt || 0")
            if found["result"]["value"]:
                return float(found["result"]["value"])
            time.sleep(0.2)
        raise TimeoutError(f"{url} does not show what was looked for.")


@contextlib.contextmanager
def browse_bare(width: int = 1440, height: int = 1000) -> Iterator[BareBrowser]:
    """Start a headless Chromium; stop it at the end."""
    path = next(filter(None, map(shutil.which, WHOLE)), None) or find_browser()
    assert path is not None, WHAT_TO_DO
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = [*BROWSER_FLAGS, f"--user-data-dir={folder}"]
        flags += ["--remote-debugging-port=0", f"--window-size={width},{height}"]
        with subprocess.Popen(
            [path, "--headless", *flags, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield BareBrowser(_port(Path(folder) / "DevToolsActivePort"))
            finally:
                process.terminate()


def _port(path: Path) -> int:
    """Return the port that a browser writes down as soon as it listens."""
    end = time.monotonic() + _STARTS
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()).count("\n") > 0:
            return int(text.split()[0])
        time.sleep(0.05)
    raise TimeoutError("The browser does not start.")
