"""Entry of `python -m app`."""

import gc
import os
import sys
from pathlib import Path

from app.cli import main

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    # The cache that `make` fills; Numba reads the variable when it is imported.
    if os.access(ROOT, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))
    # What a command imports stays: to look through it for garbage while it grows takes
    # a tenth of a second.
    gc.set_threshold(50_000)
    sys.exit(main())
