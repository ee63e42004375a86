"""Matrix scaling and Dirichlet calibration: every class has a say in every other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.checks import possible_weight
from core.calibrators.matrix_fit import MatrixFit, Ridge
from core.calibrators.one_vs_rest import LOWEST_LOG
from core.calibrators.scaling import fitted_temperature
from core.calibrators.structured import checked_numbers, matrix_summary, row_blocks
from core.folds import fold_numbers
from core.messages import Note, Progress, part_of
from core.registry import Param
from core.softmax import log_softmax

__all__ = ["DirichletCalibration", "MatrixScaling"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_STRENGTHS = (100.0, 10.0, 1.0, 0.1, 0.01)
_N_FOLDS = 3
_N_ERRORS = 2.0  # standard errors within which the stronger ridge is taken
_LOOSE = 1e-4  # gradient at which a fit of the cross-validation may stop


_STRENGTH = Param(
    "strength",
    "Strength of the ridge",
    "float",
    0.0,
    minimum=0.0,
    maximum=1e6,
    help=(
        "How strongly the matrix is held to the common temperature, 1 as in structured "
        "matrix scaling; 0 chooses it by cross-validation."
    ),
)


class _Linear(Calibrator):
    """What both kinds do: scores W x + b, where x is made of one row of logits."""

    matrix_: FloatArray
    bias_: FloatArray
    temperature_: float
    gradient_: float
    nll_before_: float
    nll_after_: float
    n_iterations_: int
    strength_: float
    path_: list[tuple[float, float]]

    def __init__(self, *, strength: float = 0.0, input: str = "logits") -> None:
        self.strength = strength
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return k * k for the matrix and k for the offsets."""
        return k * (k + 1)

    @staticmethod
    @abstractmethod
    def _inputs(logits: FloatArray) -> FloatArray:
        """Return x in float64: finite, 0 where a class is ruled out; (n, k)."""

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        if not 0.0 <= float(self.strength) < np.inf:
            msg = f"strength must be a finite number, 0 or more, got {self.strength!r}"
            raise ValueError(msg)
        weight = self._begin(logits, y, sample_weight, groups, progress)
        self.strength_, self.path_ = float(self.strength) or _STRENGTHS[0], []
        if not self.strength and weight.any():
            self._choose(logits, y, weight, groups, progress)
        fit = self._made(logits, y, weight, self.temperature_)
        ridge = Ridge.structured(self.strength_, logits.shape[1], fit.n_rows)
        done = 0.7 if self.path_ else 0.1

        def step() -> None:
            share = min(0.95, done + (1 - done) * fit.n_passes / 60)
            progress(share, "Fitting the matrix")

        self._take(fit, fit.minimise(ridge, step))

    def _begin(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        groups: IndexArray | None,
        progress: Progress,
    ) -> FloatArray:
        """Fit the temperature; return the weights, 0 where a label is ruled out."""
        part = part_of(progress, 0.0, 0.05)
        first = fitted_temperature(logits, y, sample_weight, groups, part)
        self.notes_ += first.notes_
        self.temperature_ = first.temperature_
        return possible_weight(logits, y, sample_weight)

    def _choose(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        """Choose the strength by cross-validation."""
        used = np.flatnonzero(weight > 0)
        units = None if groups is None else groups[used]
        n_units = used.size if units is None else np.unique(units).size
        n_folds = min(_N_FOLDS, n_units)
        if n_folds < 2:
            return
        numbers = fold_numbers(y[used], units, n_folds, 0)
        folds = [
            self._fold(logits, y, weight, used[numbers != i], used[numbers == i])
            for i in range(n_folds)
        ]
        out = np.concatenate([used[numbers == number] for number in range(n_folds)])
        codes = None if groups is None else np.unique(groups[out], return_inverse=True)
        found: list[FloatArray] = []
        for place, strength in enumerate(_STRENGTHS):

            def step(place: int = place) -> None:
                share = 0.05 + 0.65 * place / len(_STRENGTHS)
                progress(share, "Choosing the strength of the ridge")

            found.append(np.concatenate([fold(strength, step) for fold in folds]))
            means = [float(np.average(losses, weights=weight[out])) for losses in found]
            if place >= int(np.argmin(means)) + 2:
                break
        self.path_ = list(zip(_STRENGTHS, means, strict=False))
        best = found[int(np.argmin(means))]
        # The strongest ridge that the best does not beat beyond noise.
        for (strength, _), losses in zip(self.path_, found, strict=True):
            excess = losses - best
            mean = np.average(excess, weights=weight[out])
            parts = weight[out] * (excess - mean)
            if codes is not None:
                parts = np.bincount(codes[1], parts)
            if mean <= _N_ERRORS * np.sqrt(parts @ parts) / weight[out].sum():
                self.strength_ = strength
                return

    def _fold(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        rows: IndexArray,
        out: IndexArray,
    ) -> Callable[[float, Callable[[], None]], FloatArray]:
        """Return what fits some rows, and gives the NLL of each of the others."""
        first = fitted_temperature(logits[rows], y[rows], weight[rows])
        fit = self._made(logits[rows], y[rows], weight[rows], first.temperature_)
        fit.tolerance = _LOOSE
        test = self._made(logits[out], y[out], weight[out], first.temperature_)
        theta = fit.start

        def losses(strength: float, step: Callable[[], None]) -> FloatArray:
            ridge = Ridge.structured(strength, logits.shape[1], fit.n_rows)
            theta[...] = fit.minimise(ridge, step, theta)
            return test.row_losses(theta)

        return losses

    def _made(
        self, logits: FloatArray, y: IndexArray, weight: FloatArray, temperature: float
    ) -> MatrixFit:
        """Return what fits a matrix to rows, relative to a temperature."""
        x = np.empty(logits.shape)
        for rows in row_blocks(logits):
            x[rows] = self._inputs(logits[rows])
        x /= temperature
        is_ruled_out = np.isneginf(logits)
        return MatrixFit(x, y, weight, is_ruled_out if is_ruled_out.any() else None)

    def _take(self, fit: MatrixFit, theta: FloatArray) -> None:
        """Keep what was found, and what is known of it."""
        self.matrix_ = theta[:, :-1] / self.temperature_
        self.bias_ = theta[:, -1].copy()
        self.nll_before_ = fit.loss(fit.start)
        self.nll_after_ = fit.loss(theta)
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        if not self.gradient_ <= fit.tolerance:
            text = (
                f"The fit stopped with a gradient of {self.gradient_:.2g} after "
                f"{self.n_iterations_} passes."
            )
            self.notes_.append(Note("not-converged", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)
        for rows in row_blocks(logits):
            scores = self._inputs(logits[rows]) @ self.matrix_.T
            scores += self.bias_
            scores[np.isneginf(logits[rows])] = -np.inf
            result[rows] = log_softmax(scores, algorithm="three-pass")
        return result

    def parameters(self) -> dict[str, Any]:
        """Return strength, diagonal, offsets and the largest element off the diagonal.

        The strength is unknown of one that was read from a file.
        """
        known = hasattr(self, "strength_")
        more = {"strength": self.strength_} if known else {}
        return {**more, **matrix_summary(self.matrix_, self.bias_)}

    def _restore(self, state: dict[str, Any]) -> None:
        shape = self.classes_.shape
        self.matrix_ = checked_numbers(state["matrix"], (*shape, *shape))
        self.bias_ = checked_numbers(state["bias"], shape)


@CALIBRATORS.register(
    "matrix",
    label="Matrix scaling",
    reference="Guo et al. 2017, arXiv:1706.04599",
    formula=(
        r"\mathrm{softmax}(W z + b),\quad \min_{W, b}\ \mathrm{NLL} + "
        r"\lambda \frac{K}{n} \left(\textstyle\sum_i (T W_{ii} - 1)^2 + "
        r"\lVert b \rVert^2\right) + \lambda \frac{K (K - 1)}{n} "
        r"\textstyle\sum_{i \ne j} (T W_{ij})^2"
    ),
    params=(_STRENGTH,),
    when="Many rows, and logits whose level says something.",
    not_when="Few rows per class, many classes, or predictions must stay.",
    cost="Up to 16 fits of K x K numbers: seconds at 5,000 x 100.",
    tier="more",
    aliases=("matrix-scaling", "ms"),
)
class MatrixScaling(_Linear):
    """Make the score of each class of the logits of all classes, and an offset.

    Parameters
    ----------
    strength : float, default=0.0
        lambda, how strongly the matrix is held to the identity over the common
        temperature and the offsets to 0; 0 chooses it from 100, 10, 1, 0.1 and 0.01 by
        cross-validation. In [1]_ all k * (k + 1) numbers are free, as with 1e-9: with
        100 classes and 5,000 rows that is far worse than no calibration.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    matrix_ : ndarray of shape (k, k)
        W: line i gives the score of class i.
    bias_ : ndarray of shape (k,)
        b, in nats.
    strength_, path_, temperature_, gradient_, nll_before_, nll_after_, n_iterations_
        As for `DirichletCalibration`.

    Notes
    -----
    The ridge is that of structured matrix scaling [2]_, its strength chosen as for
    `DirichletCalibration`; n is the effective number of rows. A class without fit rows
    keeps its line of the identity over T. Logits are taken as they are: where a
    constant is added to all logits of a row, W means something else; structured matrix
    scaling does not have this weakness. A class at -inf counts as 0 for the others. A
    pass costs O(n K^2).

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks", ICML 2017,
       arXiv:1706.04599.
    .. [2] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach, "Structured matrix scaling
       for multi-class calibration", AISTATS 2026, arXiv:2511.03685.
    """

    @staticmethod
    def _inputs(logits: FloatArray) -> FloatArray:
        return np.where(np.isneginf(logits), 0.0, logits).astype(np.float64)

    def _state(self) -> dict[str, Any]:
        """Return "matrix" W (k, k) and "bias" b (k): softmax(W z + b).

        Each row of logits is a column z, in which -inf counts as 0; classes at -inf
        stay 0.
        """
        return {"matrix": self.matrix_.tolist(), "bias": self.bias_.tolist()}


@CALIBRATORS.register(
    "dirichlet",
    label="Dirichlet calibration",
    reference="Kull et al. 2019, arXiv:1910.12656",
    formula=(
        r"\mathrm{softmax}(W \ln p + b),\quad \min_{W, b}\ \mathrm{NLL} + "
        r"\lambda \frac{K (K - 1)}{n} \textstyle\sum_{i \ne j} (T W_{ij})^2 + "
        r"\lambda \frac{K}{n} \left(\lVert b \rVert^2 + "
        r"\textstyle\sum_i (T W_{ii} - 1)^2\right)"
    ),
    params=(_STRENGTH,),
    when="Classes are mixed up, and there are rows to show how strongly.",
    not_when="More than some two hundred classes, or predictions must stay.",
    cost="Up to 16 fits of K x K numbers: seconds at 5,000 x 100.",
    aliases=("dircal-cv", "dirichlet-odir"),
)
class DirichletCalibration(_Linear):
    """Make the score of each class of the log-probabilities of all, held back by a CV.

    Parameters
    ----------
    strength : float, default=0.0
        lambda, how strongly the elements off the diagonal, the offsets and the
        diagonal are held; 0 chooses it from 100, 10, 1, 0.1 and 0.01 by the NLL of a
        cross-validation in 3 folds inside the fit rows (groups stay together): the
        strongest that the best does not beat by two paired standard errors.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    matrix_ : ndarray of shape (k, k)
        W: line i gives the score of class i.
    bias_ : ndarray of shape (k,)
        b, in nats.
    strength_ : float
        lambda of the fit.
    path_ : list of tuple of float
        Strengths that were tried, and the cross-validated NLL of each; empty where
        lambda was given.
    temperature_ : float
        T of temperature scaling on the same rows: the start of the fit.
    gradient_ : float
        Largest derivative of the objective at the optimum, in units in which
        curvatures are about 1: the certificate, at most 1e-6, or 2e-5 of larger fits.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows at T and at the optimum, without the ridge.
    n_iterations_ : int
        Passes over the rows after the temperature was found and lambda was chosen.

    Notes
    -----
    Off-diagonal and intercept regularisation (ODIR) of [1]_, whose two factors are
    here K (K - 1) / n and K / n times one strength, n the effective number of rows.
    [1]_ leaves the diagonal free; here it is held to 1 / T as the offsets are, without
    which 100 classes and 5,000 rows lose more than they gain. Folds begin with the
    strongest ridge, go on from each optimum to the next, and stop where two in turn
    are worse than the best. A class without fit rows keeps its line of the identity
    over T. Log-probabilities below -700 count as -700, those of classes at -inf as 0
    for the others. A pass costs O(n K^2).

    References
    ----------
    .. [1] M. Kull et al., "Beyond temperature scaling: obtaining well-calibrated
       multiclass probabilities with Dirichlet calibration", NeurIPS 2019,
       arXiv:1910.12656.
    """

    @staticmethod
    def _inputs(logits: FloatArray) -> FloatArray:
        logs = log_softmax(logits.astype(np.float64), algorithm="three-pass")
        return np.where(np.isneginf(logits), 0.0, np.maximum(logs, LOWEST_LOG))

    def _state(self) -> dict[str, Any]:
        """Return "matrix" W (k, k) and "bias" b (k): softmax(W log(p) + b).

        p = softmax(z), as a column; log(p) is at least -700, and 0 where z is -inf;
        classes at -inf stay 0.
        """
        return {"matrix": self.matrix_.tolist(), "bias": self.bias_.tolist()}
