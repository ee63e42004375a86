"""How each calibrator is written as plain NumPy: one entry of `WRITERS` per method.

The texts below become the module that a user takes home, and the reader that checks
an exported JSON file. Words between @ signs are replaced; everything that comes from
a user's file is inserted as a literal (see `core.export.literals`), never as code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "FROM_PROBABILITIES",
    "LOGITS_EXPECTED",
    "MODULE",
    "PROBABILITIES_EXPECTED",
    "WRITERS",
    "Writer",
]


@dataclass(frozen=True, slots=True)
class Writer:
    """What an exported module says and does for one calibrator.

    Parameters
    ----------
    formula : str
        The convention, in terms of the logits z; kept in every artefact.
    constants : mapping of str to str
        Name in the module -> name in the calibrator's own state.
    code : str
        Defines ``calibrated(z)``: float64 logits (n, k) to probabilities (n, k).
    is_sound : callable
        Whether the state of a calibrator from a file can be meant for k classes;
        called with the state and k. May raise KeyError, TypeError or ValueError.
    """

    formula: str
    constants: Mapping[str, str]
    code: str
    is_sound: Callable[[Mapping[str, Any], int], bool] = lambda state, k: True  # noqa: ARG005

    def convention(self, input_kind: str) -> str:
        """Return the formula with what z means for this kind of input."""
        if input_kind == "probabilities":
            return (
                f"{self.formula}, z = log(p); one binary probability p means the "
                "logits (log(1 - p), log(p))"
            )
        return f"{self.formula}; one binary score z means the logits (0, z)"


MODULE = '''"""@SUMMARY@: calibrated class probabilities, with NumPy only.

    probabilities = @ENTRY@(@ARGUMENT@)  # (n, k), columns as in CLASSES

@EXPECTS@

@CONVENTION@

As a program it tests itself on EXAMPLE_INPUTS; given two file names, in.npy and
out.npy, it calibrates an array first. Written by Plumbline: FIT says from which rows
and with what result.
"""

import sys

import numpy as np

@CONSTANTS@
TOLERANCE = 1e-9  # of the self-test, on any machine
BLOCK = 1_000_000  # scores calibrated at once


def calibrate(logits):
    """Return probabilities (n, k) of logits: (n, k), or binary (n,) or (n, 1)."""
    z = checked_logits(logits)
    result = np.empty(z.shape)
    step = max(1, BLOCK // z.shape[1])
    for start in range(0, len(z), step):
        rows = slice(start, start + step)
        result[rows] = calibrated(z[rows])
    return result
@FROM_PROBABILITIES@@CODE@

def log_softmax(z, temperature=1.0):
    """Return log-probabilities; the largest logit of a row is subtracted first."""
    z = (z - z.max(axis=1, keepdims=True)) / temperature
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def checked_logits(logits):
    """Return logits as float64 rows with one column per class."""
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim == 1:
        z = z[:, None]
    if z.ndim == 2 and z.shape[1] == 1 and len(CLASSES) == 2:
        z = np.hstack([np.zeros_like(z), z])
    if z.ndim != 2 or z.shape[1] != len(CLASSES):
        raise ValueError(f"expected shape (n, {len(CLASSES)}), got {np.shape(logits)}")
    if np.isnan(z).any() or (z == np.inf).any() or (z == -np.inf).all(axis=1).any():
        raise ValueError("logits are finite, or -inf for some classes of a row")
    return z


def self_test():
    """Return the largest difference from the probabilities that were expected."""
    found = @ENTRY@(np.array(EXAMPLE_INPUTS, dtype=np.float64))
    return float(np.abs(found - np.array(EXAMPLE_OUTPUTS)).max())


def main(arguments):
    """Calibrate an array if two file names are given; test in any case."""
    if len(arguments) not in (0, 2):
        print("usage: python THIS_FILE [in.npy out.npy]", file=sys.stderr)
        return 2
    if arguments:
        scores = np.load(arguments[0], allow_pickle=False)
        np.save(arguments[1], @ENTRY@(scores))
    difference = self_test()
    is_right = difference <= TOLERANCE
    print(f"{'OK' if is_right else 'FAILED'}: self-test differs by {difference:.1e}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''

LOGITS_EXPECTED = """\
It expects logits, one column per class. One binary score, of shape
(n,) or (n, 1), is that of the second class."""

PROBABILITIES_EXPECTED = """\
It expects probabilities, one column per class. One binary
probability, of shape (n,) or (n, 1), is that of the second class. Their logarithms, or
logits, go to `calibrate` instead."""

FROM_PROBABILITIES = '''

def calibrate_probabilities(probabilities):
    """Return calibrated ones of probabilities: (n, k), or binary (n,) or (n, 1).

    Exact zeros count as exp(LOG_FLOOR), as they did in the rows of the fit.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim == 1:
        p = p[:, None]
    if p.ndim != 2 or not ((p >= 0) & (p <= 1 + 1e-6)).all():
        raise ValueError("expected rows of numbers between 0 and 1")
    if p.shape[1] > 1 and (p == 0).all(axis=1).any():
        raise ValueError("every probability of a row is 0")
    with np.errstate(divide="ignore"):
        if p.shape[1] == 1:
            p = np.minimum(p, 1)
            logs = np.hstack([np.log1p(-p), np.log(p)])
        else:
            logs = np.log(p)
    return calibrate(np.where(logs == -np.inf, LOG_FLOOR, logs))
