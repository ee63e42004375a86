"""Segmentation maps: a class for every pixel, and a temperature for each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from core.calibrators.scaling import HIGHEST, LOWEST, TemperatureScaling
from core.messages import DataError, Note, Progress, no_progress, part_of
from core.parallel import map_rows
from core.registry import Registry
from core.softmax import log_softmax

__all__ = ["FEATURES", "MAP_CALIBRATORS", "LocalTemperature", "SegmentationMaps"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MAP_CALIBRATORS = Registry("map calibrator")
"""Calibrators of segmentation maps by id; they read a pixel's surroundings."""

FEATURES = ("constant", "local entropy", "local margin", "distance to a boundary")
"""What the temperature of a pixel depends on."""

_WINDOW = 3
_FARTHEST = 32.0  # pixels; beyond it a boundary is far away
_RIDGE = 1e-4
_MOST_PIXELS = 200_000
_MAX_ITERATIONS = 200
_BLOCK = 1 << 18  # bytes of logits worked on at once


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationMaps:
    """Scores and labels of the pixels of some images; frozen and validated.

    Parameters
    ----------
    logits : ndarray of shape (b, k, h, w)
        float32 or float64, read-only, finite.
    labels : ndarray of int64 of shape (b, h, w), or None
        -1 for pixels that are not labelled or to be ignored.
    classes : tuple of str
    name : str
    fingerprint : str
        sha256 over the arrays and the classes.
    is_test : ndarray of bool of shape (b,), or None
        Images that the file holds out; None where it does not say.
    notes : tuple of Note
        Remarks made while reading.
    """

    logits: FloatArray
    labels: IndexArray | None
    classes: tuple[str, ...]
    name: str
    fingerprint: str
    is_test: BoolArray | None = None
    notes: tuple[Note, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        logits: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        ignore_index: int | None = None,
        classes: tuple[str, ...] | None = None,
        name: str = "maps",
        is_test: ArrayLike | None = None,
        notes: tuple[Note, ...] = (),
    ) -> Self:
        """Return maps, everything checked once.

        Parameters
        ----------
        logits : array-like of shape (b, k, h, w)
        labels : array-like of int of shape (b, h, w), optional
        ignore_index : int, optional
            Label of pixels that do not count, such as 255; -1 never counts.
        classes : tuple of str, optional
        name : str, default="maps"
        is_test : array-like of bool of shape (b,), optional
            Images to hold out.
        notes : tuple of Note, optional

        Raises
        ------
        DataError
            If shapes or values do not fit.
        """
        z = np.array(logits)
        if z.dtype not in (np.float32, np.float64):
            z = z.astype(np.float64)
        if z.ndim != 4 or 0 in z.shape or z.shape[1] < 2:
            what = f"The scores have shape {z.shape}."
            how = "Give (images, classes, height, width), two classes or more."
            raise DataError(what, "logits", how)
        if not np.isfinite(z).all():
            what = "A score of a pixel is not finite."
            raise DataError(what, "logits", "Give finite logits for every class.")
        b, k, h, w = z.shape
        y = (
            None
            if labels is None
            else _checked_labels(labels, (b, h, w), k, ignore_index)
        )
        names = tuple(f"class {i}" for i in range(k)) if classes is None else classes
        if len(names) != k:
            what = f"There are {len(names)} class names for {k} classes."
            raise DataError(what, "classes", f"Give {k} names.")
        held_out = None if is_test is None else np.array(is_test, dtype=bool)
        if held_out is not None and held_out.shape != (b,):
            what = f"The roles have shape {held_out.shape} for {b} images."
            raise DataError(what, "split", "Give one role per image.")
        found = hashlib.sha256(repr((z.shape, z.dtype.str, names)).encode())
        for array in (z, y, held_out):
            if array is not None:
                array.setflags(write=False)
                found.update(array.tobytes())
        return cls(z, y, tuple(names), name, found.hexdigest(), held_out, notes)

    @property
    def n_pixels(self) -> int:
        """Pixels of all images."""
        b, _, h, w = self.logits.shape
        return int(b * h * w)

    def pixels(self) -> tuple[FloatArray, IndexArray]:
        """Return the logits (n, k) and labels (n,) of the labelled pixels."""
        labels, used = self._labelled()
        return np.moveaxis(self.logits, 1, -1)[used], labels[used]

    def places(self, images: Iterable[int]) -> IndexArray:
        """Return where the labelled pixels of some images are: (image, pixel)."""
        _, used = self._labelled()
        flat = used.reshape(len(used), -1)
        parts = [np.flatnonzero(flat[image]) for image in images]
        owners = [np.full(p.size, i) for p, i in zip(parts, images, strict=True)]
        empty = np.empty(0, dtype=np.int64)
        return np.stack([np.concatenate([empty, *x]) for x in (owners, parts)])

    def _labelled(self) -> tuple[IndexArray, BoolArray]:
        if self.labels is None:
            what = "The maps have no labels."
            raise DataError(what, self.name, "Give a label for some pixels.")
        return self.labels, self.labels >= 0


