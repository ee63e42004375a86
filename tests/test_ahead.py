"""The process that compiles while the first page is on its way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import ahead
from core import softmax
from core.kernels.objective import _objective_block_kernel

ROOT = Path(__file__).parents[1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return the commands of the processes that are started, none of them for real."""
    commands: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **options: Any) -> None:
            assert options["stdin"] == subprocess.PIPE
            commands.append(command)

        def wait(self) -> None:
            """Be over at once."""

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return commands


def test_an_empty_cache_has_a_second_process(started: list[list[str]]) -> None:
    ahead.begin()
    assert started == [[sys.executable, "-m", "app.ahead"]]


def test_a_cache_with_kernels_has_none(
    started: list[list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "kernels_1"
    folder.mkdir()
    (folder / "objective._objective_block_kernel-281.py311.nbi").touch()
    ahead.begin()
    assert started == []


def test_one_core_has_none(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    ahead.begin()
    assert started == []


def test_numbas_own_cache_is_left_alone(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    ahead.begin()
    assert started == []


@pytest.mark.jit
def test_the_kernel_that_is_looked_for_is_kept_by_that_name() -> None:
    softmax.warm_up([float])
    name = Path(_objective_block_kernel._cache._cache_file._index_name).name
    assert Path(name).match(ahead._A_KERNEL)


def test_the_process_ends_with_the_server() -> None:
    # Whoever holds the other end of its input goes away before anything is compiled.
    process = subprocess.Popen(
        [sys.executable, "-m", "app.ahead"], cwd=ROOT, stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
