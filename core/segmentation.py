"""Segmentation maps: a class for every pixel, and a temperature for each of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize

from core.calibrators.scaling import HIGHEST, LOWEST, TemperatureScaling
from core.messages import DataError, Note, Progress, no_progress
from core.softmax import log_softmax

__all__ = ["FEATURES", "LocalTemperature", "SegmentationMaps"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

FEATURES = ("constant", "local entropy", "local margin", "distance to a boundary")
"""What the temperature of a pixel depends on."""

_WINDOW = 3
_FARTHEST = 32.0  # pixels; beyond it a boundary is far away
_RIDGE = 1e-4
_MOST_PIXELS = 200_000
_MAX_ITERATIONS = 200


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
    """

    logits: FloatArray
    labels: IndexArray | None
    classes: tuple[str, ...]
    name: str
    fingerprint: str

    @classmethod
    def from_arrays(
        cls,
        logits: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        ignore_index: int | None = None,
        classes: tuple[str, ...] | None = None,
        name: str = "maps",
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
        found = hashlib.sha256(repr((z.shape, z.dtype.str, names)).encode())
        for array in (z, y):
            if array is not None:
                array.setflags(write=False)
                found.update(array.tobytes())
        return cls(z, y, tuple(names), name, found.hexdigest())

    @property
    def n_pixels(self) -> int:
        """Pixels of all images."""
        b, _, h, w = self.logits.shape
        return int(b * h * w)

    def pixels(self) -> tuple[FloatArray, IndexArray]:
        """Return the logits (n, k) and labels (n,) of the labelled pixels."""
        if self.labels is None:
            what = "The maps have no labels."
            raise DataError(what, self.name, "Give a label for some pixels.")
        used = self.labels >= 0
        return np.moveaxis(self.logits, 1, -1)[used], self.labels[used]


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

    def fit(self, maps: SegmentationMaps, *, progress: Progress = no_progress) -> Self:
        """Fit on the labelled pixels of maps, which are not those reported on.

        Parameters
        ----------
        maps : SegmentationMaps
        progress : callable, optional
            Told the fraction done and what is being done; may raise `Cancelled`.
        """
        self.notes_ = []
        z, y = maps.pixels()
        if not y.size:
            what = "No pixel has a label."
            raise DataError(what, maps.name, "Give a label for some pixels.")
        assert maps.labels is not None  # noqa: S101 - pixels() has looked
        progress(0.0, "Reading the surroundings of pixels")
        phi = pixel_features(maps.logits)[maps.labels >= 0]
        if y.size > _MOST_PIXELS:
            some = np.linspace(0, y.size - 1, _MOST_PIXELS).astype(np.int64)
            z, y, phi = z[some], y[some], phi[some]
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
            progress(min(0.95, 0.1 + n_done / 60), "Fitting temperatures of pixels")
            loss, slope = _loss(z, y, phi, theta)
            return loss + 0.5 * _RIDGE * float(theta @ theta), slope + _RIDGE * theta

        self.nll_before_ = _loss(z, y, phi, self.weights_)[0]
        found = optimize.minimize(
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
        phi = (pixel_features(maps.logits) - self.centre_) / self.scale_
        logs = np.log(self.temperature_) - phi @ self.weights_
        return np.asarray(np.exp(np.clip(logs, np.log(LOWEST), np.log(HIGHEST))))

    def transform(self, maps: SegmentationMaps) -> FloatArray:
        """Return calibrated log-probabilities of shape (b, k, h, w)."""
        z = np.moveaxis(maps.logits, 1, -1)
        shifted = z - z.max(axis=-1, keepdims=True)
        scaled = shifted / self.temperatures(maps)[..., None]
        flat = log_softmax(scaled.reshape(-1, z.shape[-1]), algorithm="three-pass")
        found = np.moveaxis(flat.reshape(z.shape), -1, 1)
        return np.ascontiguousarray(found, dtype=maps.logits.dtype)

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
    for image, z in enumerate(logits):
        shifted = z - z.max(axis=0)
        logs = shifted - np.log(np.exp(shifted).sum(axis=0))
        p = np.exp(logs.astype(np.float64))
        top = np.partition(p, -2, axis=0)[-2:]
        maps = -(p * logs).sum(axis=0), top[1] - top[0]
        for place, one in enumerate(maps, start=1):
            found[image, ..., place] = ndimage.uniform_filter(
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
            distance = np.minimum(ndimage.distance_transform_edt(same), _FARTHEST)
        found[image, ..., 3] = np.log1p(distance)
    return found


def _loss(
    z: FloatArray, y: IndexArray, phi: FloatArray, theta: FloatArray
) -> tuple[float, FloatArray]:
    """Return the mean NLL of softmax(exp(phi theta) z) and its gradient; max z is 0."""
    beta = np.exp(np.clip(phi @ theta, -20.0, 20.0))
    scaled = z * beta[:, None]
    e = np.exp(scaled)
    total = e.sum(axis=1)
    own = z[np.arange(y.size), y]
    loss = float(np.mean(np.log(total) - beta * own))
    pull = (e * z).sum(axis=1) / total - own
    return loss, (pull * beta) @ phi / y.size


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