@MAP_CALIBRATORS.register(
    "local-temperature",
    label="Local temperature",
    reference="Ding et al. 2021, arXiv:2008.05105",
    formula=(
        r"\mathrm{softmax}(z_p / T_p),\quad"
        r" \ln T_p = \ln T_0 - \theta^\top \varphi_p,\quad"
        r" \varphi_p = (1,\ \text{entropy},\ \text{margin},"
        r"\ \ln(1 + \text{distance to a boundary}))"
    ),
    tier="more",
    aliases=("local-temperature-scaling", "lts"),
    when="Segmentation maps whose scores are too sure next to boundaries or in "
    "uncertain regions.",
    not_when="Your rows are not pixels of maps, or fewer than about ten images are "
    "labelled.",
    cost="Seconds for 200,000 pixels; more pixels are thinned to that many.",
)
class LocalTemperature:
    """Divide the scores of each pixel by a temperature that follows its surroundings.

    Attributes
    ----------
    temperature_ : float
        T of temperature scaling on the same pixels: the start of the fit.
    weights_ : ndarray of shape (4,)
        Of the `FEATURES`, standardised over the fit pixels.
    centre_, scale_ : ndarray of shape (4,)
    nll_before_, nll_after_ : float
        Mean NLL of the fit pixels under one temperature and under local ones.
    notes_ : list of Note

    Notes
    -----
    1 / T = exp(theta . phi) / T0, phi the features of the pixel: the mean entropy and
    margin of its 3 x 3 window, and the logarithm of its distance to where the
    prediction changes. It needs neither the image nor a network, never changes a
    prediction, and starts as exact temperature scaling (the released code of [1]_
    starts at T = 2, as it adds 1 twice). Maximum likelihood with a small ridge, on at
    most 200,000 evenly spaced pixels; where nothing is gained theta is 0.

    References
    ----------
    .. [1] Z. Ding et al., "Local temperature scaling for probability calibration",
       ICCV 2021, arXiv:2008.05105.
    """

    temperature_: float
    weights_: FloatArray
    centre_: FloatArray
    scale_: FloatArray
    nll_before_: float
    nll_after_: float
    notes_: list[Note]

    def fit(
        self,
        maps: SegmentationMaps,
        images: IndexArray | None = None,
        *,
        features: FloatArray | None = None,
        progress: Progress = no_progress,
    ) -> Self:
        """Fit on the labelled pixels of maps, which are not those reported on.

        Parameters
        ----------
        maps : SegmentationMaps
        images : ndarray of int, optional
            Numbers of the images to fit on; all by default.
        features : ndarray of shape (b, h, w, 4), optional
            `pixel_features` of the maps, where several fits share them.
        progress : callable, optional
            Told the fraction done and what is being done; may raise `Cancelled`.
        """
        self.notes_ = []
        chosen = np.arange(len(maps.logits)) if images is None else images
        places = maps.places(chosen)
        if not places.size:
            what = "No pixel has a label."
            raise DataError(what, maps.name, "Give a label for some pixels.")
        if places.shape[1] > _MOST_PIXELS:
            some = np.linspace(0, places.shape[1] - 1, _MOST_PIXELS).astype(np.int64)
            places = places[:, some]
        report = part_of(progress, 0.0, 0.3)
        z, y, phi = _pixels_at(maps, places, features, report)
        first = TemperatureScaling().fit(z, y)
        self.notes_ += first.notes_
        self.temperature_ = first.temperature_
        self.centre_, self.scale_ = phi.mean(axis=0), phi.std(axis=0)
        self.centre_[0] = 0.0
        self.scale_[0] = 1.0
        self.scale_[self.scale_ <= 1e-12] = 1.0
        self.weights_ = np.zeros(len(FEATURES))
        z = z.astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        z /= self.temperature_
        phi = (phi - self.centre_) / self.scale_
        n_done = 0

        def value(theta: FloatArray) -> tuple[float, FloatArray]:
            nonlocal n_done
            n_done += 1
            progress(min(0.95, 0.3 + n_done / 60), "Fitting temperatures of pixels")
            loss, slope = _loss(z, y, phi, theta)
            return loss + 0.5 * _RIDGE * float(theta @ theta), slope + _RIDGE * theta

        self.nll_before_ = _loss(z, y, phi, self.weights_)[0]
        found = scipy.optimize.minimize(
            value,
            self.weights_,
            method="L-BFGS-B",
            jac=True,
            options={"gtol": 1e-8, "ftol": 1e-14, "maxiter": _MAX_ITERATIONS},
        )
        self.nll_after_ = _loss(z, y, phi, found.x)[0]
        if self.nll_after_ < self.nll_before_:
            self.weights_ = found.x
        else:
            self.nll_after_ = self.nll_before_
            text = "Local temperatures gain nothing here: one temperature is kept."
            self.notes_.append(Note("no-gain", "info", text))
        return self

    def temperatures(self, maps: SegmentationMaps) -> FloatArray:
        """Return the temperature of every pixel, shape (b, h, w)."""
        return np.stack([self._temperature(z) for z in maps.logits])

    def transform(self, maps: SegmentationMaps) -> FloatArray:
        """Return calibrated log-probabilities of shape (b, k, h, w)."""
        found = np.empty_like(maps.logits)
        for image, z in enumerate(maps.logits):
            found[image] = self.calibrated(z)[0]
        return found

    def calibrated(
        self, logits: FloatArray, features: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Return log-probabilities and temperatures of one image, in float64.

        Parameters
        ----------
        logits : ndarray of shape (k, h, w)
        features : ndarray of shape (h, w, 4), optional
            Of the image, where they are known.
        """
        t = self._temperature(logits, features)
        z = np.moveaxis(logits.astype(np.float64), 0, -1)
        scaled = (z - z.max(axis=-1, keepdims=True)) / t[..., None]
        flat = log_softmax(scaled.reshape(-1, z.shape[-1]), algorithm="three-pass")
        return np.moveaxis(flat.reshape(z.shape), -1, 0), t

    def _temperature(
        self, logits: FloatArray, features: FloatArray | None = None
    ) -> FloatArray:
        own = pixel_features(logits[None])[0] if features is None else features
        phi = (own - self.centre_) / self.scale_
        logs = np.log(self.temperature_) - phi @ self.weights_
        return np.asarray(np.exp(np.clip(logs, np.log(LOWEST), np.log(HIGHEST))))

    def to_dict(self) -> dict[str, Any]:
        """Return "temperature" T0, "weights", "centre" and "scale" of the features."""
        return {
            "temperature": self.temperature_,
            "weights": self.weights_.tolist(),
            "centre": self.centre_.tolist(),
            "scale": self.scale_.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the fitted temperatures that `to_dict` described."""
        made = cls()
        made.notes_ = []
        try:
            made.temperature_ = float(values["temperature"])
            for name in ("weights", "centre", "scale"):
                setattr(made, f"{name}_", np.array(values[name], dtype=np.float64))
            made._check()
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"These are not local temperatures: {error}.",
                "calibrator file",
                "Give what `to_dict` returned.",
            ) from error
        return made

    def _check(self) -> None:
        parts = (self.weights_, self.centre_, self.scale_)
        if not all(part.shape == (len(FEATURES),) for part in parts):
            msg = f"there are not {len(FEATURES)} numbers of each kind"
            raise ValueError(msg)
        is_sound = all(np.isfinite(part).all() for part in parts)
        is_sound = is_sound and LOWEST <= self.temperature_ <= HIGHEST
        if not is_sound or not (self.scale_ > 0).all():
            msg = "a number is out of range"
            raise ValueError(msg)


