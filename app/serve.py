"""Start the app: python -m app.serve, with the flags of `streamlit run`.

`streamlit run app/main.py` shows the same pages; here their modules are imported while
the browser loads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

_ARENA_MAX = -8  # of glibc's mallopt


def main(flags: Sequence[str]) -> None:
    """Serve the app until it is stopped.

    Parameters
    ----------
    flags : sequence of str
        Flags of `streamlit run`.
    """
    _share_arena()
    # What is imported stays: to look through it takes a fifth of the time. `ready`
    # turns the search for garbage on again.
    gc.disable()
    # Threads of BLAS wait for work without giving up their core: a quarter of a second
    # of it until the first chart is there.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
    from app import ahead

    ahead.begin()
    from streamlit.web import cli

    from app import ready

    ready.begin()
    cli.main(["run", str(Path(__file__).with_name("main.py")), *flags])


def _share_arena() -> None:
    """Have threads allocate from one place, of which what is free can be given back.

    Else what a thread imports stays between what others free: 60 MB of a server.
    """
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


if __name__ == "__main__":
    main(sys.argv[1:])
