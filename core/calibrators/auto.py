"""Auto: the candidate with the lowest cross-validated log loss, and why."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.one_vs_rest import effective_rows
from core.folds import fold_numbers
from core.messages import Note, Progress, part_of
from core.registry import Param

__all__ = ["FEWEST_PER_CLASS", "AutoCalibration"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

FEWEST_PER_CLASS = 20  # fit rows per class below which one temperature is all
MOST_CLASSES = 200  # beyond it a matrix has too many numbers to be tried
DETECTABLE = 2.0  # paired standard errors: a smaller gain is no reason to change
N_FOLDS = 5
SEED = 0
_SAFE = "temperature"
_BINARY = (_SAFE, "ensemble-temperature", "platt", "beta")
_MULTICLASS = (_SAFE, "ensemble-temperature", "structured-vector", "structured-matrix")


@CALIBRATORS.register(
    "auto",
    label="Auto",
    reference="Van der Laan, Polley and Hubbard 2007 (discrete super learner)",
    formula=(
        r"\arg\min_{g \in G} \frac{1}{n} \sum_i -\ln g_{-f(i)}(z_i)_{y_i},\quad "
        r"G = \{\text{temperature, ensemble, structured vector, structured matrix}\}"
    ),
    params=(
        Param(
            "keep_predictions",
            "Keep my predictions",
            "bool",
            default=True,
            help=(
                "Whether the predicted class stays as it is: where a candidate would "
                "change it, its answer is moved no further than that takes."
            ),
        ),
    ),
    aliases=("automatic",),
    when="Always a good start: it takes what these rows support, and says why.",
    not_when="A fixed method was promised beforehand, or fits must be quick.",
    cost="Five times the fits of four methods.",
)
class AutoCalibration(Calibrator):
    """Try four calibrators by cross-validation and fit the one with the lowest loss.

    Parameters
    ----------
    keep_predictions : bool, default=True
        Whether the predicted class stays as it is.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    chosen_ : Calibrator
        The best candidate, fitted on all rows: it maps, and it is what is exported.
    losses_ : dict of str to float
        Id of each candidate -> mean cross-validated NLL; empty where rows are too few
        for a choice.
    difference_, standard_error_ : float
        Of the lowest mean loss from that of temperature scaling (of the second lowest,
        where temperature scaling has the lowest), paired by rows, or by groups; NaN
        without a choice.
    reason_ : str
        Why it was chosen, in a sentence.

    Notes
    -----
    Candidates: temperature and ensemble temperature scaling; with two classes Platt
    scaling (affine in the log-odds) and beta calibration, with more of them structured
    vector and (up to 200 classes) structured matrix scaling. With fewer than 20 rows
    per class temperature scaling is taken without a trial. Five folds, stratified,
    groups kept together, with the seed 0: the choice depends on the rows alone. The
    lowest loss wins if it is detectably below that of temperature scaling, by two
    paired standard errors; otherwise nothing speaks against the one number that is
    hardest to overfit, and it is taken.

    With `keep_predictions`, rows whose predicted class a candidate would change get
    the distribution nearest to its answer that predicts the old class
    (`core.calibrators.keeping`); candidates are compared with that step.

    References
    ----------
    .. [1] M. J. van der Laan, E. C. Polley, A. E. Hubbard, "Super learner",
       Statistical Applications in Genetics and Molecular Biology 6, 2007.
    """

    # With the default option; `keeps_predictions` speaks of one fit.
    is_accuracy_preserving = True

    chosen_: Calibrator
    losses_: dict[str, float]
    difference_: float
    standard_error_: float
    reason_: str

    def __init__(self, *, keep_predictions: bool = True, input: str = "logits") -> None:
        self.keep_predictions = keep_predictions
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 1: of the simplest candidate; a fit says what it came to."""
        return 1

    @property
    def n_fitted_(self) -> int:
        """Numbers that the chosen calibrator fitted."""
        return self.chosen_.n_fitted_

    @property
    def keeps_predictions(self) -> bool:
        """Whether this fit never changes which class is predicted."""
        return bool(self.keep_predictions) or self.chosen_.keeps_predictions

    @property
    def exported(self) -> Calibrator:
        """The chosen calibrator: that is what exports write."""
        return self.chosen_

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        k = logits.shape[1]
        n_rows = effective_rows(sample_weight)
        units = y.size if groups is None else np.unique(groups).size
        self.losses_ = {}
        self.difference_ = self.standard_error_ = math.nan
        if n_rows < FEWEST_PER_CLASS * k or units < N_FOLDS:
            chosen = self._because(
                _SAFE,
                f"{n_rows:,.0f} fit rows for {k:,} classes are fewer than "
                f"{FEWEST_PER_CLASS} per class, too few to choose by.",
            )
        else:
            trial = _Trial(logits, y, sample_weight, groups, self.keep_predictions)
            chosen = self._choose(trial, part_of(progress, 0.0, 0.8))
        last = part_of(progress, 0.8, 1.0)
        self.chosen_ = _fitted(
            chosen, logits, y, sample_weight, groups, self.keep_predictions, last
        )
        self.notes_ += self.chosen_.notes_
        self.notes_.append(Note("auto-choice", "info", self.reason_))

    def _choose(self, trial: _Trial, progress: Progress) -> str:
        names: tuple[str, ...] = _BINARY if trial.k == 2 else _MULTICLASS
        if trial.k > MOST_CLASSES:
            names = names[:-1]
        losses: dict[str, FloatArray] = {}
        for number, name in enumerate(names):
            ends = (place / len(names) for place in (number, number + 1))
            losses[name] = trial.losses(name, part_of(progress, *ends))
        self.losses_ = {name: trial.mean(rows) for name, rows in losses.items()}
        finite = {n: v for n, v in self.losses_.items() if math.isfinite(v)}
        if not finite:
            return self._because(_SAFE, "no candidate has a finite loss.")
        chosen = min(finite, key=lambda name: finite[name])
        others = [name for name in finite if name != chosen]
        if not others:
            return self._because(chosen, "no other has a finite loss.")
        rival = min(others, key=lambda name: finite[name])
        if chosen != _SAFE and _SAFE in finite:
            rival = _SAFE
        self.difference_, self.standard_error_ = trial.difference(
            losses[chosen], losses[rival]
        )
        gain = f"{-self.difference_:.4f} (paired standard error "
        gain += f"{self.standard_error_:.4f})"
        nll = f"cross-validated NLL, {finite[chosen]:.4f}"
        if rival == _SAFE and -self.difference_ < DETECTABLE * self.standard_error_:
            why = f"{_label(chosen)} has the lowest {nll}, but a gain of {gain} is "
            return self._because(_SAFE, why + "not detectable.")
        return self._because(
            chosen,
            f"it has the lowest {nll}, of {len(names)} methods, {gain} below that of "
            f"{_label(rival)}.",
        )

    def _because(self, method: str, why: str) -> str:
        self.reason_ = f"Auto chose {_label(method)}: {why}"
        return method

    def _transform(self, logits: FloatArray) -> FloatArray:
        found = self.chosen_.transform(logits)
        return np.asarray(found)

    def _state(self) -> dict[str, Any]:
        """Return the "chosen" calibrator as its own `to_dict` says it, and why.

        "losses" are the cross-validated mean NLL of the candidates, "reason" is a
        sentence. The map is that of the chosen calibrator.
        """
        return {
            "chosen": self.chosen_.to_dict(),
            "losses": {
                name: value if math.isfinite(value) else None
                for name, value in self.losses_.items()
            },
            "reason": self.reason_,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        chosen = dict(state["chosen"])
        if chosen["method"] not in (*_BINARY, *_MULTICLASS):
            msg = f"{chosen['method']!r} is no candidate"
            raise ValueError(msg)
        self.chosen_ = Calibrator.from_dict(chosen)
        losses = dict(state["losses"])
        self.losses_ = {
            str(name): math.inf if value is None else float(value)
            for name, value in losses.items()
        }
        self.difference_ = self.standard_error_ = math.nan
        self.reason_ = str(state["reason"])

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen and its fitted numbers."""
        return {"chosen": self.chosen_.method_id, **self.chosen_.parameters()}


class _Trial:
    """Cross-validates candidates on the same folds."""

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        groups: IndexArray | None,
        keep: bool,  # noqa: FBT001
    ) -> None:
        self.logits, self.y, self.weight, self.groups = logits, y, weight, groups
        self.keep, self.k = keep, logits.shape[1]
        codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
        self.codes = codes
        self.fold = fold_numbers(y, codes, N_FOLDS, SEED)

    def losses(self, name: str, progress: Progress) -> FloatArray:
        """Return the NLL of each row by a fit on the other folds; infinite at worst."""
        found = np.empty(self.y.size)
        for number in range(N_FOLDS):
            into = self.fold == number
            rest = ~into
            ends = (place / N_FOLDS for place in (number, number + 1))
            if not into.any() or not self.weight[rest].any():
                found[into] = np.inf
                continue
            made = _fitted(
                name,
                self.logits[rest],
                self.y[rest],
                self.weight[rest],
                None if self.groups is None else self.groups[rest],
                self.keep,
                part_of(progress, *ends),
            )
            log_p = made.transform(self.logits[into])
            here = np.arange(len(log_p))
            found[into] = -log_p[here, self.y[into]].astype(np.float64)
        return found

    def mean(self, losses: FloatArray) -> float:
        """Return the weighted mean over the rows whose label is not ruled out."""
        used = self._used()
        return float(np.average(losses[used], weights=self.weight[used]))

    def difference(self, first: FloatArray, second: FloatArray) -> tuple[float, float]:
        """Return the mean of (first - second) and its standard error."""
        used = self._used()
        share = self.weight[used] / self.weight[used].sum()
        step = first[used] - second[used]
        mean = float(share @ step)
        sums = share * (step - mean)
        n = sums.size
        if self.codes is not None:
            sums = np.bincount(self.codes[used], weights=sums)
            n = np.unique(self.codes[used]).size
        spread = math.sqrt(float(sums @ sums) * n / max(n - 1, 1))
        return mean, spread

    def _used(self) -> IndexArray:
        possible = np.isfinite(self.logits[np.arange(self.y.size), self.y])
        return np.flatnonzero(possible & (self.weight > 0))


def _fitted(
    name: str,
    logits: FloatArray,
    y: IndexArray,
    weight: FloatArray,
    groups: IndexArray | None,
    keep: bool,  # noqa: FBT001
    progress: Progress,
) -> Calibrator:
    # The arrays are checked already.
    made: Calibrator = CALIBRATORS[name]()
    made.notes_ = []
    made.classes_, made.n_features_in_ = np.arange(logits.shape[1]), logits.shape[1]
    made._fit(logits, y, weight, groups=groups, progress=progress)
    made.keeps_predictions_ = bool(keep) and not made.is_accuracy_preserving
    return made


def _label(name: str) -> str:
    label = CALIBRATORS[name].label
    return label[:1].lower() + label[1:]
