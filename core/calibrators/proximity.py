"""Proximity-aware: the confidence corrected by how near a row lies to known ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.one_vs_rest import LOWEST_LOG, effective_rows
from core.calibrators.row_losses import is_right
from core.calibrators.row_temperature import divided
from core.calibrators.scaling import HIGHEST, LOWEST, TemperatureScaling
from core.calibrators.top_rows import raised, top_of
from core.messages import DataError, Note, Progress
from core.parallel import map_rows
from core.registry import Param

__all__ = ["ProximityAware"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

FORMS = ("density-ratio", "bin-mean-shift")
N_BINS, N_CELLS = 5, 10
"""Bins of the proximity, and of the confidence inside each of them."""

# Reference rows that are kept, and numbers in them: all are measured and exported.
_MOST_ROWS, _MOST_CELLS = 2_000, 200_000
_GRID = (17, 33)  # places of the table, of the proximity and of the confidence
_NARROWEST = 1e-3  # bandwidth


def neighbour_distances(
    features: FloatArray, reference: FloatArray, n_neighbours: int
) -> FloatArray:
    """Return the mean distance of each row to its nearest reference rows, (n,)."""
    found = np.empty(len(features))

    def rows(start: int, stop: int) -> None:
        distance = scipy.spatial.distance.cdist(
            features[start:stop].astype(np.float64), reference
        )
        distance.partition(n_neighbours - 1, axis=1)
        # In order, so that sums round as in an exported module.
        nearest = np.sort(distance[:, :n_neighbours], axis=1)
        found[start:stop] = nearest.mean(axis=1)

    map_rows(rows, len(features), 8 * (len(reference) + reference.shape[1]))
    return found


def own_distances(
    features: FloatArray, kept: IndexArray, n_neighbours: int
) -> FloatArray:
    """Return the mean distance of each row to others that are kept, (n,)."""
    found = np.empty(len(features))
    reference = features[kept]

    def rows(start: int, stop: int) -> None:
        distance = scipy.spatial.distance.cdist(features[start:stop], reference)
        itself = np.arange(start, stop)[:, None] == kept
        distance[itself] = np.inf
        distance.partition(n_neighbours - 1, axis=1)
        found[start:stop] = distance[:, :n_neighbours].mean(axis=1)

    map_rows(rows, len(features), 8 * (len(reference) + reference.shape[1]))
    return found


def places(knots: FloatArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Return the knot below each value, and how far it is on the way to the next."""
    if knots.size < 2:
        return np.zeros(values.shape, np.int64), np.zeros(values.shape)
    low = np.searchsorted(knots[1:-1], values, side="right")
    share = (values - knots[low]) / (knots[low + 1] - knots[low])
    return low, np.clip(share, 0.0, 1.0)


