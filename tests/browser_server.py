"""A real server and a real browser for the tests that drive the app."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from get_browser import WHAT_TO_DO, find_browser
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "test-results"
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERVER_FLAGS = [
    "--server.headless=true",
    "--server.address=127.0.0.1",
    "--server.fileWatcherType=none",
    "--server.showEmailPrompt=false",
    "--browser.gatherUsageStats=false",
]
Theme = Literal["light", "dark"]
DESKTOP = (1440, 900)
PHONE = (390, 844)
PHONE_AGENT = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Mobile Safari/537.36"
)
SECONDS = 60  # for the app to settle, where other tests have the cores
expect.set_options(timeout=30_000)

# Keep `window.asked`, the run that was asked for and has not begun: until the server
# answers, the page looks as if nothing were under way. Reads the numbered fields of
# Streamlit's messages (BackMsg, ClientState; ForwardMsg, its metadata, NewSession).
_LISTEN = """
    const text = bytes => new TextDecoder().decode(bytes);
    const fields = bytes => {
        let at = 0;
        const found = {};
        const varint = () => {
            let value = 0, scale = 1, byte;
            do {
                byte = bytes[at++];
                value += (byte & 127) * scale;
                scale *= 128;
            } while (byte & 128);
            return value;
        };
        while (at < bytes.length) {
            const tag = varint(), kind = tag & 7;
            let value = null;
            if (kind === 0) value = varint();
            else if (kind === 2) {
                const length = varint();
                value = bytes.subarray(at, at += length);
            } else at += kind === 1 ? 8 : 4;
            (found[tag >>> 3] ??= []).push(value);
        }
        return found;
    };
    const one = (bytes, number) => bytes && fields(bytes)[number]?.[0];
    const string = (bytes, number) => text(one(bytes, number) ?? new Uint8Array());
    const heard = event => {
        const message = fields(new Uint8Array(event.data));
        const {2: [metadata] = [], 4: [begun] = []} = message;
        if (!begun || !window.asked) return;
        const ids = fields(one(metadata, 6) ?? new Uint8Array())[2] ?? [];
        const isIt = ids.length
            ? ids.some(id => text(id) === window.asked.fragment)
            : ['', string(begun, 9)].includes(window.asked.page);
        if (isIt) window.asked = null;
    };
    window.WebSocket = class extends WebSocket {
        constructor(...address) {
            super(...address);
            this.addEventListener('message', heard);
        }
        send(data) {
            const run = one(data, 11);
            if (run && !one(run, 6))
                window.asked = {fragment: string(run, 5), page: string(run, 3)};
            super.send(data);
        }
    };
