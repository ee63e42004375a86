"""Segmentation maps measured on images that no fit has seen, resampled by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.binning import BinStatistics, assign_bins, bin_edges, grouped_size
from core.measurement import UNCALIBRATED
from core.messages import DataError, FitError, Note, Progress, no_progress, part_of
from core.metrics import RowScores, Sample, changes, estimates, row_scores
from core.segmentation import (
    FEATURES,
    LocalTemperature,
    SegmentationMaps,
    pixel_features,
)
from core.settings import Settings
from core.softmax import row_statistics
from core.uncertainty import Estimate, wilson_interval

__all__ = [
    "FEWEST_IMAGES",
    "LOCAL",
    "METHODS",
    "TEMPERATURE",
    "UNCALIBRATED",
    "ImageMaps",
    "MapAnalysis",
    "MapResult",
    "evaluate_maps",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

TEMPERATURE, LOCAL = "temperature", "local-temperature"
METHODS = (UNCALIBRATED, TEMPERATURE, LOCAL)
"""What is set side by side."""

FEWEST_IMAGES = 20
"""Images below which intervals by image are rough."""

_METRICS = ("nll", "brier", "gap", "accuracy")
_MEANS = ("confidence", "outcome", "nll", "brier")
_PAIRS = ((UNCALIBRATED, TEMPERATURE), (UNCALIBRATED, LOCAL), (TEMPERATURE, LOCAL))


@dataclass(frozen=True, slots=True, eq=False)
class MapResult:
    """Numbers of one method on the held-out pixels.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        By metric id.
    bins : BinStatistics
        Pixels by confidence, with intervals by image.
    """

    estimates: Mapping[str, Estimate]
    bins: BinStatistics


@dataclass(frozen=True, slots=True, eq=False)
class ImageMaps:
    """What a held-out image looks like.

    Parameters
    ----------
    number : int
        Of the image in the file, from 0.
    temperatures : ndarray of float32 of shape (h, w)
        Of a local temperature that has not seen the image.
    prediction : ndarray of int64 of shape (h, w)
    labels : ndarray of int64 of shape (h, w)
        -1 where a pixel does not count.
    """

    number: int
    temperatures: FloatArray
    prediction: IndexArray
    labels: IndexArray

    @property
    def is_wrong(self) -> NDArray[np.bool_]:
        """Pixels that count and are taken for another class."""
        return np.asarray((self.labels >= 0) & (self.prediction != self.labels))

    @property
    def mean_temperatures(self) -> tuple[float, float]:
        """Mean temperature where right and where wrong; NaN where there is none."""
        is_right = (self.labels >= 0) & ~self.is_wrong
        right, wrong = (
            float(self.temperatures[mask].mean(dtype=np.float64))
            if mask.any()
            else float("nan")
            for mask in (is_right, self.is_wrong)
        )
        return right, wrong


@dataclass(frozen=True, slots=True, eq=False)
class MapAnalysis:
    """One temperature and local ones, measured on the same held-out images.

    Parameters
    ----------
    maps : SegmentationMaps
    settings : Settings
    results : mapping of str to MapResult
        By method of `METHODS`.
    changes : mapping of (str, str) to mapping of str to Estimate
        (before, after) -> metric -> paired difference.
    images : tuple of ImageMaps
    calibrator : LocalTemperature
        To take home: fitted on every fit image.
    n_fit_images, n_test_images, n_test_pixels : int
    is_cross_fitted : bool
        Whether every image is measured by a fit on the others.
    by_image : DataFrame
        One line per held-out image.
    notes : tuple of Note
    """

    maps: SegmentationMaps
    settings: Settings
    results: Mapping[str, MapResult]
    changes: Mapping[tuple[str, str], Mapping[str, Estimate]]
    images: tuple[ImageMaps, ...]
    calibrator: LocalTemperature
    n_fit_images: int
    n_test_images: int
    n_test_pixels: int
    is_cross_fitted: bool
    by_image: pd.DataFrame
    notes: tuple[Note, ...]

    @property
    def split_sentence(self) -> str:
        """How images were divided."""
        if self.is_cross_fitted:
            return (
                f"cross-fitted over {self.n_test_images} images: each is measured by "
                "a fit on the others"
            )
        return f"fitted on {self.n_fit_images} images, measured on {self.n_test_images}"

    def image(self, number: int) -> ImageMaps:
        """Return a held-out image by its number in the file."""
        return next(item for item in self.images if item.number == number)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values."""
        return {
            "file": self.maps.name,
            "fingerprint": self.maps.fingerprint,
            "classes": list(self.maps.classes),
            "split": self.split_sentence,
            "n_fit_images": self.n_fit_images,
            "n_test_images": self.n_test_images,
            "n_test_pixels": self.n_test_pixels,
            "calibrator": self.calibrator.to_dict(),
            "methods": {
                name: {key: item.to_dict() for key, item in found.estimates.items()}
                for name, found in self.results.items()
            },
            "changes": [
                {"before": before, "after": after, "metric": metric, **item.to_dict()}
                for (before, after), found in self.changes.items()
                for metric, item in found.items()
            ],
            "by_image": self.by_image.to_dict("records"),
            "notes": [note.to_dict() for note in self.notes],
        }


