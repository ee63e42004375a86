"""The module of plain NumPy that a user takes home, around the code of one method.

The texts below also become the reader that checks an exported JSON file. Words
between @ signs are replaced; everything that comes from a user's file is inserted as
a literal (see `core.export.literals`), never as code.
"""

__all__ = [
    "CHECKED_COPIES",
    "CHECKED_FEATURES",
    "COPIES_EXPECTED",
    "COPIES_WORDS",
    "FEATURES_EXPECTED",
    "FEATURES_WORDS",
    "FROM_PROBABILITIES",
    "LOGITS_EXPECTED",
    "MODULE",
    "PROBABILITIES_EXPECTED",
]

MODULE = '''"""@SUMMARY@: calibrated class probabilities, with NumPy only.

    probabilities = @ENTRY@(@ARGUMENT@@COPIES@)  # (n, k), columns as in CLASSES

@EXPECTS@

@CONVENTION@

As a program it tests itself on EXAMPLE_INPUTS; given file names, @FILES@,
it calibrates an array first. Written by Plumbline: FIT says from which rows and with
what result.
"""

import sys

import numpy as np

@CONSTANTS@
TOLERANCE = 1e-9  # of the self-test, on any machine
BLOCK = 1_000_000  # scores calibrated at once


def calibrate(logits@COPIES@):
    """Return probabilities (n, k) of logits: (n, k), or binary (n,) or (n, 1)."""
    z = checked_logits(logits)
@CHECK@    result = np.empty(z.shape)
    step = max(1, BLOCK // z.shape[1])
    for start in range(0, len(z), step):
        rows = slice(start, start + step)
        result[rows] = calibrated(z[rows]@COPY_ROWS@)
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
    examples = [@EXAMPLES@]
    found = @ENTRY@(*(np.array(rows, dtype=np.float64) for rows in examples))
    return float(np.abs(found - np.array(EXAMPLE_OUTPUTS)).max())


def main(arguments):
    """Calibrate an array if file names are given; test in any case."""
    if len(arguments) not in (0, @N_FILES@):
        print("usage: python THIS_FILE [@USAGE@]", file=sys.stderr)
        return 2
    if arguments:
        given = [np.load(name, allow_pickle=False) for name in arguments[:-1]]
        np.save(arguments[-1], @ENTRY@(*given))
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

COPIES_EXPECTED = """\
It also expects what the same model says of @N@ transformed copies of each row, in the
same way: `copies`, one array per transform, in the order of the fit."""

CHECKED_COPIES = '''

def checked_copies(copies, n):
    """Return logits of the copies of n rows, (N_COPIES, n, k)."""
    c = np.stack([checked_logits(copy) for copy in copies])
    if c.shape[:2] != (N_COPIES, n):
        raise ValueError(f"expected {N_COPIES} copies of {n} rows, got {c.shape[:2]}")
    return c
'''

COPIES_WORDS = {
    "file": "copies.npy ",
    "name": ", copies",
    "check": "    c = checked_copies(copies, len(z))\n",
    "rows": ", c[:, rows]",
    "logs": ", [logarithms(c) for c in copies]",
    "example": ", EXAMPLE_COPIES",
}
"""What copies change in the module, by the place."""

FEATURES_EXPECTED = """\
It also expects the activations that the same network has for each row: `features`, of
shape (n, @N@), of the layer that it was fitted on."""

CHECKED_FEATURES = '''

def checked_features(features, n):
    """Return features of n rows as float64, (n, @N@)."""
    h = np.asarray(features, dtype=np.float64)
    if h.shape != (n, @N@) or not np.isfinite(h).all():
        raise ValueError(f"expected finite features of shape ({n}, @N@), got {h.shape}")
    return h
'''

FEATURES_WORDS = {
    "file": "features.npy ",
    "name": ", features",
    "check": "    h = checked_features(features, len(z))\n",
    "rows": ", h[rows]",
    "logs": ", features",
    "example": ", EXAMPLE_FEATURES",
}
"""What features change in the module, by the place."""

FROM_PROBABILITIES = '''

def calibrate_probabilities(probabilities@COPIES@):
    """Return calibrated ones of probabilities: (n, k), or binary (n,) or (n, 1).

    Exact zeros count as exp(LOG_FLOOR), as they did in the rows of the fit.
    """
    return calibrate(logarithms(probabilities)@COPY_LOGS@)


def logarithms(probabilities):
    """Return the logarithms of rows of probabilities."""
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
    return np.where(logs == -np.inf, LOG_FLOOR, logs)
'''
