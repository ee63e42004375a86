"""Kernels compiled by a second process while the first page is on its way.

Numba compiles one kernel at a time in a process. Where none is in its cache yet, the
page begins with those that it needs first, and the process here with the others, which
the page then finds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

__all__ = ["begin"]

ROOT = Path(__file__).resolve().parents[1]
_A_KERNEL = "objective._objective_block_kernel*.nbi"


def begin() -> None:
    """Start the process, if nothing is compiled and there is a core for it."""
    cache = os.environ.get("NUMBA_CACHE_DIR")
    if not cache or (os.cpu_count() or 1) < 2 or any(Path(cache).rglob(_A_KERNEL)):
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "app.ahead"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    threading.Thread(target=process.wait, name="plumbline-ahead", daemon=True).start()


def _end_with_the_server() -> None:
    sys.stdin.read()  # until whoever holds the other end is gone
    os._exit(0)


def main() -> None:
    """Compile what the first page needs, what it needs last before the rest."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    from core.warm_up import warm_up

    warm_up()


if __name__ == "__main__":
    main()
