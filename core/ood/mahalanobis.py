"""Mahalanobis distances to class means, plain, relative and of several layers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.messages import DataError, Note, Progress, part_of
from core.ood.base import DETECTORS, Detector
from core.ood.gaussians import COVARIANCES, Distances, Gaussians, Moments, Whitening
from core.ood.rows import PERTURBED, Rows, layers_of, normalised
from core.ood.templates import class_sums
from core.ood.weights import TUNED, UNTUNED, WeightedSum, held_out_fifth
from core.predictions import Predictions
from core.registry import Param

__all__ = [
    "Mahalanobis",
    "NormalisedMahalanobis",
    "NormalisedRelativeMahalanobis",
    "RelativeMahalanobis",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

COVARIANCE = Param(
    "covariance",
    "Covariance",
    "choice",
    "auto",
    choices=COVARIANCES,
    help="How the covariance is inverted: auto is Cholesky where its rank is full, "
    "else the pseudo-inverse, which ignores directions that never vary.",
)
LAYERS = Param(
    "layers",
    "Layers",
    "choice",
    "last",
    choices=("last", "all"),
    help="The layer nearest to the logits, or all of them, weighed together.",
)
NORMALISE = Param(
    "normalise",
    "Unit length",
    "bool",
    default=False,
    help="Divide every feature vector by its Euclidean norm first.",
)
PREPROCESSED = Param(
    "preprocessed",
    "Input pre-processing",
    "bool",
    default=False,
    help="Score features that the network made of pre-processed inputs, where the "
    "file has them (features_preprocessed beside features).",
)
_PAPER = "Lee et al. 2018, arXiv:1807.03888"
_RELATIVE = "Ren et al. 2021, arXiv:2106.09022"
_UNIT = "Mueller and Hein 2025, arXiv:2505.18032"
_DISTANCE = r"\min_c (h - \mu_c)^\top \Sigma^{-1} (h - \mu_c)"


@DETECTORS.register(
    "mahalanobis",
    label="Mahalanobis",
    reference=_PAPER,
    formula=_DISTANCE,
    params=(COVARIANCE, LAYERS, NORMALISE, PREPROCESSED),
    tier="more",
    aliases=("mds",),
)
class Mahalanobis(Detector):
    """Squared distance to the nearest class mean under one shared covariance.

    Parameters
    ----------
    covariance : {"auto", "cholesky", "ledoit-wolf", "pseudo-inverse"}, default="auto"
        How the covariance is inverted.
    layers : {"last", "all"}, default="last"
        With "all" every layer has Gaussians of its own, and the score is a weighted
        sum of their distances (see `tune`).
    normalise : bool, default=False
        Whether features are divided by their norms first.
    preprocessed : bool, default=False
        Whether to score the features called ``<layer>_preprocessed``: those of inputs
        that went through the paper's pre-processing. The fit reads the others.

    Attributes
    ----------
    gaussians_ : dict of str to Gaussians
        By layer.
    weights_ : WeightedSum or None
        How layers are combined; None for one.

    Notes
    -----
    Sigma is the maximum-likelihood estimate of all classes together, divided by the
    number of rows. The released code of the paper halves the distance, which ranks
    alike.
    """

    requires = frozenset({"features", "labels"})
    assumes = (
        "Features of a class are roughly normal around its mean, with one covariance "
        "for all classes and more rows than features."
    )
    is_tunable = True

    gaussians_: dict[str, Gaussians]
    weights_: WeightedSum | None

    def __init__(
        self,
        *,
        covariance: str = "auto",
        layers: str = "last",
        normalise: bool = False,
        preprocessed: bool = False,
    ) -> None:
        self.covariance = covariance
        self.layers = layers
        self.normalise = normalise
        self.preprocessed = preprocessed

    # ----------------------------------------------------------------------- fit

    def _chosen_layers(self, features: Mapping[str, FloatArray]) -> tuple[str, ...]:
        if self.layers != "all":
            return super()._chosen_layers(features)
        return tuple(name for name in features if not name.endswith(PERTURBED))

    def _fit(self, rows: Rows, progress: Progress) -> None:
        self.weights_ = None
        is_many = len(self.layers_) > 1
        self._fit_gaussians(rows, part_of(progress, 0, 0.5 if is_many else 1))
        self._remark(rows)
        if not is_many:
            return
        held = held_out_fifth(rows)
        scores = self._layer_scores(rows)
        if held is not None:
            fit, apart = held
            other = copy(self)
            other._fit_gaussians(fit, part_of(progress, 0.5, 1))
            scores = other._layer_scores(apart)
        self.weights_ = WeightedSum.untuned(tuple(self.layers_), scores)
        self.notes_.append(self.weights_.note)
        if held is None:
            text = (
                "Too few rows to hold some out: layers are weighed by the distances "
                "of the rows that fitted them."
            )
            self.notes_.append(Note("layers-in-sample", "warning", text))

    def _fit_gaussians(self, rows: Rows, progress: Progress) -> None:
        self.gaussians_ = {}
        for number, layer in enumerate(self.layers_):
            n = len(self.layers_)
            report = part_of(progress, number / n, (number + 1) / n)
            self.gaussians_[layer] = self._gaussians(rows, layer, report)
        self._ready()

    def _gaussians(self, rows: Rows, layer: str, progress: Progress) -> Gaussians:
        """Return means, shared covariance and whitening of one layer."""
        width = self.layers_[layer]
        k = max(self.n_classes_, int(rows.labels.max()) + 1)
        sums, counts = np.zeros((k, width)), np.zeros(k, dtype=np.int64)
        for block in rows.blocks(part_of(progress, 0, 0.3), "Averaging the classes"):
            sums += class_sums(self._values(block, layer), block.labels, k)
            counts += np.bincount(block.labels, minlength=k)
        classes = np.flatnonzero(counts)
        means = sums[classes] / counts[classes, None]
        place = np.full(k, -1, dtype=np.int64)
        place[classes] = np.arange(classes.size)
        moments = Moments(width)
        for block in rows.blocks(part_of(progress, 0.3, 0.9), "Gathering covariance"):
            moments.add(self._values(block, layer) - means[place[block.labels]])
        covariance = moments.covariance
        shrinkage = moments.shrinkage if self.covariance == "ledoit-wolf" else 0.0
        whitening = self._whitening(covariance, shrinkage, means, rows.own.name)
        found = Gaussians(means, classes, counts[classes], covariance, whitening)
        self._fit_background(layer, found, rows.own.name)
        return found

    def _whitening(
        self, covariance: FloatArray, shrinkage: float, means: FloatArray, where: str
    ) -> Whitening:
        return Whitening.of(
            covariance,
            self.covariance,
            shrinkage=shrinkage,
            size=float(np.abs(means).max()),
            where=where,
        )

    def _fit_background(self, layer: str, found: Gaussians, where: str) -> None:
        """Fit what a relative distance subtracts; nothing here."""

    def _values(self, rows: Rows, layer: str) -> FloatArray:
        """Return the features that enter the Gaussians, in double precision."""
        found = rows.double_features(layer)
        return normalised(found) if self.normalise else found

    def _remark(self, rows: Rows) -> None:
        for layer, found in self.gaussians_.items():
            d, white = self.layers_[layer], found.whitening
            if white.how == "pseudo-inverse" and white.rank < d:
                text = (
                    f"The covariance of {layer} has effective rank {white.rank:,} of "
                    f"{d:,} ({self.n_reference_:,} rows): directions that the "
                    "reference rows never take do not count. Shrinkage (ledoit-wolf) "
                    "lets them count."
                )
                self.notes_.append(Note("rank-deficient", "warning", text))
            if white.how == "ledoit-wolf":
                text = (
                    f"The covariance of {layer} was shrunk towards the identity: "
                    f"weight {white.shrinkage:.3g}, rank before it {white.rank:,} of "
                    f"{d:,}."
                )
                self.notes_.append(Note("shrunk", "info", text))
        first = next(iter(self.gaussians_.values()))
        missing = self.n_classes_ - first.classes.size
        if missing > 0:
            text = f"{missing:,} classes have no reference row and no mean."
            self.notes_.append(Note("missing-class", "warning", text))
        single = int((first.counts == 1).sum())
        if single:
            text = (
                f"Classes with a single reference row: {single:,}. It is their mean, "
                "and their spread is that of the others."
            )
            self.notes_.append(Note("single-row-class", "warning", text))
        d = max(self.layers_.values())
        if len(rows) < 5 * d:
            text = (
                f"{len(rows):,} reference rows for {d:,} features: distances of these "
                "rows are much smaller than those of new ones. Take no threshold from "
                "them."
            )
            self.notes_.append(Note("few-reference-rows", "warning", text))

    # --------------------------------------------------------------------- score

    def _ready(self) -> None:
        self._distances = {
            layer: Distances(found) for layer, found in self.gaussians_.items()
        }

    def _scored_layer(self, rows: Rows, layer: str) -> str:
        """Return the layer whose features are scored for a fitted one."""
        if not self.preprocessed:
            return layer
        there = layers_of(rows.own.features)
        for ending in PERTURBED:
            if f"{layer}{ending}" in there:
                return f"{layer}{ending}"
        raise DataError(
            f"There are no features of pre-processed inputs for {layer!r}.",
            rows.own.name,
            f"Save them as {layer}{PERTURBED[0]} beside {layer}, or switch the option "
            "off.",
        )

    def _class_distances(self, rows: Rows, layer: str) -> FloatArray:
        values = self._values(rows, self._scored_layer(rows, layer))
        return self._distances[layer](values)

    def _layer_score(self, rows: Rows, layer: str) -> FloatArray:
        return np.asarray(self._class_distances(rows, layer).min(axis=1))

    def _layer_scores(self, rows: Rows) -> FloatArray:
        """Return the score of each layer for any number of rows, shape (n, layers)."""
        return np.concatenate(
            [
                np.column_stack([self._layer_score(b, name) for name in self.layers_])
                for b in rows.blocks()
            ]
        )

    def _score(self, rows: Rows) -> FloatArray:
        if self.weights_ is None:
            return self._layer_score(rows, self.layer_)
        columns = [self._layer_score(rows, name) for name in self.layers_]
        return self.weights_.combine(np.column_stack(columns))

    def predict(self, p: Predictions) -> IndexArray:
        """Return the class of the nearest mean (of the last layer) for each row.

        The classifier that the Gaussians imply, without the last layer of the network.
        """
        self.check_rows(p)
        layer = list(self.layers_)[-1]
        classes = self.gaussians_[layer].classes
        return np.concatenate(
            [
                classes[self._class_distances(block, layer).argmin(axis=1)]
                for block in Rows(p).blocks()
            ]
        )

    # ---------------------------------------------------------- tune and extend

    def tune(self, *ood: Predictions) -> Self:
        """Weigh the layers by logistic regression against rows known to be OOD.

        Parameters
        ----------
        *ood : Predictions
            Sets of out-of-distribution rows that are not reported on.

        Returns
        -------
        self
            Unchanged where there is one layer.
        """
        if self.weights_ is not None:
            for rows in ood:
                self.check_rows(rows)
            scores = np.concatenate([self._layer_scores(Rows(rows)) for rows in ood])
            self.weights_ = self.weights_.tuned(scores)
            kept = [n for n in self.notes_ if n.code not in (TUNED, UNTUNED)]
            self.notes_ = [*kept, self.weights_.note]
        return self

    def add_class(self, rows: Predictions, *, rule: str = "paper") -> Self:
        """Add one class from its rows, without the rows of the others.

        Parameters
        ----------
        rows : Predictions
            Rows of the new class; their labels are not read.
        rule : {"paper", "weighted"}, default="paper"
            The paper's update counts every class alike, C/(C+1) Sigma + 1/(C+1)
            Sigma_new; "weighted" counts rows, as a fit on all of them would.

        Returns
        -------
        self
            With one class more, the last one.
        """
        if rule not in ("paper", "weighted"):
            msg = f"rule must be 'paper' or 'weighted', got {rule!r}"
            raise ValueError(msg)
        self.check_rows(rows)
        new, differences = Rows(rows), []
        label = max(int(self.n_classes_), *map(_next_class, self.gaussians_.values()))
        for layer, old in self.gaussians_.items():
            moments = Moments(self.layers_[layer])
            total = np.zeros(self.layers_[layer])
            for block in new.blocks():
                total += self._values(block, layer).sum(axis=0)
            mean = total / len(new)
            for block in new.blocks():
                moments.add(self._values(block, layer) - mean)
            both = _updated_covariances(old, moments)
            gap = float(np.linalg.norm(both["paper"] - both["weighted"]))
            differences.append(gap / float(np.linalg.norm(both[rule])))
            self.gaussians_[layer] = Gaussians(
                means=np.vstack([old.means, mean]),
                classes=np.append(old.classes, label),
                counts=np.append(old.counts, len(new)),
                covariance=both[rule],
                whitening=self._whitening(
                    both[rule], old.whitening.shrinkage, old.means, rows.name
                ),
            )
            self._fit_background(layer, self.gaussians_[layer], rows.name)
        self.n_classes_ = label + 1
        self.n_reference_ += len(new)
        text = (
            f"Class {label} was added from {len(new):,} rows by the rule {rule!r}. The "
            f"two rules' covariances differ by {max(differences):.1%}."
        )
        self.notes_.append(Note("class-added", "info", text))
        self._ready()
        return self

    # --------------------------------------------------------------------- state

    def _state(self) -> dict[str, Any]:
        weights = None if self.weights_ is None else self.weights_.to_dict()
        layers = {name: found.to_dict() for name, found in self.gaussians_.items()}
        return {"gaussians": layers, "layer_weights": weights}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.gaussians_ = {
            name: Gaussians.from_dict(found)
            for name, found in state["gaussians"].items()
        }
        weights = state["layer_weights"]
        self.weights_ = None if weights is None else WeightedSum.from_dict(weights)
        self._ready()


@DETECTORS.register(
    "relative-mahalanobis",
    label="Relative Mahalanobis",
    reference=_RELATIVE,
    formula=_DISTANCE + r" - (h - \mu)^\top \Sigma_0^{-1} (h - \mu)",
    params=(COVARIANCE, LAYERS, NORMALISE, PREPROCESSED),
    aliases=("rmds", "rmd"),
)
class RelativeMahalanobis(Mahalanobis):
    """Mahalanobis distance to the nearest class, less that to all rows as one Gaussian.

    Parameters
    ----------
    covariance, layers, normalise, preprocessed
        As in `Mahalanobis`.

    Notes
    -----
    Both covariances are divided by the number of rows; the background's is that of all
    reference rows around their common mean.
    """

    backgrounds_: dict[str, Gaussians]

    def _fit_gaussians(self, rows: Rows, progress: Progress) -> None:
        self.backgrounds_ = {}
        super()._fit_gaussians(rows, progress)

    def _remark(self, rows: Rows) -> None:
        super()._remark(rows)
        if all(found.classes.size == 1 for found in self.gaussians_.values()):
            text = (
                "There is one class: it is all rows, and the relative distance is 0 "
                "everywhere. Take the plain one."
            )
            self.notes_.append(Note("one-class", "warning", text))

    def _fit_background(self, layer: str, found: Gaussians, where: str) -> None:
        # All rows vary as the classes do inside, and as their means do between them.
        share = found.counts / found.counts.sum()
        mean = share @ found.means
        gaps = (found.means - mean) * np.sqrt(share)[:, None]
        covariance = found.covariance + gaps.T @ gaps
        whitening = self._whitening(
            covariance, found.whitening.shrinkage, found.means, where
        )
        total = np.array([found.counts.sum()])
        self.backgrounds_[layer] = Gaussians(
            mean[None, :], np.zeros(1, dtype=np.int64), total, covariance, whitening
        )

    def _ready(self) -> None:
        super()._ready()
        self._background = {
            layer: Distances(found) for layer, found in self.backgrounds_.items()
        }

    def _class_distances(self, rows: Rows, layer: str) -> FloatArray:
        values = self._values(rows, self._scored_layer(rows, layer))
        return self._distances[layer](values) - self._background[layer](values)

    def _state(self) -> dict[str, Any]:
        found = {name: item.to_dict() for name, item in self.backgrounds_.items()}
        return super()._state() | {"backgrounds": found}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.backgrounds_ = {
            name: Gaussians.from_dict(found)
            for name, found in state["backgrounds"].items()
        }
        super()._restore(state)


class _UnitLength(Mahalanobis):
    """Base: features are divided by their norms by default."""

    def __init__(
        self,
        *,
        covariance: str = "auto",
        layers: str = "last",
        normalise: bool = True,
        preprocessed: bool = False,
    ) -> None:
        super().__init__(
            covariance=covariance,
            layers=layers,
            normalise=normalise,
            preprocessed=preprocessed,
        )


@DETECTORS.register(
    "mahalanobis-normalised",
    label="Mahalanobis, unit length",
    reference=_UNIT,
    formula=_DISTANCE + r",\quad h \leftarrow h / \|h\|_2",
    params=(COVARIANCE, LAYERS, replace(NORMALISE, default=True), PREPROCESSED),
    tier="more",
    aliases=("mds++", "mahalanobis-normalized"),
)
class NormalisedMahalanobis(_UnitLength):
    """Mahalanobis distance of features of unit length.

    Parameters
    ----------
    covariance, layers, normalise, preprocessed
        As in `Mahalanobis`; features are divided by their norms by default.
    """


@DETECTORS.register(
    "relative-mahalanobis-normalised",
    label="Relative Mahalanobis, unit length",
    reference=_UNIT,
    formula=_DISTANCE + r" - (h - \mu)^\top \Sigma_0^{-1} (h - \mu),\quad "
    r"h \leftarrow h / \|h\|_2",
    params=(COVARIANCE, LAYERS, replace(NORMALISE, default=True), PREPROCESSED),
    aliases=("rmds++", "relative-mahalanobis-normalized"),
)
class NormalisedRelativeMahalanobis(_UnitLength, RelativeMahalanobis):
    """Relative Mahalanobis distance of features of unit length.

    Parameters
    ----------
    covariance, layers, normalise, preprocessed
        As in `Mahalanobis`; features are divided by their norms by default.
    """


def _next_class(found: Gaussians) -> int:
    return int(found.classes.max()) + 1


def _updated_covariances(old: Gaussians, new: Moments) -> dict[str, FloatArray]:
    """Return the covariance with one class more, by either rule."""
    c, n = old.classes.size, int(old.counts.sum())
    fresh = new.covariance
    return {
        "paper": (c * old.covariance + fresh) / (c + 1),
        "weighted": (n * old.covariance + new.n * fresh) / (n + new.n),
    }
