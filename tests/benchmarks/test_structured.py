"""Structured scaling against probmetrics: as good on the test rows, and faster."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.side_by_side import Report, medians
from linear_problems import PROBLEMS, probabilities, problem

from core.calibrators import StructuredMatrixScaling, StructuredVectorScaling

pytestmark = pytest.mark.benchmark

# probmetrics' name, ours, and at least so many times as fast
METHODS = {
    "svs": (StructuredVectorScaling, 2.0),
    "sms": (StructuredMatrixScaling, 1.0),
}
TOLERANCE = 2e-3  # of the NLL, relative


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_structured_scaling(report: Report, name: str, method: str) -> None:
    peers = pytest.importorskip("probmetrics.calibrators")
    own, (kind, bar) = problem(name), METHODS[method]
    p, p_test = probabilities(own.z), probabilities(own.z_test)
    rows = np.arange(len(own.y_test))
    fit = kind().fit(own.z, own.y)
    theirs = peers.get_calibrator(method).fit(p, own.y)
    ours_nll = -np.log(fit.predict_proba(own.z_test)[rows, own.y_test]).mean()
    their_nll = -np.log(theirs.predict_proba(p_test)[rows, own.y_test]).mean()
    ours, other = medians(
        lambda: kind().fit(own.z, own.y),
        lambda: peers.get_calibrator(method).fit(p, own.y),
        runs=5,
    )
    ratio = report.line(f"{method} fit, {name}", ours, "probmetrics", other, bar)
    report.notes.append(
        f"- {method}, {name}: NLL of test rows {ours_nll:.5f}, probmetrics "
        f"{their_nll:.5f} ({ours_nll / their_nll - 1:+.3%})."
    )
    assert ours_nll == pytest.approx(their_nll, rel=TOLERANCE)
    assert ratio >= bar
