"""Fit probmetrics' structured scaling for the tests; writes structured_peers.json.

The library needs torch, too heavy for a test dependency. The values were made by::

    python3.11 -m venv peers
    peers/bin/pip install probmetrics==1.3.0 torch==2.13.0
    peers/bin/python tests/golden/make_structured_peers.py
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from probmetrics.calibrators import get_calibrator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from linear_problems import PROBLEMS, probabilities, problem

SHOWN = 3  # rows whose probabilities are stored


def main() -> None:
    """Write the NLL of the test rows, and the first probabilities."""
    found = {}
    for name in PROBLEMS:
        own = problem(name)
        p, p_test = probabilities(own.z), probabilities(own.z_test)
        found[name] = {"uncalibrated": nll(p_test, own.y_test)}
        for method in ("svs", "sms"):
            made = get_calibrator(method).fit(p, own.y)
            q = made.predict_proba(p_test)
            found[name][method] = {
                "nll": nll(q, own.y_test),
                "probabilities": np.round(q[:SHOWN], 9).tolist(),
            }
    versions = {library: version(library) for library in ("probmetrics", "torch")}
    document = {"versions": versions, "problems": found}
    path = Path(__file__).with_name("structured_peers.json")
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


def nll(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean NLL."""
    return float(-np.log(p[np.arange(len(y)), y]).mean())


if __name__ == "__main__":
    main()
