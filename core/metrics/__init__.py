"""Metrics, each a function of labels and probabilities and an entry in `METRICS`."""

from core.metrics.base import METRICS, RowScores, row_scores, scores_from_probabilities
from core.metrics.calibration_error import (
    Bins,
    expected_calibration_error,
    squared_calibration_error,
)
from core.metrics.estimation import Sample, changes, estimates
from core.metrics.scoring_rules import (
    accuracy,
    brier_score,
    negative_log_likelihood,
    signed_gap,
)
from core.metrics.selective import area_under_risk_coverage, correctness_auroc

__all__ = [
    "METRICS",
    "Bins",
    "RowScores",
    "Sample",
    "accuracy",
    "area_under_risk_coverage",
    "brier_score",
    "changes",
    "correctness_auroc",
    "estimates",
    "expected_calibration_error",
    "negative_log_likelihood",
    "row_scores",
    "scores_from_probabilities",
    "signed_gap",
    "squared_calibration_error",
]