def pixel_features(logits: FloatArray) -> FloatArray:
    """Return the `FEATURES` of every pixel, shape (b, h, w, 4)."""
    b, _, h, w = logits.shape
    found = np.ones((b, h, w, len(FEATURES)))
    for image, given in enumerate(logits):
        z = given.astype(np.float64)
        shifted = z - z.max(axis=0)
        logs = shifted - np.log(np.exp(shifted).sum(axis=0))
        p = np.exp(logs)
        top = np.partition(p, -2, axis=0)[-2:]
        maps = -(p * logs).sum(axis=0), top[1] - top[0]
        for place, one in enumerate(maps, start=1):
            found[image, ..., place] = scipy.ndimage.uniform_filter(
                one, _WINDOW, mode="nearest"
            )
        prediction = z.argmax(axis=0)
        same = np.ones((h, w), dtype=bool)
        down = prediction[1:] == prediction[:-1]
        across = prediction[:, 1:] == prediction[:, :-1]
        same[1:] &= down
        same[:-1] &= down
        same[:, 1:] &= across
        same[:, :-1] &= across
        distance = np.full((h, w), _FARTHEST)
        if not same.all():
            distance = np.minimum(scipy.ndimage.distance_transform_edt(same), _FARTHEST)
        found[image, ..., 3] = np.log1p(distance)
    return found


