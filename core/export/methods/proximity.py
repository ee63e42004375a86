"""Export of the proximity-aware calibrator: NumPy code that reads features too."""

from __future__ import annotations

from core.export.methods.base import Writer, refusing
from core.export.methods.row_temperature import RAISED

__all__ = ["EXPORTS"]

_CODE = (
    '''

def calibrated(z, h):
    """Map the confidence at T by a table, by how near the row lies to known ones."""
    place, here = z.argmax(axis=1), np.arange(len(z))
    others = z.copy()
    others[here, place] = -np.inf
    second = others.max(axis=1)
    is_open = second > -np.inf
    shift = np.where(is_open, second, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = np.exp((others - shift[:, None]) / TEMPERATURE).sum(axis=1)
        log_rest = np.log(mass) - (z[here, place] - second) / TEMPERATURE
        log_q = -np.logaddexp(0.0, log_rest)
        change = log_odds(log_q, log_rest + log_q, proximity(h)) + log_rest
    logs = log_softmax(z, TEMPERATURE)
    return raised(logs, place, np.where(is_open, change, 0.0))


def proximity(h):
    """Return exp(-mean distance to the nearest reference rows / SCALE)."""
    reference = np.array(REFERENCE)
    found = np.empty(len(h))
    step = max(1, 4_000_000 // reference.size)
    for start in range(0, len(h), step):
        rows = slice(start, start + step)
        squares = (h[rows, None, :] - reference[None, :, :]) ** 2
        distance = np.sort(np.sqrt(squares.sum(axis=2)), axis=1)
        found[rows] = distance[:, :N_NEIGHBOURS].mean(axis=1)
    return np.exp(-found / SCALE)


def log_odds(log_q, log_rest, d):
    """Return the log-odds that the table gives."""
    table = {name: np.array(values) for name, values in TABLE.items()}
    values, q = table["values"], np.exp(log_q)
    if FORM == "density-ratio":
        row, up = places(table["proximity"], d)
        column, right = places(table["confidence"], q)
        below = np.minimum(row + 1, values.shape[0] - 1)
        after = np.minimum(column + 1, values.shape[1] - 1)
        first = values[row, column] * (1 - right) + values[row, after] * right
        second = values[below, column] * (1 - right) + values[below, after] * right
        return first * (1 - up) + second * up
    row = np.searchsorted(table["proximity"], d)
    column = (q[:, None] > table["confidence"][row]).sum(axis=1)
    shift, least = values[row, column], table["least"][0]
    right = np.clip(q + shift, least, 1 - least)
    moved = np.log(right) - np.log(1 - right)
    return np.where(shift == 0, log_q - np.maximum(log_rest, -700.0), moved)


def places(knots, values):
    """Return the knot below each value, and how far it is on the way to the next."""
    if len(knots) < 2:
        return np.zeros(len(values), int), np.zeros(len(values))
    low = np.searchsorted(knots[1:-1], values, side="right")
    share = (values - knots[low]) / (knots[low + 1] - knots[low])
    return low, np.clip(share, 0.0, 1.0)
'''
    + RAISED
)

_WHY = (
    "It reads the features of each row and keeps those of fit rows: an ONNX or torch "
    "file of a calibrator takes scores only."
)

EXPORTS = {
    "proximity": refusing(
        Writer(
            formula=(
                "q, the largest of softmax(z / T), to a table's value at q and "
                "D = exp(-mean distance of the features to the nearest reference rows "
                "/ s); the others share the rest"
            ),
            constants={
                "TEMPERATURE": "temperature",
                "N_NEIGHBOURS": "n_neighbours",
                "SCALE": "scale",
                "FORM": "form",
                "TABLE": "table",
                "REFERENCE": "reference",
            },
            code=_CODE,
        ),
        _WHY,
    ),
}
"""By id of the calibrator."""