"""

# Wait for 200 ms without a run of the script, a job that polls, or a skeleton.
_CALM = """milliseconds => new Promise(done => {
    const busy = () => {
        if (window.asked) return true;
        const app = document.querySelector('[data-testid="stApp"]');
        if (!app || app.dataset.testScriptState !== 'notRunning') return true;
        if (app.dataset.testConnectionState !== 'CONNECTED') return true;
        if (document.querySelector('[class*="st-key-cancel-"]')) return true;
        if (document.querySelector('[data-testid="stSkeleton"]')) return true;
        if (document.querySelector('[data-stale="true"]')) return true;
        const main = document.querySelector('[data-testid="stMainBlockContainer"]');
        return !main || !main.querySelector('h1, h2, [data-testid="stException"]');
    };
    const start = performance.now();
    let last = start;
    const look = () => {
        const now = performance.now();
        if (busy()) last = now;
        if (now - last >= 200) done(true);
        else if (now - start > milliseconds) done(false);
        else setTimeout(look, 20);
    };
    look();
})"""


@dataclass(eq=False)
class Server:
    """A running server.

    Parameters
    ----------
    url : str
        Its address, on the loopback interface.
    log : Path
        File that its output goes to.
    process : int
        Its id.
    """

    url: str
    log: Path
    process: int = 0

    def written(self) -> str:
        """Return everything that the server has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def memory(self, kind: str = "VmRSS") -> int:
        """Return its resident bytes, or with "VmHWM" the most that there were."""
        lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
        found = next(line for line in lines if line.startswith(kind))
        return 1024 * int(found.split()[1])

    def cpu(self) -> float:
        """Return the seconds that it has had a processor."""
        text = Path(f"/proc/{self.process}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def problems(self) -> list[str]:
        """Return the lines of its output that speak of an error."""
        sign = re.compile(r"traceback|error|exception|warning", re.IGNORECASE)
        return [line for line in self.written().splitlines() if sign.search(line)]


@contextlib.contextmanager
def serve(**environment: str) -> Iterator[Server]:
    """Start the app on a free port of the loopback interface; stop it at the end."""
    port = _free_port()
    command = [sys.executable, "-m", "app.serve"]
    command += [*SERVER_FLAGS, f"--server.port={port}"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PLUMBLINE_")}
    with tempfile.TemporaryDirectory(prefix="plumbline-server-") as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Server(f"http://127.0.0.1:{port}", log, process.pid)
        try:
            _wait_for(server, process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"The server did not start:\n{server.written()}")
        with contextlib.suppress(OSError):
            health = f"{server.url}/_stcore/health"
            with urllib.request.urlopen(health, timeout=5) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        time.sleep(0.1)
    raise RuntimeError(f"The server is not healthy:\n{server.written()}")


@contextlib.contextmanager
def browse() -> Iterator[Browser]:
    """Start a headless Chromium; close it at the end."""
    path = find_browser()
    assert path is not None, WHAT_TO_DO
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(eq=False)
class Visitor:
    """One person with a browser of their own, and everything it complained about.

    Parameters
    ----------
    page : Page
    server : Server
    """

    page: Page
    server: Server
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    clicks: int = 0

    def __post_init__(self) -> None:
        self.page.set_default_timeout(30_000)
        self._listeners: dict[str, Any] = {
            "console": self._on_console,
            "pageerror": lambda error: self.errors.append(str(error)),
            "dialog": self._on_dialog,
            "request": lambda request: self._on_address(request.url),
            "websocket": lambda sock: self._on_address(sock.url),
        }
        for event, heard in self._listeners.items():
            self.page.on(event, heard)

    def leave(self) -> None:
        """Close the session and take everything along; the tab is as new."""
        for event, heard in self._listeners.items():
            self.page.remove_listener(event, heard)
        self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        self.page.context.clear_cookies()
        self.page.goto("about:blank")

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.console.append(f"{message.text} ({message.location.get('url')})")

    def _on_dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _on_address(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    # ---------------------------------------------------------------- going about

    def open(self, path: str = "/") -> Visitor:
        """Open a page of the app and wait until it has settled."""
        self.page.goto(self.server.url + path)
        return self.settle()

    def go(self, title: str, *, settle: bool = True) -> Visitor:
        """Follow the navigation at the top to another page, or stay on this one."""
        place = "" if title == "Overview" else title.lower()
        if urlsplit(self.page.url).path == f"/{place}":
            return self.settle() if settle else self
        link = self.page.get_by_test_id("stTopNavLink").filter(has_text=title)
        if not link.is_visible():  # narrow: the pages are in the sidebar
            link = self.page.get_by_test_id("stSidebarNavLink").filter(has_text=title)
            self.page.get_by_test_id("stExpandSidebarButton").click()
        link.click()
        self.page.wait_for_url(
            re.compile("/\\?|/$" if title == "Overview" else title.lower())
        )
        return self.settle() if settle else self

    def settle(self, seconds: float = SECONDS) -> Visitor:
        """Wait until no run, no job and no redraw is under way."""
        if not self.page.evaluate(_CALM, 1000 * seconds):
            raise TimeoutError(f"The page does not settle:\n{self.words()}")
        return self

    def upload(
        self, name: str, content: bytes, *more: tuple[str, bytes], to: str = ""
    ) -> Visitor:
        """Give files to an uploader: the one in sight, else the one behind "Open".

        Every click counts: the button that opens a dialog for files is one of them.
        """
        spot = self.page.locator(f'[class*="st-key-upload_{to}"]:visible')
        if not spot.count():
            opens = self.page.get_by_test_id("stPopoverButton")
            self.click(opens.filter(has_text="Open").first)
        used = re.search(r"st-key-upload_\S+", spot.first.get_attribute("class") or "")
        assert used is not None
        zone = spot.first.get_by_test_id("stFileUploaderDropzone")
        with self.page.expect_file_chooser() as chosen:
            self.click(zone.locator("button"))
        chosen.value.set_files(
            [
                {"name": file, "mimeType": "application/octet-stream", "buffer": data}
                for file, data in ((name, content), *more)
            ]
        )
        # What was read is taken from the uploader: a new one stands in its place.
        expect(self.page.locator(f".{used[0]}")).to_have_count(0)
        return self.settle()

    def click(self, target: Locator) -> None:
        """Click, and count it."""
        self.clicks += 1
        target.click()

    def download(self, target: Locator) -> tuple[str, bytes]:
        """Click a button that gives a file; return its name and its bytes."""
        with self.page.expect_download() as given:
            self.click(target)
        path = given.value.path()
        return given.value.suggested_filename, Path(path).read_bytes()

    def key(self, name: str) -> Locator:
        """Return the widget with a key."""
        return self.page.locator(f".st-key-{name}")

    def charts(self, n: int = 1) -> None:
        """Wait until the page has drawn some charts."""
        drawn = self.page.locator(".js-plotly-plot .main-svg")
        expect(drawn.nth(2 * n - 2)).to_be_visible()

    # ------------------------------------------------------------------ looking at

    def words(self) -> str:
        """Return what is written on the page."""
        text = self.page.get_by_test_id("stMainBlockContainer").inner_text()
        return re.sub(r"[\u2060\u200b]", "", text).replace("\u00a0", " ")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        width: int = self.page.evaluate("document.scrollingElement.scrollWidth")
        assert self.page.viewport_size is not None
        return width - self.page.viewport_size["width"]

    def no_complaints(self) -> None:
        """Assert that nothing failed and that nobody else was asked for anything."""
        assert "Traceback" not in self.words()
        assert not self.page.get_by_test_id("stException").count(), self.words()
        assert not self.errors, self.errors
        assert not self.console, self.console
        assert not self.dialogs, self.dialogs
        assert self.hosts <= {urlsplit(self.server.url).netloc}, self.hosts


# Tabs that a visitor has left, by window and theme: the next one need not compile the
# scripts of the app again (4 of the 6 seconds of a processor that a first visit costs).
_LEFT: WeakKeyDictionary[Browser, dict[tuple[object, ...], list[Page]]]
_LEFT = WeakKeyDictionary()


@contextlib.contextmanager
def visit(
    browser: Browser,
    server: Server,
    size: tuple[int, int] = DESKTOP,
    theme: Theme = "light",
    path: str = "/",
) -> Iterator[Visitor]:
    """Open the app as somebody new; at the end nothing may have complained.

    Where a test fails, `test-results` gets a picture and the words of the page.
    """
    free = _LEFT.setdefault(browser, {}).setdefault((size, theme), [])
    page = free.pop() if free else _new_page(browser, size, theme)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visitor = Visitor(page, server)
    try:
        yield visitor.open(path)
        if hasattr(sys, "last_value"):  # a test that failed, seen from its fixture
            _keep(visitor)
        else:
            visitor.no_complaints()
        visitor.leave()
        free.append(page)
    except BaseException:
        _keep(visitor)
        page.context.close()
        raise


def _new_page(browser: Browser, size: tuple[int, int], theme: Theme) -> Page:
    phone = {"user_agent": PHONE_AGENT, "is_mobile": True, "has_touch": True}
    context = browser.new_context(
        **(phone if size == PHONE else {}),
        viewport={"width": size[0], "height": size[1]},
        color_scheme=theme,
        reduced_motion="reduce",
        accept_downloads=True,
    )
    context.add_init_script(_LISTEN)
    return context.new_page()


def run_alone(module: Path, *arguments: Path) -> str:
    """Run a module in an interpreter that knows nothing of this repository."""
    done = subprocess.run(
        [sys.executable, "-I", module, *arguments],
        cwd=module.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_first(browser: Browser, server: Server) -> None:
    """Open the app once, so that no test pays for what the first page loads."""
    page = _new_page(browser, DESKTOP, "light")
    page.goto(server.url)
    Visitor(page, server).settle(300).leave()
    _LEFT.setdefault(browser, {}).setdefault((DESKTOP, "light"), []).append(page)


def _keep(visitor: Visitor) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "browser").split(" ")[0]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", test.split("::", 1)[-1]).strip("-")
    RESULTS.mkdir(exist_ok=True)
    with contextlib.suppress(Exception):
        visitor.page.screenshot(path=RESULTS / f"{stem}.png", full_page=True)
        log = [visitor.words(), *visitor.errors, *visitor.console]
        log.append(visitor.server.written())
        text = "\n\n".join(log)
        (RESULTS / f"{stem}.txt").write_text(text, encoding="utf-8")