class _PixelSample(Sample):
    """Pixels of images as sums: a row is what a bin holds of an image.

    Means, bins and resamples of whole images depend on the pixels through those sums
    only, so that nothing is lost; what asks for single outcomes finds enough of them.
    """

    __slots__ = ()

    def n_rare(self, name: str) -> int:
        """Pixels with the rarer outcome."""
        assert self.sample_weight is not None  # noqa: S101 - the pixels of each row
        n_right = float(self.sample_weight @ self.scores[name].outcome)
        return int(min(n_right, float(self.sample_weight.sum()) - n_right))

    def accuracy_interval(self, name: str) -> tuple[float, float]:
        """Wilson interval of the share of right pixels, by the effective number."""
        index = np.zeros(self.n, dtype=np.int64)
        low, high = self.intervals(self.scores[name], index, 1)
        return float(low[0]), float(high[0])

    def intervals(
        self, scores: RowScores, index: IndexArray, n_bins: int
    ) -> tuple[FloatArray, FloatArray]:
        """Wilson intervals of the mean outcome of bins, images drawn as a whole."""
        weight, groups = self.sample_weight, self.groups
        assert weight is not None  # noqa: S101 - `_sample` gives both
        assert groups is not None  # noqa: S101
        mass = np.bincount(index, weights=weight, minlength=n_bins).astype(np.float64)
        right = np.bincount(index, weights=weight * scores.outcome, minlength=n_bins)
        share = np.divide(right, mass, out=np.full(n_bins, np.nan), where=mass > 0)
        residual = weight * (scores.outcome - share[index])
        size = grouped_size(index, residual, groups, share, mass)
        return wilson_interval(share, np.minimum(size, mass), self.settings.level)