@CALIBRATORS.register(
    "proximity",
    label="Proximity-aware",
    reference="Xiong et al. 2023 (ProCal), arXiv:2306.04590",
    formula=(
        r"q \to \frac{n_1 f_1(q, D)}{n_1 f_1(q, D) + n_0 f_0(q, D)},\quad D = "
        r"\exp\left(-\tfrac{1}{K s} \textstyle\sum_{j \in N_K} \lVert h - h_j \rVert"
        r"\right),\quad q = \max_k p_k,\ p = \mathrm{softmax}(z / T)"
    ),
    params=(
        Param(
            "form",
            "Form",
            "choice",
            FORMS[0],
            choices=FORMS,
            help="A smooth ratio of densities, or the mean gap in cells of confidence "
            "and proximity.",
        ),
        Param(
            "n_neighbours",
            "Neighbours",
            "int",
            10,
            minimum=1,
            maximum=1000,
            help="Nearest fit rows whose mean distance says how near a row lies.",
        ),
    ),
    tier="more",
    aliases=("procal", "proximity-aware"),
    when="Features are at hand, and rows far from known ones are overconfident.",
    not_when="Few rows, or features whose distances mean nothing.",
    cost="Seconds; fit rows travel in the exported file.",
)
class ProximityAware(Calibrator):
    """Correct the confidence by how near the features of a row lie to fit rows.

    Parameters
    ----------
    form : {"density-ratio", "bin-mean-shift"}, default="density-ratio"
        "density-ratio": the share of right rows by two densities of confidence and
        proximity, of right and of wrong fit rows (Gaussian kernels, bandwidths 1.06
        standard deviations by the sixth root of n), in a table of 17 times 33 places
        with straight lines in between. "bin-mean-shift": the mean of right minus
        confidence, in 10 bins of the confidence within 5 of the proximity.
    n_neighbours : int, default=10
        K, at most the reference rows there are.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T of temperature scaling on the same rows, which comes first.
    reference_ : ndarray of shape (m, d)
        Features of fit rows; of many, evenly spaced ones, 2,000 rows and 200,000
        numbers at most.
    scale_ : float
        s, the mean distance among fit rows: a typical one has the proximity 1/e.
    table_ : dict of str to ndarray
        What the form looks up.

    Notes
    -----
    Of rows of equal confidence, those in thin regions tend to be more overconfident
    [1]_. What differs from the paper: distances are divided by s, so that the
    exponential of wide features is not 0; a fit row is no neighbour of its own;
    temperature scaling comes first; where there are hardly any fit rows, one row that
    says q decides; and a confidence cannot fall below the runner-up's, so that the
    prediction never changes. The other classes share the rest.

    References
    ----------
    .. [1] M. Xiong, A. Deng, P. W. Koh, J. Wu, S. Li, J. Xu and B. Hooi,
       "Proximity-informed calibration for deep neural networks", NeurIPS 2023,
       arXiv:2306.04590.
    """

    requires = frozenset({"logits", "features"})
    is_accuracy_preserving = True
    is_order_preserving = True

    temperature_: float
    reference_: FloatArray
    scale_: float
    n_neighbours_: int
    table_: dict[str, FloatArray]

    def __init__(
        self,
        *,
        form: str = FORMS[0],
        n_neighbours: int = 10,
        input: str = "logits",
    ) -> None:
        self.form = form
        self.n_neighbours = n_neighbours
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return T and the places of the table."""
        return 1 + _GRID[0] * _GRID[1]

    @property
    def n_fitted_(self) -> int:
        """T and the values of the table."""
        return 1 + self.table_["values"].size

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
        features: FloatArray | None = None,
    ) -> None:
        assert features is not None  # noqa: S101 - required, so `fit` has looked
        if self.form not in FORMS or int(self.n_neighbours) < 1:
            msg = (
                f"form must be one of {FORMS} and n_neighbours 1 or more, got "
                f"{self.form!r} and {self.n_neighbours!r}"
            )
            raise ValueError(msg)
        start = TemperatureScaling()
        start.notes_ = []
        start._fit(logits, y, sample_weight, groups=groups, progress=progress)
        self.notes_ += start.notes_
        self.temperature_ = start.temperature_
        h = _finite(features)
        used = np.flatnonzero(sample_weight > 0)
        most = max(2, min(_MOST_ROWS, _MOST_CELLS // h.shape[1]))
        kept = used
        if used.size > most:
            kept = used[np.linspace(0, used.size - 1, most).round().astype(np.int64)]
        text = (
            f"Neighbours are sought among {kept.size:,} of {used.size:,} fit rows; "
            "exported files hold their features."
        )
        self.notes_.append(Note("reference-rows", "info", text))
        self.reference_ = h[kept]
        self.n_neighbours_ = max(1, min(int(self.n_neighbours), kept.size - 1))
        progress(0.5, "Looking for neighbours")
        far: FloatArray = np.zeros(used.size)
        if kept.size > 1:
            inside = np.searchsorted(used, kept)
            far = own_distances(h[used], inside, self.n_neighbours_)
        self.scale_ = float(far.mean()) or 1.0
        progress(0.9, "Comparing right and wrong rows")
        top = top_of(logits[used], self.temperature_)
        is_open = np.isfinite(top.log_rest)
        weight = sample_weight[used][is_open]
        given = (
            np.exp(top.pair[is_open, 1]),
            np.exp(-far[is_open] / self.scale_),
            is_right(logits[used], y[used])[is_open].astype(np.float64),
        )
        if not weight.size:
            self.table_ = _empty(self.form)
            return
        # Weights count relative to each other: they sum to the rows they are worth.
        n = effective_rows(weight)
        make = _density_ratio if self.form == FORMS[0] else _mean_shift
        self.table_ = make(*given, weight * (n / weight.sum()))

    def _change(
        self, log_q: FloatArray, log_rest: FloatArray, proximity: FloatArray
    ) -> FloatArray:
        """Return the log-odds that the table gives, from ln q and ln(1 - q)."""
        q, table = np.exp(log_q), self.table_
        values = table["values"]
        if self.form == FORMS[0]:
            row, up = places(table["proximity"], proximity)
            column, right = places(table["confidence"], q)
            below = np.minimum(row + 1, values.shape[0] - 1)
            after = np.minimum(column + 1, values.shape[1] - 1)
            first = values[row, column] * (1 - right) + values[row, after] * right
            second = values[below, column] * (1 - right) + values[below, after] * right
            return np.asarray(first * (1 - up) + second * up)
        row = np.searchsorted(table["proximity"], proximity)
        column = (q[:, None] > table["confidence"][row]).sum(axis=1)
        shift, least = values[row, column], table["least"][0]
        log_rest = np.maximum(log_rest, LOWEST_LOG)
        right = np.clip(q + shift, least, 1 - least)
        moved = np.log(right) - np.log(1 - right)
        return np.where(shift == 0, log_q - log_rest, moved)

    def _transform(
        self, logits: FloatArray, *, features: FloatArray | None = None
    ) -> FloatArray:
        assert features is not None  # noqa: S101 - required, so `transform` has looked
        h = _finite(features)
        if h.shape[1] != self.reference_.shape[1]:
            raise DataError(
                f"The rows have {h.shape[1]} features, those of the fit had "
                f"{self.reference_.shape[1]}.",
                "features",
                "Give features of the same layer of the same network.",
            )
        far = neighbour_distances(h, self.reference_, self.n_neighbours_)
        top = top_of(logits, self.temperature_)
        is_open = np.isfinite(top.log_rest)
        change = np.zeros(len(logits))
        log_rest, log_q = top.pair[is_open].T
        proximity = np.exp(-far[is_open] / self.scale_)
        odds = self._change(log_q, log_rest, proximity)
        change[is_open] = odds + top.log_rest[is_open]
        even = np.full(len(logits), self.temperature_)
        return raised(divided(logits, even), top.place, change)

    def parameters(self) -> dict[str, Any]:
        """Return the temperature, the scale, and how many rows are looked at."""
        return {
            "temperature": self.temperature_,
            "scale": self.scale_,
            "n_reference": len(self.reference_),
        }

    def _state(self) -> dict[str, Any]:
        """Return what the confidence q, the largest of softmax(z / T), is mapped by.

        "temperature" T; "reference" (m, "n_features"); "n_neighbours" K; "scale" s:
        the proximity D is exp(-d / s), d the mean distance of the features to the K
        nearest reference rows. "form" and "table": "density-ratio" has "values",
        log-odds at places of "proximity" (rows) and "confidence" (columns), bilinear
        in between, the last one outside; "bin-mean-shift" has inner edges of
        "proximity", those of "confidence" in each of its bins (lo, hi], and "values"
        that are added to q, which stays "least" away from 0 and 1. The other classes
        share the rest in their ratios; the log-probability of the largest stays 1e-6
        above the second's.
        """
        return {
            "temperature": self.temperature_,
            "n_features": int(self.reference_.shape[1]),
            "reference": self.reference_.tolist(),
            "n_neighbours": self.n_neighbours_,
            "scale": self.scale_,
            "form": self.form,
            "table": {name: values.tolist() for name, values in self.table_.items()},
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        self.scale_ = float(state["scale"])
        self.n_neighbours_ = int(state["n_neighbours"])
        self.reference_ = np.array(state["reference"], dtype=np.float64)
        self.table_ = {
            name: np.array(values, dtype=np.float64)
            for name, values in state["table"].items()
        }
        m = len(self.reference_)
        is_sound = (
            LOWEST <= self.temperature_ <= HIGHEST
            and 0.0 < self.scale_ < np.inf
            and 1 <= self.n_neighbours_ <= m
            and self.reference_.ndim == 2
            and int(state["n_features"]) == self.reference_.shape[1]
            and bool(np.isfinite(self.reference_).all())
            and state["form"] == self.form
            and _is_table(self.form, self.table_)
        )
        if not is_sound:
            msg = "the reference rows or the table do not fit or are out of range"
            raise ValueError(msg)


def _finite(features: FloatArray) -> FloatArray:
    found = np.asarray(features, dtype=np.float64)
    if not np.isfinite(found).all():
        raise DataError(
            "A feature is not a finite number.",
            "features",
            "Give finite features: distances between rows are measured.",
        )
    return found


def _bandwidths(
    points: tuple[FloatArray, FloatArray], weight: FloatArray
) -> tuple[float, float]:
    """Return the normal reference bandwidths of two variables."""
    share = weight / weight.sum()
    factor = 1.06 * effective_rows(weight) ** (-1 / 6)
    found = []
    for values in points:
        spread = np.sqrt(share @ (values - share @ values) ** 2)
        found.append(max(_NARROWEST, factor * float(spread)))
    return found[0], found[1]


def _density_ratio(
    q: FloatArray, proximity: FloatArray, right: FloatArray, weight: FloatArray
) -> dict[str, FloatArray]:
    """Return log-odds of being right at quantiles of proximity and confidence."""
    at = [
        np.unique(np.quantile(values, np.linspace(0.0, 1.0, size)))
        for values, size in zip((proximity, q), _GRID, strict=True)
    ]
    widths = _bandwidths((proximity, q), weight)
    # One row at the place itself that says q: it decides where there is no other.
    peak = 1.0 / (2.0 * np.pi * widths[0] * widths[1])
    sums = []
    for outcome in (1.0, 0.0):
        mine = right == outcome
        points = (proximity[mine], q[mine])
        own = _bandwidths(points, weight[mine]) if mine.sum() > 1 else widths
        kernels = [
            np.exp(-0.5 * ((a[:, None] - b) / h) ** 2) / (np.sqrt(2.0 * np.pi) * h)
            for a, b, h in zip(at, points, own, strict=True)
        ]
        sums.append((kernels[0] * weight[mine]) @ kernels[1].T)
    ours = np.minimum(at[1], 1.0 - np.finfo(np.float64).eps)
    hits, misses = sums[0] + peak * ours, sums[1] + peak * (1.0 - ours)
    values = np.log(hits) - np.log(misses)
    return {"proximity": at[0], "confidence": at[1], "values": values}


def _inner_edges(values: FloatArray, n_bins: int) -> FloatArray:
    """Return edges between equal counts, midway between neighbouring values."""
    ordered = np.sort(values)
    cut = (np.arange(1, n_bins) * ordered.size) // n_bins
    low = ordered[np.maximum(cut - 1, 0)]
    above = np.searchsorted(ordered, low, side="right")
    return np.asarray((low + ordered[np.minimum(above, ordered.size - 1)]) / 2)


def _mean_shift(
    q: FloatArray, proximity: FloatArray, right: FloatArray, weight: FloatArray
) -> dict[str, FloatArray]:
    """Return mean gaps in cells of proximity and confidence."""
    edges = _inner_edges(proximity, N_BINS)
    row = np.searchsorted(edges, proximity)
    inner, values = np.ones((N_BINS, N_CELLS - 1)), np.zeros((N_BINS, N_CELLS))
    for number in range(N_BINS):
        mine = row == number
        if not mine.any():
            continue
        inner[number] = _inner_edges(q[mine], N_CELLS)
        cell = (q[mine, None] > inner[number]).sum(axis=1)
        mass = np.bincount(cell, weight[mine], N_CELLS)
        gap = np.bincount(cell, weight[mine] * (right - q)[mine], N_CELLS)
        values[number] = np.divide(gap, mass, np.zeros(N_CELLS), where=mass > 0)
    least = np.array([1.0 / (weight.sum() + 2.0)])
    return {"proximity": edges, "confidence": inner, "values": values, "least": least}


def _empty(form: str) -> dict[str, FloatArray]:
    """Return a table of rows that nothing is known of."""
    half = np.array([0.5])
    ones = (half, half, np.ones(1), np.ones(1))
    return (_density_ratio if form == FORMS[0] else _mean_shift)(*ones)


def _is_table(form: str, table: dict[str, FloatArray]) -> bool:
    """Return whether a table from a file has the shape of its form."""
    values = table["values"]
    if form == FORMS[0]:
        axes = (table["proximity"], table["confidence"])
        is_shaped = all(
            axis.ndim == 1 and axis.size and (np.diff(axis) > 0).all() for axis in axes
        )
        is_shaped = is_shaped and values.shape == (axes[0].size, axes[1].size)
    else:
        is_shaped = (
            values.shape == (N_BINS, N_CELLS)
            and table["proximity"].shape == (N_BINS - 1,)
            and table["confidence"].shape == (N_BINS, N_CELLS - 1)
            and table["least"].shape == (1,)
            and 0.0 < float(table["least"][0]) <= 0.5
        )
    return bool(is_shaped and all(np.isfinite(a).all() for a in table.values()))
