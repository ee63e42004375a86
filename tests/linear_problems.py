"""Five problems of 10 and 100 classes on which structured scaling meets its peer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

N_TEST = 10_000


class Problem(NamedTuple):
    """Logits and labels, to fit on and to test on."""

    z: NDArray[np.float64]
    y: NDArray[np.int64]
    z_test: NDArray[np.float64]
    y_test: NDArray[np.int64]


def _problem(
    seed: int, n: int, k: int, *, scale: float, t: float, bias: float, mix: float
) -> Problem:
    """Return scores that are t times too large, biased by class, and mixed.

    `scale` is the spread of the true logits; each class's score takes `mix` of that
    of another class, and `bias` is the spread of what is added to each class.
    """
    rng = np.random.default_rng(seed)
    true = scale * rng.standard_normal((n + N_TEST, k)) + rng.normal(0, 0.7, k)
    y = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    seen = true + mix * true[:, rng.permutation(k)] + rng.normal(0, bias, k)
    z = t * seen * rng.uniform(0.8, 1.2, k)
    return Problem(z[:n], y[:n], z[n:], y[n:])


PROBLEMS = {
    "10 classes, 1,000 rows, overconfident": (
        *(0, 1_000, 10),
        {"scale": 2.0, "t": 2.0, "bias": 0.3, "mix": 0.0},
    ),
    "10 classes, 5,000 rows, confused": (
        *(1, 5_000, 10),
        {"scale": 3.0, "t": 1.2, "bias": 0.2, "mix": 0.5},
    ),
    "10 classes, 2,000 rows, underconfident": (
        *(2, 2_000, 10),
        {"scale": 2.5, "t": 0.4, "bias": 1.0, "mix": 0.1},
    ),
    "100 classes, 5,000 rows, overconfident": (
        *(3, 5_000, 100),
        {"scale": 3.0, "t": 2.5, "bias": 0.3, "mix": 0.0},
    ),
    "100 classes, 10,000 rows, confused": (
        *(4, 10_000, 100),
        {"scale": 4.0, "t": 1.5, "bias": 0.5, "mix": 0.5},
    ),
}


def problem(name: str) -> Problem:
    """Return one of the problems."""
    seed, n, k, options = PROBLEMS[name]
    return _problem(seed, n, k, **options)


def probabilities(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return softmax of the rows."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
