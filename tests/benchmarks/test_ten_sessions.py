"""Ten people at once, each with a file of 10,000 x 100 and time to think."""

from __future__ import annotations

import io
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from benchmarks.side_by_side import Report
from browser_server import Server, serve
from server_client import Client

pytestmark = pytest.mark.benchmark

SHAPE = (10_000, 100)
PEOPLE, SECONDS = 10, 120.0
ALONE = 60.0  # seconds of the single session
THINKING = (2.0, 6.0)  # seconds between two pages
SLOWER = 3.0
GROWTH = 0.05  # of the memory, from the middle of the two minutes to their end
LONG = 120.0


@dataclass
class Tour:
    """What somebody saw who went from page to page.

    Parameters
    ----------
    seconds : list of float
        Of each page, until it stood still.
    problems : list of str
    """

    seconds: list[float] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that somebody has been to, so that everything is compiled."""
    with serve() as running:
        walk(running, 0, 0.0)
        yield running


def own_file(seed: int) -> bytes:
    """Return scores and labels of an overconfident classifier."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal(SHAPE, dtype=np.float32)
    labels = (logits / 2 + rng.gumbel(size=SHAPE)).argmax(axis=1)
    buffer = io.BytesIO()
    np.savez(buffer, logits=logits, labels=labels)
    return buffer.getvalue()


def walk(server: Server, seed: int, seconds: float) -> Tour:
    """Upload a file and go through every page, again and again for some seconds."""
    chance = random.Random(seed)  # noqa: S311 - the time that people think
    seen = Tour()
    client = Client(server.url)
    try:
        client.upload("upload_bar", f"file_{seed}.npz", own_file(seed))
        client.settle(LONG)
        end = time.monotonic() + seconds
        titles = client.titles
        turn = 0
        while turn < len(titles) or time.monotonic() < end:
            title = titles[turn % len(titles)]
            if seconds:
                time.sleep(chance.uniform(*THINKING))
            start = time.perf_counter()
            client.go(title)
            client.settle(LONG)
            seen.seconds.append(time.perf_counter() - start)
            seen.pages.append(title)
            seen.problems += client.exceptions()
            # maps for segmentation are files of their own
            is_own = title == "Segmentation"
            named = f"file_{seed}.npz" in client.words().replace("\\", "")
            if not (named or is_own):
                seen.problems.append(f"{title} is not of file_{seed}.npz")
            turn += 1
    except Exception as error:
        seen.problems.append(repr(error))
    finally:
        client.close()
    return seen


def test_ten_sessions(report: Report, server: Server) -> None:
    alone = walk(server, 100, ALONE)
    assert not alone.problems, alone.problems
    with ThreadPoolExecutor(PEOPLE) as pool:
        walks = [pool.submit(walk, server, seed, SECONDS) for seed in range(PEOPLE)]
        memory = []
        while not all(item.done() for item in walks):
            time.sleep(1)
            memory.append(server.memory())
        tours = [item.result() for item in walks]
    problems = [problem for tour in tours for problem in tour.problems]
    assert not problems, problems
    assert not server.problems(), server.written()
    one = statistics.median(alone.seconds)
    each = [second for tour in tours for second in tour.seconds]
    middle, last = (
        statistics.median(part)
        for part in (memory[55:65], memory[int(SECONDS) - 10 : int(SECONDS)])
    )
    report.notes.append(
        f"- {PEOPLE} sessions with 10,000 x 100 each for {SECONDS:.0f} s: "
        f"{len(each)} pages, median {statistics.median(each):.2f} s, slowest "
        f"{max(each):.1f} s; alone {one:.2f} s. Memory {middle / 1e6:.0f} MB in the "
        f"middle, {last / 1e6:.0f} MB at the end."
    )
    work = "a page of ten sessions, against three times that of one"
    slow = not report.within(work, statistics.median(each), SLOWER * one)
    assert not slow
    assert last <= (1 + GROWTH) * middle
