"""The correctness-aware calibrator: a temperature per row from transformed copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.row_losses import LOSSES, is_right
from core.calibrators.row_temperature import (
    NETWORK_PARAMS,
    NetworkTemperature,
    sorted_log_probabilities,
    top_places,
)
from core.calibrators.top_rows import raised
from core.messages import DataError, Note, Progress
from core.registry import Param

__all__ = ["TOP", "WEIGHTINGS", "CorrectnessAware", "copy_scores", "log_odds_change"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

TOP = 4
"""Classes of a row whose scores are looked up in its copies: its largest ones."""

WEIGHTINGS = ("none", "balanced", "target-accuracy")

_UNITS = 5
_LARGEST_CHANGE = 50.0  # of log-odds that a file may ask for


def copy_scores(logits: FloatArray, copies: FloatArray, count: int) -> FloatArray:
    """Return the probabilities that copies assign to the largest classes of a row.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
        Of the rows themselves: they only say which classes.
    copies : ndarray of shape (m, n, k)
        Logits of m transformed copies of every row.
    count : int
        Classes per row, at most k.

    Returns
    -------
    ndarray of shape (n, m * count)
        Copy by copy, each in the order of the row's own classes, largest first.
    """
    places = top_places(logits, count)
    parts = []
    for copy in copies:
        found = np.empty(places.shape)
        step = max(1, (1 << 20) // copy.shape[1])
        for start in range(0, len(copy), step):
            rows = slice(start, start + step)
            z = copy[rows].astype(np.float64)
            z -= z.max(axis=1, keepdims=True)
            total = np.exp(z).sum(axis=1, keepdims=True)
            best = np.take_along_axis(z, places[rows], axis=1)
            found[rows] = np.exp(best - np.log(total))
        parts.append(found)
    return np.hstack(parts)


def log_odds_change(accuracy: float, target: float) -> float:
    """Return what undoes weights that turn one accuracy into another, in log-odds.

    With weights target / accuracy for right rows and (1 - target) / (1 - accuracy)
    for wrong ones, the loss is lowest at confidences whose odds are too large by a
    constant factor; this is the logarithm of what they have to be multiplied by.

    Examples
    --------
    >>> round(log_odds_change(0.78, 0.5), 4)
    1.2657
    """
    return float(np.log(accuracy / (1 - accuracy)) - np.log(target / (1 - target)))


@CALIBRATORS.register(
    "correctness-aware",
    label="Correctness-aware",
    reference="Liu et al. 2024, arXiv:2404.13016",
    formula=(
        r"\mathrm{softmax}(z / T(\varphi)),\quad "
        r"T(\varphi) = T_0\, e^{2 \tanh(g(\varphi) / 2)},\quad "
        r"\min_g \frac{\sum_i w_i (\max_k p_{ik} - c_i)^2}{\sum_i w_i},\quad "
        r"c_i = [\text{row } i \text{ is right}]"
    ),
    params=(
        Param(
            "loss",
            "Loss",
            "choice",
            "correctness-aware",
            choices=LOSSES,
            help=(
                "What the network lowers: squared distance of the confidence from "
                "right or wrong, log loss, Brier score, or a mixture of the first two."
            ),
        ),
        Param(
            "mixture",
            "Share in the mixture",
            "float",
            0.5,
            minimum=0.0,
            maximum=1.0,
            help="Weight of the correctness-aware loss; the log loss has the rest.",
        ),
        Param(
            "weighting",
            "Weights",
            "choice",
            "none",
            choices=WEIGHTINGS,
            help=(
                "Whether right and wrong rows weigh alike (balanced, as in the paper), "
                "or as if another share of rows were right."
            ),
        ),
        Param(
            "target_accuracy",
            "Target accuracy",
            "float",
            0.5,
            minimum=0.01,
            maximum=0.99,
            help='The share of right rows that "target-accuracy" assumes.',
        ),
        Param(
            "undo_weighting",
            "Undo the weights",
            "bool",
            True,  # noqa: FBT003 - the default of the option
            help=(
                "Turn the result back into probabilities under the accuracy of the fit "
                "rows; weights alone make it speak of another accuracy."
            ),
        ),
        *NETWORK_PARAMS,
    ),
    aliases=("ca", "correctness-aware-temperature"),
    when=(
        "Wrong rows can be told from right ones, best with transformed copies of "
        "the inputs."
    ),
    not_when="Few wrong rows; nothing but plain log loss counts.",
    cost="Seconds: a small network, several starts.",
)
class CorrectnessAware(NetworkTemperature):
    """Give each row a temperature from what the network says of transformed copies.

    Parameters
    ----------
    loss : str, default="correctness-aware"
        With p the calibrated probabilities, q their largest and c = 1 where the
        prediction is right, else 0: "correctness-aware" (q - c)^2, "cross-entropy"
        -ln p_y, "squared-error" sum_k (p_k - [k = y])^2, or "mixture" of the first two.
    mixture : float, default=0.5
        Weight of (q - c)^2 in the mixture.
    weighting : {"none", "balanced", "target-accuracy"}, default="none"
        Weights of right and wrong rows: alike; such that both sides weigh the same,
        as in [1]_; or such that the right ones have the share `target_accuracy`.
    target_accuracy : float, default=0.5
    undo_weighting : bool, default=True
        Whether the weights are undone, exactly, so that the result speaks of the
        accuracy of the fit rows.
    ridge : float, default=1e-2
        Times half the sum of squared weights, on standardised inputs.
    restarts : int, default=3
        Random starts; 3-fold cross-validation of the loss inside the fit rows, by
        group where there are groups, chooses one, or none of them: then every row
        gets T0.
    seed : int, default=0
    input : {"logits", "probabilities"}, default="logits"
        Of the rows and of their copies.

    Attributes
    ----------
    n_copies_ : int
        Copies of each row that were given to the fit, and must be given to
        `transform`; 0 for the fallback.
    accuracy_ : float
        Share of right fit rows, by weight.
    log_odds_change_ : float
        What is added to the log-odds of the confidence to undo the weights; 0
        without weights.

    Notes
    -----
    phi holds, for each copy, the probabilities that it assigns to the 4 classes that
    the row itself ranks first [1]_. A row whose copies disagree with it gets a higher
    temperature. **Without copies** phi falls back to the row's own 4 largest
    log-probabilities (none below -30); a note says so, and the result is then a
    parameterised temperature with another loss.

    What differs from the released code (see "correctness-aware-released"): T starts
    at temperature scaling instead of at random weights and lies within a factor 7.4
    of it, tanh instead of ReLU, the full batch instead of mini-batches, and weights
    are optional. **Weights move the target**: with a share A of right rows and
    balanced weights, a row that is right with probability a is pulled to
    q = a (1 - A) / (a (1 - A) + (1 - a) A), so that a = 0.73 becomes 0.44 at A = 0.78.
    `undo_weighting` multiplies the odds of q by A / (1 - A) (in general by
    odds(A) / odds(A')), but never so far down that another class would be predicted.

    References
    ----------
    .. [1] Y. Liu, L. Wang, Y. Zou, J. Zou and L. Zheng, "Optimizing calibration by
       gaining aware of prediction correctness", arXiv:2404.13016 (2024).
    """

    accepts = frozenset({"copies"})

    n_copies_: int
    accuracy_: float
    log_odds_change_: float

    _hidden = (_UNITS,)

    def __init__(
        self,
        *,
        loss: str = "correctness-aware",
        mixture: float = 0.5,
        weighting: str = "none",
        target_accuracy: float = 0.5,
        undo_weighting: bool = True,
        ridge: float = 1e-2,
        restarts: int = 3,
        seed: int = 0,
        input: str = "logits",
    ) -> None:
        self.loss = loss
        self.mixture = mixture
        self.weighting = weighting
        self.target_accuracy = target_accuracy
        self.undo_weighting = undo_weighting
        self.ridge = ridge
        self.restarts = restarts
        self.seed = seed
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return T0 and the weights of the network, for the paper's three copies."""
        return 1 + (3 * min(TOP, k) + 1) * _UNITS + _UNITS + 1

    @property
    def reads(self) -> frozenset[str]:
        """What `transform` needs: copies if the fit had them."""
        has_copies = getattr(self, "n_copies_", 1) > 0
        return self.requires | (self.accepts if has_copies else frozenset())

    @property
    def _n_inputs(self) -> int:
        return min(TOP, int(self.classes_.size)) * max(1, self.n_copies_)

    def _inputs(self, logits: FloatArray, **extra: Any) -> FloatArray:
        count = min(TOP, int(self.classes_.size))
        if not self.n_copies_:
            return sorted_log_probabilities(logits, count)
        return copy_scores(logits, extra["copies"], count)

    def _fit(  # type: ignore[override]  # copies: see `requires`
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
        copies: FloatArray | None,
    ) -> None:
        self._check_options()
        self.n_copies_ = 0 if copies is None else len(copies)
        if copies is None:
            text = (
                "There are no transformed copies: T comes from the row's own "
                f"{min(TOP, logits.shape[1])} largest probabilities instead."
            )
            self.notes_.append(Note("without-copies", "warning", text))
        right = is_right(logits, y)
        self.accuracy_ = float(np.average(right, weights=sample_weight))
        by_outcome, self.log_odds_change_ = (1.0, 1.0), 0.0
        is_weighted = self.weighting != "none" and 0.0 < self.accuracy_ < 1.0
        if is_weighted:
            is_balanced = self.weighting == "balanced"
            target = 0.5 if is_balanced else float(self.target_accuracy)
            by_outcome = (
                target / self.accuracy_,
                (1.0 - target) / (1.0 - self.accuracy_),
            )
        self._fit_rows(
            *(logits, y, sample_weight, (self.loss, float(self.mixture))),
            by_outcome=by_outcome,
            groups=groups,
            progress=progress,
            copies=copies,
        )
        # Where every row has the common temperature, no weights were used.
        if is_weighted and self.undo_weighting and self.layers_:
            self.log_odds_change_ = log_odds_change(self.accuracy_, target)

    def _check_options(self) -> None:
        choices = {"loss": LOSSES, "weighting": WEIGHTINGS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                msg = f"{name} must be one of {known}, got {getattr(self, name)!r}"
                raise ValueError(msg)
        if not 0.0 < float(self.target_accuracy) < 1.0:
            msg = f"target_accuracy must be within 0 and 1, got {self.target_accuracy}"
            raise ValueError(msg)
        if not 0.0 <= float(self.mixture) <= 1.0:
            msg = f"mixture must be a share, got {self.mixture!r}"
            raise ValueError(msg)

    def _temperatures(
        self, logits: FloatArray, *, copies: FloatArray | None = None, **_: Any
    ) -> FloatArray:
        if self.n_copies_:
            check_copies(copies, self.n_copies_)
        return super()._temperatures(logits, copies=copies)

    def _transform(self, logits: FloatArray, **extra: Any) -> FloatArray:
        found = super()._transform(logits, **extra)
        if not self.log_odds_change_:
            return found
        return raised(found, logits.argmax(axis=1), self.log_odds_change_)

    def parameters(self) -> dict[str, Any]:
        """Return the common temperature, copies and what undoes the weights."""
        found = super().parameters() | {"n_copies": self.n_copies_}
        if self.log_odds_change_:
            found["log_odds_change"] = self.log_odds_change_
        return found

    def _state(self) -> dict[str, Any]:
        """Return softmax(z / T) with T = T0 exp(b tanh(g(x) / b)).

        "temperature" T0; "bound" b; "layers" of g, each with "weights" (n_in, n_out)
        and "bias" (n_out,), tanh in between, none where T = T0. x: for each of the
        "n_copies" copies, the probabilities that it gives the "n_top" largest classes
        of the row; without copies the row's own log-probabilities of them, none below
        -30. "log_odds_change" is added to the log-odds of the largest probability, but
        a fall stops 1e-6 above the log-probability of the second.
        """
        return super()._state() | {
            "n_copies": self.n_copies_,
            "n_top": min(TOP, int(self.classes_.size)),
            "log_odds_change": self.log_odds_change_,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.n_copies_ = int(state["n_copies"])
        if not 0 <= self.n_copies_ <= 1000:
            msg = f"the number of copies is {self.n_copies_}"
            raise ValueError(msg)
        super()._restore(state)
        self.log_odds_change_ = float(state["log_odds_change"])
        is_known = int(state["n_top"]) == min(TOP, int(self.classes_.size))
        if not is_known or not abs(self.log_odds_change_) <= _LARGEST_CHANGE:
            msg = "the number of classes or the change of log-odds is out of range"
            raise ValueError(msg)


def check_copies(copies: FloatArray | None, expected: int) -> None:
    """Refuse another number of copies than those of the fit.

    Raises
    ------
    DataError
    """
    n = 0 if copies is None else len(copies)
    if n != expected:
        raise DataError(
            f"This calibrator was fitted with {expected} transformed copies of each "
            f"row; {n} were given.",
            "copies",
            "Give the same transforms in the same order as for the fit.",
        )
