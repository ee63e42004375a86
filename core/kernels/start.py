"""A kernel that does nothing: with it Numba loads all that it needs for the others."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from numba import njit

__all__ = ["start"]


@njit(cache=True)
def _nothing():
    return 0


def start() -> None:
    """Have Numba import what the first kernel of a process waits for otherwise."""
    _nothing()
