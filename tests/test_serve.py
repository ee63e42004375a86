"""What a cold server does while it makes itself ready."""

from __future__ import annotations

import pytest
from browser_server import serve
from server_client import Client

pytestmark = pytest.mark.browser


def test_whoever_comes_before_the_modules_are_there_sees_the_page() -> None:
    # A chart is drawn ahead while another thread imports: none of it may be half there.
    with serve() as server:
        client = Client(server.url)
        client.settle()
        assert not client.exceptions()
        assert client.element("upload_bar")
        client.close()
        assert not server.problems()
