"""Metrics, each a function of labels and probabilities and an entry in `METRICS`."""

from core.metrics.base import METRICS, RowScores, row_scores, scores_from_probabilities
from core.metrics.calibration_error import (
    Bins,
    expected_calibration_error,
    squared_calibration_error,
)
from core.metrics.classwise import (
    class_bins,
    classwise_calibration_error,
    classwise_squared_error,
)
from core.metrics.corp import reliability_curve, score_part
from core.metrics.curves import CURVES, Curve
from core.metrics.decomposition import brier_term
from core.metrics.design import Design
from core.metrics.distances import (
    adaptive_calibration_error,
    ks_calibration_error,
    maximum_calibration_error,
    root_mean_squared_calibration_error,
)
from core.metrics.estimation import Sample, changes, estimates
from core.metrics.optimal_temperature import optimal_temperature
from core.metrics.ranking import mean_z_loss
from core.metrics.scoring_rules import (
    accuracy,
    brier_score,
    negative_log_likelihood,
    signed_gap,
)
from core.metrics.selective import area_under_risk_coverage, correctness_auroc
from core.metrics.sharpness import excess_area, mean_entropy, sharpness
from core.metrics.smooth import (
    smooth_calibration_error,
    smooth_calibration_error_relplot,
    smooth_reliability_curve,
)

__all__ = [
    "CURVES",
    "METRICS",
    "Bins",
    "Curve",
    "Design",
    "RowScores",
    "Sample",
    "accuracy",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "brier_score",
    "brier_term",
    "changes",
    "class_bins",
    "classwise_calibration_error",
    "classwise_squared_error",
    "correctness_auroc",
    "estimates",
    "excess_area",
    "expected_calibration_error",
    "ks_calibration_error",
    "maximum_calibration_error",
    "mean_entropy",
    "mean_z_loss",
    "negative_log_likelihood",
    "optimal_temperature",
    "reliability_curve",
    "root_mean_squared_calibration_error",
    "row_scores",
    "score_part",
    "scores_from_probabilities",
    "sharpness",
    "signed_gap",
    "smooth_calibration_error",
    "smooth_calibration_error_relplot",
    "smooth_reliability_curve",
    "squared_calibration_error",
]