'''

_UNCALIBRATED = '''

def calibrated(z):
    """Return the probabilities as they are."""
    return np.exp(log_softmax(z))
'''

_TEMPERATURE = '''

def calibrated(z):
    """Divide the logits by T."""
    return np.exp(log_softmax(z, TEMPERATURE))
'''

_RENORMALISED = '''

def renormalised(p, z):
    """Return rows that sum to 1; classes at -inf stay 0, rows of zeros are uniform."""
    p = np.where(z == -np.inf, 0.0, p)
    p = np.where(p.sum(axis=1, keepdims=True) > 0, p, z > -np.inf)
    return p / p.sum(axis=1, keepdims=True)
'''

_ISOTONIC = (
    '''

def calibrated(z):
    """Map each class by its curve, renormalise, mix with what was there before."""
    p = np.exp(log_softmax(z))
    curves = [(np.array(curve["x"]), np.array(curve["y"])) for curve in CURVES]
    mapped = np.empty(p.shape)
    if p.shape[1] == 2:
        mapped[:, 1] = np.interp(p[:, 1], *curves[0])
        mapped[:, 0] = 1.0 - mapped[:, 1]
    else:
        for column, curve in enumerate(curves):
            mapped[:, column] = np.interp(p[:, column], *curve)
    return (1.0 - MIXING) * renormalised(mapped, z) + MIXING * p
'''
    + _RENORMALISED
)

_VECTOR = '''

def calibrated(z):
    """Give the logit of each class its own slope and offset."""
    with np.errstate(invalid="ignore"):
        scores = z * np.array(WEIGHTS) + np.array(BIAS)
    scores[z == -np.inf] = -np.inf
    return np.exp(log_softmax(scores))
'''

_LOG_CHANCES = '''

def log_chances(z):
    """Return log(p) and log(1 - p), neither below -700."""
    top = z.argmax(axis=1)[:, None]
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    rest = total - e
    np.put_along_axis(e, top, 0.0, axis=1)
    # Near 1, the difference would be rounding noise: add the other classes instead.
    np.put_along_axis(rest, top, e.sum(axis=1, keepdims=True), axis=1)
    with np.errstate(divide="ignore"):
        log_rest = np.log(rest)
    log_total = np.log(total)
    return np.maximum(z - log_total, -700.0), np.maximum(log_rest - log_total, -700.0)


def from_scores(scores, z):
    """Return the probabilities of log-odds of each class against the rest."""
    if scores.shape[1] == 1:
        scores = np.hstack([-scores, scores])
    logs = np.where(z == -np.inf, -np.inf, -np.logaddexp(0.0, -scores))
    best = logs.max(axis=1, keepdims=True)
    logs = np.where(np.exp(best) == 0, -np.inf, logs - best)
    return renormalised(np.exp(logs), z)