def evaluate_maps(
    maps: SegmentationMaps, settings: Settings, progress: Progress = no_progress
) -> MapAnalysis:
    """Fit one temperature and local ones, and measure them on images they never saw.

    Images that the file holds out are measured by a fit on the others; without such
    roles the images are cross-fitted. Intervals and null ranges resample whole images,
    since pixels of an image are not independent.

    Parameters
    ----------
    maps : SegmentationMaps
        With labels.
    settings : Settings
        `n_bins`, `level`, `n_resamples`, `seed` and `n_folds`; bins of equal width.
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    """
    rounds = _rounds(maps, settings)
    is_cross_fitted = maps.is_test is None
    edges = bin_edges(np.empty(0), settings.n_bins, "uniform")
    features = _features(maps, part_of(progress, 0.0, 0.15))
    cells: dict[str, list[pd.DataFrame]] = {name: [] for name in METHODS}
    images: list[ImageMaps] = []
    made: list[LocalTemperature] = []
    for number, (fit, test) in enumerate(rounds):
        start, stop = (
            0.15 + 0.65 * place / len(rounds) for place in (number, number + 1)
        )
        middle = start + 0.6 * (stop - start)
        report = part_of(progress, start, middle)
        local = LocalTemperature().fit(maps, fit, features=features, progress=report)
        made.append(local)
        for place, image in enumerate(test):
            share = middle + (stop - middle) * place / test.size
            progress(share, "Measuring images that were held out")
            found, shown = _measured(maps, int(image), local, features[image])
            images.append(shown)
            for name, scores in found.items():
                cells[name].append(_cells(scores, edges, int(image)))
    images.sort(key=lambda item: item.number)
    if is_cross_fitted:
        every = np.concatenate([test for _, test in rounds])
        report = part_of(progress, 0.8, 0.9)
        made.append(
            LocalTemperature().fit(
                maps, np.sort(every), features=features, progress=report
            )
        )
    kind = "cross-fitted" if is_cross_fitted else "test"
    progress(0.9, "Resampling images")
    tables = {
        name: pd.concat(parts, ignore_index=True) for name, parts in cells.items()
    }
    rows = {name: _rows(table, ["image"]) for name, table in tables.items()}
    sample = _sample(rows, settings, kind, _METRICS)
    means = estimates(sample)
    n_pixels = int(rows[UNCALIBRATED]["n"].sum())
    results = {}
    for name, table in tables.items():
        ece, bins = _bins(name, table, settings, kind, n_pixels)
        own = {key: _of_pixels(found, n_pixels) for key, found in means[name].items()}
        results[name] = MapResult({**own, "ece": ece}, bins)
    n_test = len(images)
    notes = (*maps.notes, *made[-1].notes_)
    if n_test < FEWEST_IMAGES:
        text = f"Few images ({n_test}): intervals by image are rough."
        notes += (Note("few-images", "warning", text),)
    n_without = 0 if maps.is_test is not None else len(maps.logits) - n_test
    if n_without:
        text = f"{n_without} images have no labelled pixel and are left out."
        notes += (Note("images-without-labels", "info", text),)
    return MapAnalysis(
        maps=maps,
        settings=settings,
        results=results,
        changes={
            pair: {
                metric: _of_pixels(found, n_pixels)
                for metric, found in changes(sample, *pair).items()
                if metric in ("nll", "brier")
            }
            for pair in _PAIRS
        },
        images=tuple(images),
        calibrator=made[-1],
        n_fit_images=n_test if is_cross_fitted else int(rounds[0][0].size),
        n_test_images=n_test,
        n_test_pixels=n_pixels,
        is_cross_fitted=is_cross_fitted,
        by_image=_by_image(rows),
        notes=tuple(dict.fromkeys(notes)),
    )


def _rounds(
    maps: SegmentationMaps, settings: Settings
) -> list[tuple[IndexArray, IndexArray]]:
    """Return (fit, test) numbers of labelled images."""
    labelled = np.unique(maps.places(range(len(maps.logits)))[0])
    if labelled.size < 2:
        raise DataError(
            "Only one image has labels: none can be held out.",
            maps.name,
            "Give two labelled images or more.",
        )
    if maps.is_test is not None:
        is_test = maps.is_test[labelled]
        if is_test.all() or not is_test.any():
            raise FitError(
                "The images of one role have no labelled pixel.",
                maps.name,
                "Label images of both roles, or leave the array split out.",
            )
        return [(labelled[~is_test], labelled[is_test])]
    order = np.random.default_rng(settings.seed).permutation(labelled)
    n_folds = min(settings.n_folds, labelled.size)
    return [
        (np.setdiff1d(labelled, part), np.sort(part))
        for part in (order[fold::n_folds] for fold in range(n_folds))
    ]


def _features(maps: SegmentationMaps, progress: Progress) -> FloatArray:
    """Return the features of every pixel, which all fits share."""
    b, _, h, w = maps.logits.shape
    found = np.empty((b, h, w, len(FEATURES)))
    for image in range(b):
        progress(image / b, "Reading the surroundings of pixels")
        found[image] = pixel_features(maps.logits[image : image + 1])[0]
    return found