def _pixels_at(
    maps: SegmentationMaps,
    places: IndexArray,
    features: FloatArray | None,
    progress: Progress,
) -> tuple[FloatArray, IndexArray, FloatArray]:
    """Return the logits, labels and features of some pixels, image by image."""
    assert maps.labels is not None  # noqa: S101 - `places` has looked
    k = maps.logits.shape[1]
    n = places.shape[1]
    z, phi = np.empty((n, k), maps.logits.dtype), np.empty((n, len(FEATURES)))
    y = np.empty(n, dtype=np.int64)
    owners, starts = np.unique(places[0], return_index=True)
    for number, (image, start) in enumerate(zip(owners, starts, strict=True)):
        progress(number / owners.size, "Reading the surroundings of pixels")
        stop = n if number + 1 == owners.size else int(starts[number + 1])
        own = places[1, start:stop]
        logits = maps.logits[image]
        z[start:stop] = logits.reshape(k, -1)[:, own].T
        y[start:stop] = maps.labels[image].ravel()[own]
        found = pixel_features(logits[None])[0] if features is None else features[image]
        phi[start:stop] = found.reshape(-1, len(FEATURES))[own]
    return z, y, phi


def _loss(
    z: FloatArray, y: IndexArray, phi: FloatArray, theta: FloatArray
) -> tuple[float, FloatArray]:
    """Return the mean NLL of softmax(exp(phi theta) z) and its gradient; max z is 0."""
    beta = np.exp(np.clip(phi @ theta, -20.0, 20.0))
    own = z[np.arange(y.size), y]
    log_total, expected = np.empty(y.size), np.empty(y.size)

    def add(start: int, stop: int) -> None:
        part = z[start:stop]
        e = np.exp(part * beta[start:stop, None])
        total = e.sum(axis=1)
        log_total[start:stop] = np.log(total)
        expected[start:stop] = np.einsum("ij,ij->i", e, part) / total

    # The exponentials of a block stay in the cache.
    map_rows(add, y.size, 8 * z.shape[1], chunk_bytes=_BLOCK)
    loss = float(np.mean(log_total - beta * own))
    return loss, ((expected - own) * beta) @ phi / y.size


def _checked_labels(
    labels: ArrayLike, shape: tuple[int, ...], k: int, ignore: int | None
) -> IndexArray:
    y = np.array(labels)
    if y.shape != shape or y.dtype.kind not in "iu":
        what = f"The labels have shape {y.shape} and type {y.dtype}."
        raise DataError(what, "labels", f"Give whole numbers of shape {shape}.")
    y = y.astype(np.int64)
    if ignore is not None:
        y[y == ignore] = -1
    if ((y < -1) | (y >= k)).any():
        what = f"A label is not one of the {k} classes."
        how = "Number the classes from 0; name the value of other pixels ignore_index."
        raise DataError(what, "labels", how)
    return y
