"""Start the app: python -m app.serve, with the flags of `streamlit run`.

`streamlit run app/main.py` shows the same pages; here their modules are imported while
the browser loads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from streamlit.web import cli

from app import ready

__all__ = ["main"]


def main(flags: Sequence[str]) -> None:
    """Serve the app until it is stopped.

    Parameters
    ----------
    flags : sequence of str
        Flags of `streamlit run`.
    """
    ready.begin()
    cli.main(["run", str(Path(__file__).with_name("main.py")), *flags])


if __name__ == "__main__":
    main(sys.argv[1:])