def _measured(
    maps: SegmentationMaps, image: int, local: LocalTemperature, features: FloatArray
) -> tuple[dict[str, RowScores], ImageMaps]:
    """Return the scores of an image's labelled pixels under every method."""
    assert maps.labels is not None  # noqa: S101 - `_rounds` has looked
    logits, labels = maps.logits[image], maps.labels[image]
    k = logits.shape[0]
    used = labels >= 0
    z = np.ascontiguousarray(logits[:, used].T, dtype=np.float64)
    y = labels[used]
    log_p, t = local.calibrated(logits, features)
    own = np.ascontiguousarray(log_p[:, used].T)
    statistics = {
        UNCALIBRATED: row_statistics(z, y),
        TEMPERATURE: row_statistics(z, y, temperature=local.temperature_),
        LOCAL: row_statistics(own, y),
    }
    found = {name: row_scores(rows, k) for name, rows in statistics.items()}
    return found, ImageMaps(image, t.astype(np.float32), logits.argmax(axis=0), labels)


def _cells(scores: RowScores, edges: FloatArray, image: int) -> pd.DataFrame:
    """Return what each bin holds of one image: pixels and their means."""
    index = assign_bins(scores.confidence, edges)
    n = np.bincount(index, minlength=edges.size - 1)
    there = np.flatnonzero(n)
    means = {
        name: np.bincount(index, weights=getattr(scores, name))[there] / n[there]
        for name in _MEANS
    }
    # Rounding must not carry a mean over the edge of its bin.
    low = np.nextafter(edges[there], 2.0)
    means["confidence"] = np.clip(means["confidence"], low, edges[there + 1])
    return pd.DataFrame({"image": image, "n": n[there], **means})


def _rows(cells: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return cells added up: pixels and means of the pixels."""
    columns = list(_MEANS)
    sums = cells[columns].mul(cells["n"], axis=0).assign(n=cells["n"])
    added = sums.groupby([cells[name] for name in by]).sum()
    return added[columns].div(added["n"], axis=0).assign(n=added["n"]).reset_index()


def _sample(
    tables: Mapping[str, pd.DataFrame],
    settings: Settings,
    kind: str,
    metrics: tuple[str, ...],
) -> _PixelSample:
    """Return tables with the same lines as scores; images are drawn as a whole."""
    first = next(iter(tables.values()))
    return _PixelSample(
        scores={
            name: RowScores(**{key: table[key].to_numpy(float) for key in _MEANS})
            for name, table in tables.items()
        },
        settings=settings.replace(strategy="uniform", norm="l1"),
        sample_weight=first["n"].to_numpy(np.float64),
        groups=np.unique(first["image"], return_inverse=True)[1].astype(np.int64),
        rows=kind,
        metrics=metrics,
    )


def _bins(
    name: str, cells: pd.DataFrame, settings: Settings, kind: str, n_pixels: int
) -> tuple[Estimate, BinStatistics]:
    """Return the ECE and its bins, which count pixels."""
    sample = _sample({name: cells}, settings, kind, ("ece",))
    ece = estimates(sample)[name]["ece"]
    own = sample.bins(name)
    n_bins = own.statistics.n_bins
    n = np.bincount(own.index, weights=cells["n"], minlength=n_bins).astype(np.int64)
    low, high = sample.intervals(sample.scores[name], own.index, n_bins)
    bins = replace(own.statistics, count=n, low=low, high=high)
    return _of_pixels(ece, n_pixels), bins


def _of_pixels(found: Estimate, n_pixels: int) -> Estimate:
    """Return an estimate that speaks of pixels and images."""
    words = found.method.replace("groups", "images").replace("per group", "per image")
    return replace(found, n=n_pixels, method=words, notes=())


def _by_image(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one line per image: pixels, accuracy, NLL and signed gap of methods."""
    first = rows[UNCALIBRATED]
    found = {"image": first["image"], "pixels": first["n"].astype(np.int64)}
    found["accuracy"] = first["outcome"]
    for name, table in rows.items():
        found[f"nll {name}"] = table["nll"]
        found[f"gap {name}"] = table["confidence"] - table["outcome"]
    return pd.DataFrame(found)
