"""Calibrators: scikit-learn estimators over logits, entered in `CALIBRATORS`."""

from core.calibrators.base import (
    CALIBRATORS,
    Calibrator,
    CalibratorMethod,
    neg_log_loss_scorer,
)
from core.calibrators.histogram import HistogramBinning
from core.calibrators.isotonic import IsotonicCalibration
from core.calibrators.logistic import BetaCalibration, PlattScaling
from core.calibrators.one_vs_rest import OneVsRest
from core.calibrators.scaling import TemperatureScaling, Uncalibrated
from core.calibrators.vector import VectorScaling

__all__ = [
    "CALIBRATORS",
    "BetaCalibration",
    "Calibrator",
    "CalibratorMethod",
    "HistogramBinning",
    "IsotonicCalibration",
    "OneVsRest",
    "PlattScaling",
    "TemperatureScaling",
    "Uncalibrated",
    "VectorScaling",
    "neg_log_loss_scorer",
]
