"""What other libraries print for the same rows, and why it differs from ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.binning import assign_bins, bin_sums
from core.messages import Progress, no_progress
from core.metrics.base import METRICS, RowScores
from core.metrics.design import Design

__all__ = ["PRESETS", "PeerNumber", "Preset", "peer_numbers"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PeerRows:
    """Rows as a user hands them to another library: no weights, no rounding.

    Parameters
    ----------
    confidence, outcome : ndarray of shape (n,)
        Top-label for three classes or more and for files without class scores;
        positive class for two.
    top, correct : ndarray of shape (n,)
        Confidence of the prediction and whether it is right.
    probabilities, labels : ndarray of shape (n, k) and (n,), or None
    n_bins : int
    eps : float
        Of the type that the probabilities have in the file.
    """

    confidence: FloatArray
    outcome: FloatArray
    top: FloatArray
    correct: FloatArray
    probabilities: FloatArray | None
    labels: IndexArray | None
    n_bins: int
    eps: float = float(np.finfo(np.float64).eps)

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 where only confidences are known."""
        return 0 if self.probabilities is None else int(self.probabilities.shape[1])


@dataclass(frozen=True, slots=True)
class Preset:
    """One call of another library, reproduced.

    Parameters
    ----------
    library : str
    call : str
        As a user writes it; ``{p}``, ``{y}``, ``{n}`` and ``{k}`` are filled in.
    metric : str
        Id of our metric beside it.
    value : callable
        From `PeerRows` to what the library prints.
    why : str
        Why it differs from ours, in one or two sentences.
    view : {"", "top-label"}
        "top-label" where the library takes the prediction for two classes as well.
    needs_classes : bool
    """

    library: str
    call: str
    metric: str
    value: Callable[[PeerRows], float]
    why: str
    view: str = ""
    needs_classes: bool = False


