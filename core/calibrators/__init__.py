"""Calibrators: scikit-learn estimators over logits, entered in `CALIBRATORS`."""

from core.calibrators.base import CALIBRATORS, Calibrator, neg_log_loss_scorer
from core.calibrators.isotonic import IsotonicCalibration
from core.calibrators.scaling import TemperatureScaling, Uncalibrated

__all__ = [
    "CALIBRATORS",
    "Calibrator",
    "IsotonicCalibration",
    "TemperatureScaling",
    "Uncalibrated",
    "neg_log_loss_scorer",
]
