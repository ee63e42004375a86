"""People without a browser: they speak to a server as the page in a browser does."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1.element_tree import ElementTree, parse_tree_from_messages
from websockets.sync.client import connect

__all__ = ["Client"]

SECONDS = 60.0
EARLY = ForwardMsg.FINISHED_EARLY_FOR_RERUN  # the next run has been asked for
WHOLE = ForwardMsg.FINISHED_SUCCESSFULLY


@dataclass(eq=False)
class Client:
    """One session of a running server.

    It answers what the page in a browser answers: fragments that run again by
    themselves, and messages that it holds already. It shows nothing.

    Parameters
    ----------
    url : str
        Of the server.
    """

    url: str
    states: dict[str, WidgetState] = field(default_factory=dict)
    messages: list[ForwardMsg] = field(default_factory=list)
    polls: dict[str, tuple[float, float]] = field(default_factory=dict)
    received: int = 0
    first: float = 0.0
    _known: dict[str, ForwardMsg] = field(default_factory=dict)
    _pages: dict[str, str] = field(default_factory=dict)
    _page: str = ""
    _is_running: bool = False
    _asked: tuple[str, str] | None = None  # fragment and page of a run to come

    def __post_init__(self) -> None:
        self.host = urlsplit(self.url).netloc
        with closing(http_client(self.host)) as http:
            http.request("GET", "/_stcore/health")
            answer = http.getresponse()
            answer.read()
        cookie = answer.getheader("set-cookie") or ""
        self.token = cookie.partition("_streamlit_xsrf=")[2].partition(";")[0]
        opened = connect(
            f"ws://{self.host}/_stcore/stream",
            subprotocols=["streamlit", self.token] if self.token else ["streamlit"],
            additional_headers={"Cookie": f"_streamlit_xsrf={self.token}"},
            max_size=None,
            compression=None,
        )
        self._opened = ExitStack()
        self.socket = self._opened.enter_context(opened)
        self.session = ""
        self.rerun()
        self.settle()

    def close(self) -> None:
        """Leave, as somebody does who closes the page."""
        self._opened.close()

    # ------------------------------------------------------------------ speaking

    def rerun(self, fragment: str = "", *, is_poll: bool = False) -> None:
        """Ask for a run of the app, or of one fragment."""
        ask = BackMsg()
        ask.rerun_script.query_string = ""
        ask.rerun_script.page_script_hash = self._page
        ask.rerun_script.fragment_id = fragment
        ask.rerun_script.is_auto_rerun = is_poll
        ask.rerun_script.cached_message_hashes.extend(self._known)
        ask.rerun_script.widget_states.widgets.extend(self.states.values())
        if not is_poll:  # a late poll is passed over
            self._is_running, self._asked = True, (fragment, self._page)
        self.first = self.first if is_poll else 0.0
        self.socket.send(ask.SerializeToString())

    def go(self, title: str) -> None:
        """Follow the navigation to another page."""
        self._page = self._pages[title]
        self.states.clear()
        self.rerun()

    def put(self, widget: str, fragment: str = "", **value: Any) -> None:
        """Give a widget a value and run what it belongs to."""
        found = self.element(widget)
        state = WidgetState(id=found.id)
        for name, item in value.items():
            setattr(state, name, item)
        self.states[found.id] = state
        self.rerun(fragment or found.fragment_id)
        if "trigger_value" in value:
            del self.states[found.id]

    def upload(
        self, widget: str, name: str, content: bytes, *more: tuple[str, bytes]
    ) -> None:
        """Give files to an uploader."""
        found = self.element(widget)
        state = WidgetState(id=found.id)
        for file_name, data in ((name, content), *more):
            info = state.file_uploader_state_value.uploaded_file_info.add()
            info.file_id, path = self._sent(file_name, data)
            info.name, info.size = file_name, len(data)
            info.file_urls.file_id = info.file_id
            info.file_urls.upload_url = info.file_urls.delete_url = path
        self.states[found.id] = state
        self.rerun(found.fragment_id)

    def _sent(self, name: str, content: bytes) -> tuple[str, str]:
        """Send a file to the server; return its id and its address there."""
        file = f"{uuid.uuid4()}"
        mark = uuid.uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="{file}"; '
            f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        path = f"/_stcore/upload_file/{self.session}/{file}"
        with closing(http_client(self.host)) as http:
            http.request(
                "PUT",
                path,
                head.encode() + content + f"\r\n--{mark}--\r\n".encode(),
                {
                    "Content-Type": f"multipart/form-data; boundary={mark}",
                    "Cookie": f"_streamlit_xsrf={self.token}",
                    "X-Xsrftoken": self.token,
                },
            )
            assert http.getresponse().status == 204
        return file, path

    # ------------------------------------------------------------------- hearing

    def settle(
        self, seconds: float = SECONDS, until: Callable[[], bool] = lambda: False
    ) -> float:
        """Wait until nothing runs and nothing is polled; return how long it took.

        Parameters
        ----------
        seconds : float
            After which it is an error.
        until : callable, optional
            Looks at each message whether that is enough.
        """
        start = time.monotonic()
        while (self._is_running or self.polls) and not until():
            if time.monotonic() - start > seconds:
                raise TimeoutError(f"still under way after {seconds:.0f} s")
            due = min((at for _, at in self.polls.values()), default=start + seconds)
            try:
                self._take(self.socket.recv(max(0.001, due - time.monotonic())))
            except TimeoutError:
                self._poll()
        return time.monotonic() - start

    def _poll(self) -> None:
        now = time.monotonic()
        for fragment, (interval, at) in list(self.polls.items()):
            if at <= now:
                self.polls[fragment] = (interval, now + interval)
                self.rerun(fragment, is_poll=True)

    def _take(self, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.received += len(data)
        message = ForwardMsg.FromString(data)
        kind = message.WhichOneof("type")
        if kind == "ref_hash":
            metadata = message.metadata
            message = ForwardMsg.FromString(
                self._known[message.ref_hash].SerializeToString()
            )
            message.metadata.CopyFrom(metadata)
            kind = message.WhichOneof("type")
        elif message.metadata.cacheable:
            self._known[message.hash] = message
        if kind == "new_session":
            new = message.new_session
            self._is_running = True
            self.session = new.initialize.session_id or self.session
            if self._asked and self._answers(message):
                self._asked = None
            if not message.metadata.run.fragment_ids:
                self.messages, self.polls = [], {}
        elif kind == "navigation":
            for page in message.navigation.app_pages:
                self._pages[page.page_name] = page.page_script_hash
            self._page = message.navigation.page_script_hash
        elif kind == "delta":
            self.messages.append(message)
            if message.delta.new_element.WhichOneof("type") == "heading":
                self.first = self.first or time.monotonic()
        elif kind == "auto_rerun":
            every = message.auto_rerun.interval
            self.polls[message.auto_rerun.fragment_id] = (
                every,
                time.monotonic() + every,
            )
        elif kind == "stop_auto_rerun":
            for fragment in message.stop_auto_rerun.fragment_ids:
                self.polls.pop(fragment, None)
        elif kind == "script_finished":
            # of a poll before the run that was asked for, it says nothing of that
            is_over = message.script_finished != EARLY and self._asked is None
            self._is_running = not is_over
            if message.script_finished == WHOLE:
                self._forget_widgets()

    def _answers(self, message: ForwardMsg) -> bool:
        """Whether a run is the one that was asked for, or one of the whole page."""
        assert self._asked
        fragment, page = self._asked
        if message.metadata.run.fragment_ids:
            return fragment in message.metadata.run.fragment_ids
        return page in ("", message.new_session.page_script_hash)

    def _forget_widgets(self) -> None:
        """Forget the values of widgets that are gone."""
        drawn = {found.id for found in self._widgets()}
        self.states = {key: item for key, item in self.states.items() if key in drawn}

    # ------------------------------------------------------------------- looking

    @property
    def titles(self) -> list[str]:
        """The pages of the app."""
        return list(self._pages)

    def tree(self) -> ElementTree:
        """Return what is on the page."""
        return parse_tree_from_messages(self.messages)

    def words(self) -> str:
        """Return what is written on the page."""
        found = []
        for message in self.messages:
            element = message.delta.new_element
            kind = element.WhichOneof("type")
            if kind in ("markdown", "heading"):
                found.append(getattr(element, kind).body)
        return "\n".join(found)

    def exceptions(self) -> list[str]:
        """Return the messages of exceptions on the page."""
        return [
            message.delta.new_element.exception.message
            for message in self.messages
            if message.delta.new_element.WhichOneof("type") == "exception"
        ]

    def progress(self) -> float | None:
        """Return the share that the newest progress bar shows, or None."""
        for message in reversed(self.messages):
            element = message.delta.new_element
            if element.WhichOneof("type") == "progress":
                return element.progress.value / 100
        return None

    def element(self, key: str) -> Any:
        """Return the widget whose key starts so: the message that made it."""
        for found in self._widgets():
            if found.id.split("-", 2)[2].startswith(key):
                return found
        raise KeyError(key)

    def _widgets(self) -> Iterator[_Widget]:
        """Yield what has a value, the newest first."""
        for message in reversed(self.messages):
            element = message.delta.new_element
            kind = element.WhichOneof("type")
            if kind is None:
                continue
            made = getattr(element, kind)
            name = str(getattr(made, "id", ""))
            if name.startswith("$$ID-"):
                yield _Widget(name, message.delta.fragment_id, made)


@dataclass(frozen=True)
class _Widget:
    id: str
    fragment_id: str
    proto: Any


def http_client(host: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(host, timeout=SECONDS)


def as_json(value: Any) -> str:
    """Return a value as the state of a component."""
    return json.dumps(value)
