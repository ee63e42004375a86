"""The out-of-distribution page on large rows: first scores, the panel, memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.side_by_side import Report
from browser_server import Server, serve
from numpy.typing import NDArray
from server_client import Client

pytestmark = pytest.mark.benchmark

N, M, CLASSES, WIDTH = 50_000, 10_000, 1_000, 512
WORDS = "50,000 x (1,000 + 512), three OOD sets of 10,000"
ARRAYS = 4 * (N + 3 * M) * (CLASSES + WIDTH)
MOST_MEMORY = 2.5 * ARRAYS + 500e6
FIRST, PANEL = 2.0, 30.0
LONG = 600.0  # seconds for the app to settle
SETS = {"near_half.npz": 0.5, "near_third.npz": 0.33, "far_none.npz": 0.0}

FloatArray = NDArray[np.float32]


def write_rows(folder: Path) -> None:
    """Write rows of a last layer, sets with less and less of a class, and the layer."""
    rng = np.random.default_rng(0)
    weight = 0.12 * rng.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    centres = np.maximum(8 * weight, 0)

    def rows(n: int, share: float) -> tuple[dict[str, FloatArray], NDArray[np.int64]]:
        labels = rng.integers(0, CLASSES, n)
        noise = rng.standard_normal((n, WIDTH), dtype=np.float32)
        features = np.maximum(np.float32(share) * centres[labels] + noise, 0)
        return {"logits": features @ weight.T, "features": features}, labels

    arrays, labels = rows(N, 1.0)
    np.savez(folder / "rows.npz", **arrays, labels=labels)
    for name, share in SETS.items():
        np.savez(folder / name, **rows(M, share)[0])
    bias = np.zeros(CLASSES, dtype=np.float32)
    np.savez(folder / "head.npz", weight=weight, bias=bias)


def last_words(client: Client) -> str:
    """Return the words of the newest element, where it is Markdown or a heading."""
    element = client.messages[-1].delta.new_element if client.messages else None
    kind = None if element is None else element.WhichOneof("type")
    return str(getattr(element, kind).body) if kind in ("heading", "markdown") else ""


def seconds(
    server: Server, client: Client, heading: str = ""
) -> tuple[float, float, set[str]]:
    """Wait for a heading, or the end of all work; return time, CPU time, progress."""
    start, busy, steps = time.monotonic(), server.cpu(), set()

    def is_there() -> bool:
        if client.progress() is not None:
            steps.add(f"{client.progress():.2f}")
        return bool(heading) and heading in last_words(client)

    client.settle(LONG, is_there)
    return time.monotonic() - start, server.cpu() - busy, steps


def test_the_page_on_large_rows(report: Report, tmp_path: Path) -> None:
    write_rows(tmp_path)
    with serve(PLUMBLINE_FILE=str(tmp_path / "rows.npz")) as server:
        client = Client(server.url)
        client.settle(LONG)
        client.go("Out-of-distribution")
        client.settle(LONG)
        client.upload("upload_head", "head.npz", (tmp_path / "head.npz").read_bytes())
        client.settle(LONG)  # whatever is still to be compiled, too
        files = [(name, (tmp_path / name).read_bytes()) for name in SETS]
        client.upload("upload_ood", *files[0], *files[1:])
        seconds(server, client, "Last layer")  # the sets are read
        first, _, _ = seconds(server, client, "What each score catches")
        rest, busy, steps = seconds(server, client)
        peak = server.memory("VmHWM")
        tables = [table.value for table in client.tree().get("table")]
        assert not client.exceptions()
        client.close()
    report.notes.append(
        f"- Out-of-distribution, {WORDS}: the default panel with {busy:.0f} s of "
        f"processor time and {len(steps)} steps of the progress bar; memory of the "
        f"server {peak / 1e6:.0f} MB at most (limit {MOST_MEMORY / 1e6:.0f})."
    )
    is_first = report.within(f"first OOD scores, {WORDS}", first, FIRST)
    is_panel = report.within(f"the default panel, {WORDS}", first + rest, PANEL)
    assert len(tables[0]) == 10
    assert len(steps) > 10
    assert peak <= MOST_MEMORY
    assert is_first
    assert is_panel
