"""Out-of-distribution detectors, entered in `DETECTORS`, and what is measured of them.

Larger scores are more out-of-distribution, always.
"""

from core.ood.base import DETECTORS, Detector, DetectorMethod, score_all
from core.ood.boundaries import FDBD, NCI, GradNorm
from core.ood.combined import LogisticCombination, RankAverage, default_panel
from core.ood.curves import (
    Densities,
    densities,
    hardest_rows,
    precision_recall_points,
    rejected_rows,
    roc_points,
    scatter,
)
from core.ood.delong import compare_aurocs
from core.ood.detection import (
    INSIDE,
    Detection,
    Scored,
    SetScores,
    detect,
    detect_rows,
    fit_detector,
    measure_scores,
    study_reasons,
    unusable_reasons,
    with_threshold,
)
from core.ood.division import OodRows, divide, divide_inside, with_sets
from core.ood.evaluation import (
    OodEvaluation,
    SetsEvaluation,
    evaluate_ood,
    evaluate_sets,
)
from core.ood.given import GIVEN, measure_given, scored_table
from core.ood.in_turn import detect_in_turn
from core.ood.learned_temperature import LearnedTemperatureEnergy
from core.ood.logits import (
    ODIN,
    Energy,
    Entropy,
    GeneralisedEntropy,
    LogPartition,
    Margin,
    MaxLogit,
    MaxSoftmax,
    TemperatureSoftmax,
    ZLoss,
)
from core.ood.mahalanobis import (
    Mahalanobis,
    NormalisedMahalanobis,
    NormalisedRelativeMahalanobis,
    RelativeMahalanobis,
)
from core.ood.mixture import MixturePoint, mixtures
from core.ood.neighbours import SHE, NearestNeighbour, NNGuide
from core.ood.shaping import ASH, DICE, SCALE, VRA, ReAct
from core.ood.subspace import Residual, ViM
from core.ood.templates import KLMatching, OpenMax
from core.ood.thresholds import Threshold, choose_threshold

__all__ = [
    "ASH",
    "DETECTORS",
    "DICE",
    "FDBD",
    "GIVEN",
    "INSIDE",
    "NCI",
    "ODIN",
    "SCALE",
    "SHE",
    "VRA",
    "Densities",
    "Detection",
    "Detector",
    "DetectorMethod",
    "Energy",
    "Entropy",
    "GeneralisedEntropy",
    "GradNorm",
    "KLMatching",
    "LearnedTemperatureEnergy",
    "LogPartition",
    "LogisticCombination",
    "Mahalanobis",
    "Margin",
    "MaxLogit",
    "MaxSoftmax",
    "MixturePoint",
    "NNGuide",
    "NearestNeighbour",
    "NormalisedMahalanobis",
    "NormalisedRelativeMahalanobis",
    "OodEvaluation",
    "OodRows",
    "OpenMax",
    "RankAverage",
    "ReAct",
    "RelativeMahalanobis",
    "Residual",
    "Scored",
    "SetScores",
    "SetsEvaluation",
    "TemperatureSoftmax",
    "Threshold",
    "ViM",
    "ZLoss",
    "choose_threshold",
    "compare_aurocs",
    "default_panel",
    "densities",
    "detect",
    "detect_in_turn",
    "detect_rows",
    "divide",
    "divide_inside",
    "evaluate_ood",
    "evaluate_sets",
    "fit_detector",
    "hardest_rows",
    "measure_given",
    "measure_scores",
    "mixtures",
    "precision_recall_points",
    "rejected_rows",
    "roc_points",
    "scatter",
    "score_all",
    "scored_table",
    "study_reasons",
    "unusable_reasons",
    "with_sets",
    "with_threshold",
]
