"""Scores of the logits alone: how sure the network is, in many ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators import TemperatureScaling
from core.messages import Progress
from core.ood.base import DETECTORS, Detector
from core.ood.rows import Rows
from core.registry import Param
from core.z_loss import z_losses

__all__ = [
    "ODIN",
    "Energy",
    "Entropy",
    "GeneralisedEntropy",
    "LogPartition",
    "Margin",
    "MaxLogit",
    "MaxSoftmax",
    "TemperatureSoftmax",
    "ZLoss",
]

FloatArray = NDArray[np.floating[Any]]

TEMPERATURE = Param(
    "temperature",
    "Temperature",
    "float",
    1.0,
    1e-3,
    1e6,
    help="The logits are divided by it; 1 leaves them as they are.",
)


def known(values: FloatArray | None) -> FloatArray:
    """Return a statistic that rows with class scores always have."""
    assert values is not None  # noqa: S101 - only confidences lack it
    return values


@DETECTORS.register(
    "max-softmax",
    label="Max softmax",
    reference="Hendrycks and Gimpel 2017, arXiv:1610.02136",
    formula=r"-\max_k \mathrm{softmax}(z)_k",
    aliases=("msp",),
)
class MaxSoftmax(Detector):
    """Minus the largest probability: the baseline that every paper compares with."""

    fits_on = "nothing"
    takes_confidences = True
    assumes = "The network is less sure of what it does not know."

    def _score(self, rows: Rows) -> FloatArray:
        return -rows.statistics().confidence


@DETECTORS.register(
    "temperature-softmax",
    label="Temperature-scaled max softmax",
    reference="Guo et al. 2017, arXiv:1706.04599; Zhang et al. 2023, arXiv:2306.09301",
    formula=r"-\max_k \mathrm{softmax}(z / T)_k,\quad T = \arg\min \mathrm{NLL}",
    aliases=("tempscale", "temperature-scaled-softmax"),
)
class TemperatureSoftmax(Detector):
    """Minus the largest probability at the temperature of least log loss.

    Attributes
    ----------
    temperature_ : float
        Fitted by maximum likelihood on the reference rows.

    Notes
    -----
    The temperature of rows that trained the network is too low: give rows that it
    has not seen.
    """

    requires = frozenset({"logits", "labels"})
    fits_on = "held-out"
    assumes = "The rows that fit the temperature did not train the network."

    temperature_: float

    def _fit(self, rows: Rows, progress: Progress) -> None:
        made = TemperatureScaling().fit(rows.logits, rows.labels, progress=progress)
        self.temperature_ = made.temperature_
        self.notes_ += made.notes_

    def _score(self, rows: Rows) -> FloatArray:
        return -rows.statistics(self.temperature_).confidence

    def _state(self) -> dict[str, Any]:
        return {"temperature": self.temperature_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])


@DETECTORS.register(
    "gen",
    label="Generalised entropy (GEN)",
    reference="Liu, Lochman and Zach 2023, CVPR",
    formula=r"\sum_{k \in \text{top } M} p_k^{\gamma} (1 - p_k)^{\gamma}",
    params=(
        Param(
            "gamma",
            "Exponent",
            "float",
            0.1,
            0.001,
            10.0,
            help="Exponent of the probabilities; small ones listen to the tail.",
        ),
        Param(
            "n_classes",
            "Classes",
            "int",
            100,
            2,
            1_000_000,
            help="Only this many of the largest probabilities count.",
        ),
    ),
    aliases=("generalised-entropy", "generalized-entropy"),
)
class GeneralisedEntropy(Detector):
    """Generalised entropy of the largest probabilities, which weighs the tail."""

    fits_on = "nothing"
    assumes = "Unknown inputs spread probability over the classes of the tail."

    def __init__(self, *, gamma: float = 0.1, n_classes: int = 100) -> None:
        self.gamma = gamma
        self.n_classes = n_classes

    def _score(self, rows: Rows) -> FloatArray:
        statistics = rows.statistics()
        top = known(statistics.max_logit)
        total = known(statistics.logsumexp)
        others = rows.logits.copy()
        n, k = others.shape
        others[np.arange(n), rows.prediction] = -np.inf
        # What the largest probability lacks of 1 is the sum of the others: the
        # difference of the two would keep few digits where it is nearly 1.
        below = np.exp(others - top[:, None].astype(others.dtype))
        rest = below.sum(axis=1, dtype=np.float64)
        if self.n_classes < k:
            others = np.partition(others, k - self.n_classes, axis=1)
            others = others[:, k - self.n_classes + 1 :]
        log_p = np.minimum(others - total[:, None], 0.0)
        with np.errstate(divide="ignore"):  # a class at -inf, or one at 1, adds 0
            lead = top - total + np.log(rest) - np.log1p(rest)
            log_products = log_p + np.log(-np.expm1(log_p))
        found = np.exp(self.gamma * log_products).sum(axis=1)
        return np.asarray(found + np.exp(self.gamma * lead))


@DETECTORS.register(
    "energy",
    label="Energy",
    reference="Liu et al. 2020, arXiv:2010.03759",
    formula=r"-T \log \sum_k \exp(z_k / T)",
    params=(TEMPERATURE,),
)
class Energy(Detector):
    """Free energy of the logits; adding c to every logit lowers it by c."""

    fits_on = "nothing"
    needs_logit_scale = True
    assumes = "Logits as the network gives them: their level is what is measured."

    def __init__(self, *, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _score(self, rows: Rows) -> FloatArray:
        statistics = rows.statistics(self.temperature)
        return -self.temperature * known(statistics.logsumexp)


@DETECTORS.register(
    "max-logit",
    label="Max logit",
    reference="Hendrycks et al. 2022, arXiv:1911.11132",
    formula=r"-\max_k z_k",
    tier="more",
    aliases=("mls",),
)
class MaxLogit(Detector):
    """Minus the largest logit."""

    fits_on = "nothing"
    needs_logit_scale = True
    assumes = "Logits as the network gives them: their level is what is measured."

    def _score(self, rows: Rows) -> FloatArray:
        return -known(rows.statistics().max_logit)


@DETECTORS.register(
    "entropy",
    label="Entropy",
    reference="Chan, Rottmann and Gottschalk 2021, arXiv:2012.06575",
    formula=r"-\sum_k p_k \log p_k",
    tier="more",
)
class Entropy(Detector):
    """Entropy of the probabilities, in nats."""

    fits_on = "nothing"
    assumes = "The network is less sure of what it does not know."

    def _score(self, rows: Rows) -> FloatArray:
        return known(rows.statistics().entropy)


@DETECTORS.register(
    "margin",
    label="Margin",
    reference="Scheffer, Decomain and Wrobel 2001, LNCS 2189",
    formula=r"-(p_{(1)} - p_{(2)})",
    tier="more",
)
class Margin(Detector):
    """Minus the lead of the largest probability over the second."""

    fits_on = "nothing"
    assumes = "The network is less sure of what it does not know."

    def _score(self, rows: Rows) -> FloatArray:
        return -known(rows.statistics().margin)


@DETECTORS.register(
    "z-loss",
    label="Z-loss of the prediction",
    reference="de Brébisson and Vincent 2016, arXiv:1604.08859",
    formula=(
        r"\ln\left(1 + e^{-\zeta}\right),\quad \zeta = (\max_k z_k - \bar z) / "
        r"\sqrt{\tfrac1K \textstyle\sum_k (z_k - \bar z)^2}"
    ),
    tier="more",
    aliases=("z-score",),
)
class ZLoss(Detector):
    """Z-loss of the largest logit: how little it stands out of its row.

    Notes
    -----
    Neither a temperature nor a constant added to a row changes it, so that it also
    ranks probabilities, and rows of any scale alike: it sees only the shape of a row.
    With two classes every row has the same score. Its loss of labels is the metric
    "z-loss"; the penalty of language models of that name is "log-partition".
    """

    fits_on = "nothing"
    assumes = "The shape of the logits tells rows apart; their scale says nothing."

    def _score(self, rows: Rows) -> FloatArray:
        return z_losses(rows.logits, rows.prediction)


@DETECTORS.register(
    "log-partition",
    label="Squared log-partition",
    reference="Chowdhery et al. 2022 (PaLM), arXiv:2204.02311",
    formula=r"\left(\log \sum_k \exp z_k\right)^2",
    tier="more",
)
class LogPartition(Detector):
    """Squared log-sum-exp: the z-loss that some language models are trained to lower.

    Notes
    -----
    Where training held it near 0, rows are odd that are far from it on either side.
    Elsewhere the log-sum-exp of known rows is large, and "energy" ranks by its sign.
    """

    fits_on = "nothing"
    needs_logit_scale = True
    assumes = "A network that was trained with this penalty on its logits."

    def _score(self, rows: Rows) -> FloatArray:
        return known(rows.statistics().logsumexp) ** 2


@DETECTORS.register(
    "odin",
    label="ODIN without gradients",
    reference="Liang, Li and Srikant 2018, arXiv:1706.02690",
    formula=r"-(\max_k z_k - \bar z)\quad\text{or}\quad"
    r"-\max_k \mathrm{softmax}(z / T)_k",
    params=(
        Param(
            "form",
            "Form",
            "choice",
            "limit",
            choices=("limit", "softmax"),
            help="Largest logit minus the mean one, which is how a very high "
            "temperature ranks rows, or the softmax at the temperature itself.",
        ),
        Param(
            "temperature",
            "Temperature",
            "float",
            1000.0,
            1e-3,
            1e6,
            help="Of the softmax form.",
        ),
    ),
    tier="more",
)
class ODIN(Detector):
    """Max softmax at a very high temperature; ODIN's input gradient is not available.

    Notes
    -----
    As T grows the largest probability tends to (1 + (max z - mean z) / T) / K, so that
    rows rank as by max z - mean z. This default form keeps the digits that the softmax
    at T = 1000 loses to rounding.
    """

    fits_on = "nothing"
    assumes = "Nothing of the input perturbation, which is half of the published ODIN."

    def __init__(self, *, form: str = "limit", temperature: float = 1000.0) -> None:
        self.form = form
        self.temperature = temperature

    def _score(self, rows: Rows) -> FloatArray:
        if self.form == "softmax":
            return -rows.statistics(self.temperature).confidence
        logits = rows.logits
        total = logits.sum(axis=1, dtype=np.float64)
        mean = total / logits.shape[1]
        if not np.isfinite(total).all():  # the mean of the classes that are there
            given = np.isfinite(logits)
            mean = np.where(given, logits, 0).sum(axis=1, dtype=np.float64)
            mean /= given.sum(axis=1)
        return np.asarray(mean - known(rows.statistics().max_logit))