@dataclass(frozen=True, slots=True)
class PeerNumber:
    """A number that another library prints, beside ours.

    Parameters
    ----------
    library, call : str
    value : float
        What the library prints.
    metric, label, view : str
        Our metric and the view it is taken in.
    ours : float
    why : str
        Why the two differ, or that they are the same.
    """

    library: str
    call: str
    value: float
    metric: str
    label: str
    view: str
    ours: float
    why: str

    @property
    def is_same(self) -> bool:
        """Whether the two agree to six digits."""
        return bool(np.isclose(self.value, self.ours, rtol=1e-6, atol=1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; what is not finite becomes None."""
        return {
            key: value if not isinstance(value, float) or np.isfinite(value) else None
            for key, value in asdict(self).items()
        } | {"is_same": self.is_same}


def _gaps(
    confidence: FloatArray, outcome: FloatArray, index: IndexArray, size: int
) -> tuple[FloatArray, FloatArray]:
    """Return the shares of non-empty bins and their absolute gaps."""
    count = bin_sums(index, np.ones(index.size), size)
    sums = bin_sums(index, confidence - outcome, size)
    is_full = count > 0
    return count[is_full] / index.size, np.abs(sums[is_full] / count[is_full])


def _torchmetrics(rows: PeerRows, norm: str) -> float:
    """Bins [lo, hi) and one more for confidences of exactly 1.

    With three classes or more the confidences become float32, and so do the edges,
    which decides the bin of values on an edge.
    """
    kind = np.dtype(np.float32 if rows.n_classes > 2 else np.float64)
    place: FloatArray = np.arange(rows.n_bins + 1).astype(kind)
    low = place * (np.ones(1, kind) / rows.n_bins)
    # torch.linspace counts its second half from the end.
    edges = np.where(2 * place < rows.n_bins + 1, low, np.ones(1, kind) - low[::-1])
    given = rows.confidence.astype(kind)
    index = np.searchsorted(edges, given, side="right") - 1
    share, gaps = _gaps(rows.confidence, rows.outcome, index, rows.n_bins + 1)
    if norm == "max":
        return float(gaps.max())
    return float(share @ gaps if norm == "l1" else np.sqrt(share @ gaps**2))


def _netcal(rows: PeerRows, kind: str) -> float:
    """Bins [lo, hi) of confidences that are kept a rounding error off 0 and 1."""
    clipped = np.clip(rows.confidence, rows.eps, 1.0 - rows.eps)
    edges = np.linspace(0.0, 1.0, rows.n_bins + 1)
    index = assign_bins(clipped, edges, closed="left")
    share, gaps = _gaps(clipped, rows.outcome, index, rows.n_bins)
    found = {"ece": share @ gaps, "mce": gaps.max(), "ace": gaps.mean()}
    return float(found[kind])


def _mapie_ece(confidence: FloatArray, outcome: FloatArray, num_bins: int) -> float:
    """Edges linspace(0, 1, num_bins): one bin less, and one for exact zeros."""
    edges = np.linspace(0.0, 1.0, num_bins)
    index = np.digitize(confidence, edges, right=True)
    share, gaps = _gaps(confidence, outcome, index, num_bins + 1)
    return float(share @ gaps)


def _mapie_top_label(rows: PeerRows) -> float:
    assert rows.probabilities is not None  # noqa: S101 - the preset asks for classes
    predicted = rows.probabilities.argmax(axis=1)
    found = [
        _mapie_ece(rows.top[predicted == k], rows.correct[predicted == k], rows.n_bins)
        for k in np.unique(predicted)
    ]
    return float(np.mean(found))


def _mapie_classwise(rows: PeerRows) -> float:
    assert rows.probabilities is not None  # noqa: S101 - the preset asks for classes
    hit = _one_hot(rows)
    found = [
        _mapie_ece(rows.probabilities[:, k], hit[:, k], rows.n_bins)
        for k in range(rows.n_classes)
    ]
    return float(np.mean(found))


def _mapie_ks(rows: PeerRows) -> float:
    """Confidences are jittered to break ties, the maximum is in standard errors."""
    noise = np.random.RandomState(1).normal(size=rows.top.size)
    jittered = rows.top * (1 + 1e-8 * noise)
    order = np.argsort(jittered)
    running = np.cumsum(rows.correct[order] - jittered[order])
    spread = np.sqrt((rows.top * (1 - rows.top)).sum())
    return float(np.abs(running).max() / spread)


def _sklearn_curve(rows: PeerRows) -> float:
    """Mean of the gaps of calibration_curve: empty bins vanish, sizes do not count."""
    edges = np.linspace(0.0, 1.0, rows.n_bins + 1)
    index = assign_bins(rows.confidence, edges)
    return float(_gaps(rows.confidence, rows.outcome, index, rows.n_bins)[1].mean())


def _one_hot(rows: PeerRows) -> FloatArray:
    assert rows.labels is not None  # noqa: S101 - the preset asks for classes
    return np.asarray(rows.labels[:, None] == np.arange(rows.n_classes), np.float64)


def _sklearn_brier(rows: PeerRows) -> float:
    assert rows.probabilities is not None  # noqa: S101 - the preset asks for classes
    if rows.n_classes == 2:
        return float(((rows.confidence - rows.outcome) ** 2).mean())
    hit = _one_hot(rows)
    return float(((rows.probabilities - hit) ** 2).sum(axis=1).mean())


def _sklearn_log_loss(rows: PeerRows) -> float:
    assert rows.probabilities is not None  # noqa: S101 - the preset asks for classes
    assert rows.labels is not None  # noqa: S101
    taken = rows.probabilities[np.arange(rows.labels.size), rows.labels]
    return float(-np.log(np.clip(taken, rows.eps, 1.0 - rows.eps)).mean())


def _relplot(rows: PeerRows) -> float:
    scores = RowScores(rows.confidence, rows.outcome)
    return float(METRICS["smooth-ece-relplot"].traits["point"](scores, Design()))


_TORCH_WHY = (
    "torchmetrics closes bins on the left and gives confidences of exactly 1 a bin of "
    "their own; ours close on the right. Three classes or more become float32."
)
_MAPIE_WHY = (
    "MAPIE makes num_bins edges, so that num_bins={n} has {fewer} bins; ours has {n}."
)

PRESETS = (
    Preset(
        "scikit-learn",
        "brier_score_loss({y}, {p})",
        "brier",
        _sklearn_brier,
        "The same form: (p - y)^2 for two classes, the sum over classes for more.",
        view="top-label",
        needs_classes=True,
    ),
    Preset(
        "scikit-learn",
        "log_loss({y}, {p})",
        "nll",
        _sklearn_log_loss,
        "scikit-learn keeps p 2.2e-16 (float32: 1.2e-7) off 0 and 1. Ours takes zeros "
        "as the smallest probability of the file, at most 1e-12; a logit of -inf makes "
        "it infinite.",
        view="top-label",
        needs_classes=True,
    ),
    Preset(
        "scikit-learn",
        "prob_true, prob_pred = calibration_curve({y1}, {p1}, n_bins={n}); "
        "abs(prob_true - prob_pred).mean()",
        "ece",
        _sklearn_curve,
        "scikit-learn has no ECE. The mean over the points of its curve counts every "
        "bin the same, full or nearly empty; the ECE weighs bins by their rows.",
    ),
    Preset(
        "netcal",
        "ECE({n}).measure({p}, {y})",
        "ece",
        lambda rows: _netcal(rows, "ece"),
        "netcal closes bins on the left, ours on the right: values on an edge change "
        "bin.",
    ),
    Preset(
        "netcal",
        "ACE({n}).measure({p}, {y})",
        "ace",
        lambda rows: _netcal(rows, "ace"),
        "netcal's ACE is the plain mean over bins of equal width; ours has bins of "
        "equal counts, as adaptive calibration error was defined.",
    ),
    Preset(
        "netcal",
        "MCE({n}).measure({p}, {y})",
        "mce",
        lambda rows: _netcal(rows, "mce"),
        "netcal takes the largest gap of any bin, one row suffices; ours asks for 5 "
        "rows and closes bins on the right.",
    ),
    *(
        Preset(
            "torchmetrics",
            f'calibration_error({{p}}, {{y}}, {{task}}, n_bins={{n}}, norm="{norm}")',
            metric,
            lambda rows, norm=norm: _torchmetrics(rows, norm),  # type: ignore[misc]
            _TORCH_WHY + extra,
        )
        for norm, metric, extra in (
            ("l1", "ece", " probmetrics keeps p 1e-7 off 0 and 1 first."),
            ("l2", "rmsce", ""),
            ("max", "mce", " Ours asks for 5 rows in a bin."),
        )
    ),
    Preset(
        "MAPIE",
        "expected_calibration_error({correct}, {top}, num_bins={n})",
        "ece",
        lambda rows: _mapie_ece(rows.top, rows.correct, rows.n_bins),
        _MAPIE_WHY,
        view="top-label",
    ),
    Preset(
        "MAPIE",
        "top_label_ece(y, p, num_bins={n})",
        "ece",
        _mapie_top_label,
        "MAPIE averages the ECE over predicted classes, however rarely they are "
        "predicted, and num_bins={n} has {fewer} bins.",
        view="top-label",
        needs_classes=True,
    ),
    Preset(
        "MAPIE",
        "expected_calibration_error({correct}, p, num_bins={n}, classwise=True, "
        "class_labels=y)",
        "classwise-ece",
        _mapie_classwise,
        _MAPIE_WHY + " Probabilities of exactly 0 have a bin of their own.",
        view="top-label",
        needs_classes=True,
    ),
    Preset(
        "MAPIE",
        "kolmogorov_smirnov_statistic({correct}, {top})",
        "ks",
        _mapie_ks,
        "The same largest distance, but in standard errors; equal confidences are put "
        "in a random order by noise of 1e-8.",
        view="top-label",
    ),
    Preset(
        "relplot",
        "smECE({p1}, {y1})",
        "smooth-ece",
        _relplot,
        "The reflection of relplot gives rows at 0 and 1 half their weight, so that "
        "the error is too high where saturated rows are right; ours weighs all the "
        "same. probmetrics calls it.",
    ),
)


# Metrics whose bins follow the settings; those of the ACE always have equal counts.
_BINNED = ("ece", "rmsce", "mce", "classwise-ece")


def peer_numbers(
    y_true: IndexArray | None,
    y_prob: FloatArray | None,
    *,
    confidence: FloatArray | None = None,
    correct: FloatArray | None = None,
    positive: int = 1,
    n_bins: int = 15,
    strategy: str = "uniform",
    ours: Callable[[str, str], float],
    is_weighted: bool = False,
    progress: Progress = no_progress,
) -> tuple[PeerNumber, ...]:
    """Return what other libraries print for these rows.

    Parameters
    ----------
    y_true : ndarray of int of shape (n,), optional
        Class indices.
    y_prob : ndarray of shape (n, k), optional
        Probabilities; else `confidence` and `correct` are given.
    confidence, correct : ndarray of shape (n,), optional
        Of the predictions.
    positive : int, default=1
        Column of the positive class of two.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of our values; those of the calls have equal widths.
    ours : callable
        From metric id and view to our value.
    is_weighted : bool, default=False
        Whether our values use weights, which these calls do not.
    progress : callable, optional
    """
    rows = _peer_rows(y_true, y_prob, confidence, correct, positive, n_bins)
    names = _names(rows.n_classes, positive)
    found = []
    for place, preset in enumerate(PRESETS):
        progress(place / len(PRESETS), preset.library)
        if preset.needs_classes and rows.probabilities is None:
            continue
        view = preset.view
        if not view:
            view = "positive-class" if rows.n_classes == 2 else "top-label"
        number = PeerNumber(
            library=preset.library,
            call=preset.call.format(**names, n=n_bins),
            value=preset.value(rows),
            metric=preset.metric,
            label=METRICS[preset.metric].label,
            view=view,
            ours=ours(preset.metric, view),
            why=preset.why.format(n=n_bins, fewer=n_bins - 1),
        )
        has_own_edges = strategy != "uniform" and preset.metric in _BINNED
        found.append(
            _explained(
                number, rows, is_weighted=is_weighted, has_own_edges=has_own_edges
            )
        )
    return tuple(found)


def _peer_rows(
    y_true: IndexArray | None,
    y_prob: FloatArray | None,
    confidence: FloatArray | None,
    correct: FloatArray | None,
    positive: int,
    n_bins: int,
) -> PeerRows:
    if y_prob is None or y_true is None:
        if confidence is None or correct is None:
            msg = "peer_numbers needs y_true and y_prob, or confidence and correct"
            raise ValueError(msg)
        top, right = np.asarray(confidence, float), np.asarray(correct, float)
        return PeerRows(top, right, top, right, None, None, n_bins)
    eps = float(np.finfo(np.result_type(y_prob, np.float32)).eps)
    p = np.asarray(y_prob, dtype=np.float64)
    top, right = p.max(axis=1), (p.argmax(axis=1) == y_true).astype(np.float64)
    if p.shape[1] == 2:
        outcome = (y_true == positive).astype(np.float64)
        return PeerRows(p[:, positive], outcome, top, right, p, y_true, n_bins, eps)
    return PeerRows(top, right, top, right, p, y_true, n_bins, eps)


def _names(n_classes: int, positive: int) -> dict[str, str]:
    """Return how a user writes the arguments."""
    if not n_classes:
        names = {"p": "confidence", "y": "correct", "task": 'task="binary"'}
        flat = {"p1": "confidence", "y1": "correct"}
        return {**names, **flat, "correct": "correct", "top": "confidence"}
    more = {"correct": "p.argmax(1) == y", "top": "p.max(1)"}
    if n_classes == 2:
        p, y = f"p[:, {positive}]", "y" if positive == 1 else "y == 0"
        names = {"p": p, "y": y, "task": 'task="binary"', "p1": p, "y1": y}
        return {**names, **more}
    task = f'task="multiclass", num_classes={n_classes}'
    flat = {"p1": "p.max(1)", "y1": "p.argmax(1) == y"}
    return {"p": "p", "y": "y", "task": task, **flat, **more}


def _explained(
    number: PeerNumber, rows: PeerRows, *, is_weighted: bool, has_own_edges: bool
) -> PeerNumber:
    """Add to the reason what these rows make of it."""
    why = number.why
    if number.is_same:
        why = f"The same number on these rows. {why}"
    if number.library in ("torchmetrics", "relplot"):
        is_single = number.library == "torchmetrics" and rows.n_classes > 2
        kind = np.float32 if is_single else np.float64
        n_certain = int((rows.confidence.astype(kind) == 1.0).sum())
        if n_certain:
            why += f" Rows at exactly 1: {n_certain:,}."
    if has_own_edges:
        why += " Its bins have equal widths, ours equal counts, as set."
    if is_weighted:
        why += " It does not use the weights; ours does."
    if number.view == "positive-class":
        why += " Both speak of the positive class here."
    return replace(number, why=why)
