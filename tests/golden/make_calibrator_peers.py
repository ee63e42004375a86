"""Fit calibrators of other libraries for the tests; writes calibrator_peers.json.

The libraries are too heavy to be test dependencies. The values were made by::

    python3.11 -m venv peers
    peers/bin/pip install betacal==1.1.0 netcal==1.4.0 numpy==2.3.5 torch==2.13.0
    peers/bin/python tests/golden/make_calibrator_peers.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from betacal import BetaCalibration
from netcal.binning import HistogramBinning
from netcal.scaling import BetaCalibration as NetcalBeta
from netcal.scaling import LogisticCalibration

N, K, SHOWN, BINS = 400, 4, 40, 10
LIBRARIES = ("betacal", "netcal", "numpy", "scikit-learn")


def rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return overconfident logits, rounded so that they are stored exactly."""
    rng = np.random.default_rng(30 + k)
    logits = np.round(rng.normal(0, 3, (N, k)), 3)
    labels = (logits / 2 + rng.gumbel(size=(N, k))).argmax(axis=1)
    return logits, labels


def falling(a: float, b: float) -> np.ndarray:
    """Return labels of the binary rows from a map with a negative slope."""
    p = probabilities(rows(2)[0])[:, 1]
    score = a * np.log(p) - b * np.log(1 - p)
    draws = np.random.default_rng(40).random(N)
    return (draws < 1 / (1 + np.exp(-score))).astype(int)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return softmax of the rows."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def betacal(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Return a, b, c of the three-parameter map, and its values."""
    fit = BetaCalibration(parameters="abm").fit(p.reshape(-1, 1), y)
    inner = fit.calibrator_
    a, b, _ = inner.map_
    return {
        "a": float(a),
        "b": float(b),
        "c": float(inner.lr_.intercept_[0]),
        "p": fit.predict(p)[:SHOWN].tolist(),
    }


def main() -> None:
    """Write the inputs, the values and the versions."""
    two, two_labels = rows(2)
    no_a, no_b = falling(-0.3, 0.8), falling(0.8, -0.3)
    many, many_labels = rows(K)
    p_two, p_many = probabilities(two)[:, 1], probabilities(many)
    histogram = HistogramBinning(bins=BINS).fit(p_two, two_labels)
    values = {
        "betacal": betacal(p_two, two_labels),
        "betacal_no_a": betacal(p_two, no_a),
        "betacal_no_b": betacal(p_two, no_b),
        "netcal_beta": NetcalBeta().fit(p_two, two_labels).transform(p_two),
        "netcal_logistic": LogisticCalibration()
        .fit(p_two, two_labels)
        .transform(p_two),
        "netcal_histogram": histogram.transform(p_two),
        "netcal_histogram_many": HistogramBinning(bins=BINS)
        .fit(p_many, many_labels)
        .transform(p_many),
    }
    document = {
        "versions": {name: version(name) for name in LIBRARIES},
        "bins": BINS,
        "binary": {"logits": two.tolist(), "labels": two_labels.tolist()},
        "no_a": no_a.tolist(),
        "no_b": no_b.tolist(),
        "many": {"logits": many.tolist(), "labels": many_labels.tolist()},
        "values": {
            name: value[:SHOWN].tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        },
    }
    path = Path(__file__).with_name("calibrator_peers.json")
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
