"""Ranking statistics of many resamples at once: one row of weights per resample."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from numba import njit

from core.kernels.exp import _HELPER, _KERNEL

__all__: list[str] = []


@njit(**_HELPER)
def _harmonic(x, table):
    """Return the harmonic number of x, extended to fractions by its digamma form."""
    if table.size > 0:
        return table[int(x)]
    shift = 0.0
    while x < 8.0:
        x += 1.0
        shift += 1.0 / x
    # H(x) = ln x + gamma + 1/(2x) - 1/(12x^2) + 1/(120x^4) - ...; 1e-14 from x = 8 on
    inverse = 1.0 / (x * x)
    series = inverse * (
        1.0 / 12.0
        - inverse
        * (
            1.0 / 120.0
            - inverse * (1.0 / 252.0 - inverse * (1.0 / 240.0 - inverse / 132.0))
        )
    )
    return math.log(x) + 0.5772156649015329 + 0.5 / x - series - shift


@njit(**_KERNEL)
def _ranking_kernel(
    weights, order, outcome, ends, table, start, stop, area, separation
):
    """Write AURC and AUROC of resamples start to stop; rows of a tie end at `ends`.

    `weights` is (b, n); `order` sorts rows by falling confidence; `outcome` is in
    that order; `table` holds harmonic numbers where all weights are whole.
    """
    for b in range(start, stop):
        seen = 0.0
        errors = 0.0
        right = 0.0
        risk = 0.0
        pairs = 0.0
        last = 0.0
        first = 0
        for end in ends:
            size = 0.0
            hits = 0.0
            for i in range(first, end):
                w = weights[b, order[i]]
                size += w
                hits += w * outcome[i]
            first = end
            if size == 0.0:
                continue
            wrong = size - hits
            here = _harmonic(seen + size, table)
            risk += wrong + (errors - wrong / size * seen) * (here - last)
            last = here
            pairs += wrong * (right + 0.5 * hits)
            seen += size
            errors += wrong
            right += hits
        # Nothing drawn, or nothing to tell apart: undefined.
        area[b] = risk / seen if seen > 0.0 else math.nan
        both = right * errors
        separation[b] = pairs / both if both > 0.0 else math.nan
    return -1