'''

_PLATT = (
    '''

def calibrated(z):
    """Map the log-odds of each class by a sigmoid, renormalise."""
    log_p, log_rest = log_chances(z)
    odds = (log_p - log_rest)[:, -len(SLOPE) :]
    return from_scores(np.array(SLOPE) * odds + np.array(INTERCEPT), z)
'''
    + _LOG_CHANCES
    + _RENORMALISED
)

_BETA = (
    '''

def calibrated(z):
    """Map each class by a ratio of beta densities, renormalise."""
    log_p, log_rest = (part[:, -len(A) :] for part in log_chances(z))
    return from_scores(np.array(A) * log_p - np.array(B) * log_rest + np.array(C), z)
'''
    + _LOG_CHANCES
    + _RENORMALISED
)

_HISTOGRAM = (
    '''

def calibrated(z):
    """Look each class up in its bins, (lo, hi] with 0 in the first; renormalise."""
    p = np.exp(log_softmax(z))
    mapped = np.empty(p.shape)
    for column, bins in enumerate(BINS if len(BINS) > 1 else BINS * 2):
        place = np.searchsorted(bins["edges"][1:-1], p[:, column], side="left")
        mapped[:, column] = np.array(bins["values"])[place]
    if len(BINS) == 1:
        mapped[:, 0] = 1.0 - mapped[:, 1]
    return renormalised(mapped, z)
'''
    + _RENORMALISED
)


def _are_curves(state: Mapping[str, Any], k: int) -> bool:
    """One curve per class, or one for two classes, from [0, 1] to [0, 1]."""
    curves = [
        np.array(curve[axis], dtype=np.float64)
        for curve in state["maps"]
        for axis in ("x", "y")
    ]
    inside = [c.ndim == 1 and bool(((c >= 0) & (c <= 1)).all()) for c in curves]
    n_curves = 1 if k == 2 else k
    return len(curves) == 2 * n_curves and all(inside) and 0 < state["mixing"] < 1


def _are_bins(state: Mapping[str, Any], k: int) -> bool:  # noqa: ARG001
    """From 0 to 1; the rest is the calibrator's to check."""
    ends = [(bins["edges"][0], bins["edges"][-1]) for bins in state["maps"]]
    return all(first == 0 and last == 1 for first, last in ends)


WRITERS: dict[str, Writer] = {
    "uncalibrated": Writer(formula="softmax(z)", constants={}, code=_UNCALIBRATED),
    "temperature": Writer(
        formula="softmax(z / T)",
        constants={"TEMPERATURE": "temperature"},
        code=_TEMPERATURE,
    ),
    "isotonic": Writer(
        formula="(1 - m) * normalised f_k(p_k) + m * p_k, p = softmax(z)",
        constants={"MIXING": "mixing", "CURVES": "maps"},
        code=_ISOTONIC,
        is_sound=_are_curves,
    ),
    "vector": Writer(
        formula="softmax(w * z + b)",
        constants={"WEIGHTS": "weights", "BIAS": "bias"},
        code=_VECTOR,
    ),
    "platt": Writer(
        formula="normalised sigmoid(A_k * logit(p_k) + B_k), p = softmax(z)",
        constants={"SLOPE": "slope", "INTERCEPT": "intercept"},
        code=_PLATT,
    ),
    "beta": Writer(
        formula=(
            "normalised sigmoid(a_k * log(p_k) - b_k * log(1 - p_k) + c_k), "
            "p = softmax(z)"
        ),
        constants={"A": "a", "B": "b", "C": "c"},
        code=_BETA,
    ),
    "histogram": Writer(
        formula="normalised value of the bin of p_k, p = softmax(z)",
        constants={"BINS": "maps"},
        code=_HISTOGRAM,
        is_sound=_are_bins,
    ),
}
"""How each registered calibrator is written; a contract test wants one for each."""
