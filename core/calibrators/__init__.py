"""Calibrators: scikit-learn estimators over logits, entered in `CALIBRATORS`."""

from core.calibrators.auto import AutoCalibration
from core.calibrators.base import (
    CALIBRATORS,
    Calibrator,
    CalibratorMethod,
    neg_log_loss_scorer,
)
from core.calibrators.bias_corrected import BiasCorrectedTemperature
from core.calibrators.binned import AveragedBinnings, ScalingBinning
from core.calibrators.correctness import CorrectnessAware
from core.calibrators.correctness_released import CorrectnessAwareReleased
from core.calibrators.ensemble import EnsembleTemperature
from core.calibrators.entropy_target import EntropyTarget
from core.calibrators.histogram import HistogramBinning
from core.calibrators.i_max import IMaxBinning
from core.calibrators.isotonic import IsotonicCalibration
from core.calibrators.knots import CentredIsotonic, SplineCalibration
from core.calibrators.logistic import BetaCalibration, PlattScaling
from core.calibrators.matrix import DirichletCalibration, MatrixScaling
from core.calibrators.mixed import MixedStructuredMatrix, MixedTemperature
from core.calibrators.one_vs_rest import OneVsRest
from core.calibrators.order_preserving import IntraOrderPreserving
from core.calibrators.parameterised import ParameterisedTemperature
from core.calibrators.prior_shift import PriorShift, estimated_prevalence
from core.calibrators.proximity import ProximityAware
from core.calibrators.quadratic import QuadraticScaling
from core.calibrators.row_temperature import RowTemperature
from core.calibrators.scaling import TemperatureScaling, Uncalibrated
from core.calibrators.softplus import SoftplusLink
from core.calibrators.structured import (
    StructuredMatrixScaling,
    StructuredVectorScaling,
)
from core.calibrators.tempnet import SupervisedTempNet
from core.calibrators.top_curves import (
    TopVersusAllBeta,
    TopVersusAllHistogram,
    TopVersusAllIsotonic,
    TopVersusAllPlatt,
)
from core.calibrators.top_label import TopVersusAll
from core.calibrators.vector import NoBiasVectorScaling, VectorScaling
from core.calibrators.venn_abers import VennAbers

__all__ = [
    "CALIBRATORS",
    "AutoCalibration",
    "AveragedBinnings",
    "BetaCalibration",
    "BiasCorrectedTemperature",
    "Calibrator",
    "CalibratorMethod",
    "CentredIsotonic",
    "CorrectnessAware",
    "CorrectnessAwareReleased",
    "DirichletCalibration",
    "EnsembleTemperature",
    "EntropyTarget",
    "HistogramBinning",
    "IMaxBinning",
    "IntraOrderPreserving",
    "IsotonicCalibration",
    "MatrixScaling",
    "MixedStructuredMatrix",
    "MixedTemperature",
    "NoBiasVectorScaling",
    "OneVsRest",
    "ParameterisedTemperature",
    "PlattScaling",
    "PriorShift",
    "ProximityAware",
    "QuadraticScaling",
    "RowTemperature",
    "ScalingBinning",
    "SoftplusLink",
    "SplineCalibration",
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "SupervisedTempNet",
    "TemperatureScaling",
    "TopVersusAll",
    "TopVersusAllBeta",
    "TopVersusAllHistogram",
    "TopVersusAllIsotonic",
    "TopVersusAllPlatt",
    "Uncalibrated",
    "VectorScaling",
    "VennAbers",
    "estimated_prevalence",
    "neg_log_loss_scorer",
]
