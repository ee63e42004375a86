"""Make the sample files: real classifiers on data sets that scikit-learn ships.

Run ``python sample_data/generate.py [--out DIR]``. It needs no network, takes a few
seconds and prints the table of figures that ``README.md`` quotes. Everything is
seeded and runs on one BLAS thread, so that two runs on one machine write the same
bytes; other machines may differ in the last digits of a number.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

SEED = 20_240_917
DIGIT_NAMES = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
)
NOISE_LEVELS = {"low": 2.0, "medium": 3.5, "high": 5.0}
"""Standard deviation of the pixel noise; pixels run from 0 to 16."""
SCANS_PER_SHEET = 12
TRAINING_SHEETS = 50
HIDDEN_UNITS = 64
EPOCHS = 300
CASES_PER_BATCH = 10
TRAINING_BATCHES = 12
KNOWN_DIGITS = 8
"""The second network knows the digits 0 to 7; 8 and 9 are strangers to it."""
LAYERS = (64, 32)
SCENE_CLASSES = ("paper", "zero", "four", "seven")
SCENE_DIGITS = (("zero", 0), ("four", 4), ("seven", 7))
SCENES = 24
SCENE_SIZE, CELL = 36, 12
"""Pixels along a side of a scene, and of the cell that holds one digit."""
PATCH = 9
"""Pixels along a side of what the pixel classifier sees."""
UNCLEAR = 255
"""Label of the rim between ink and paper, which does not count."""
MEAN_FEATURES = slice(0, 10)
"""Radius, texture, perimeter, area, ...: the first ten columns, means per image."""


@dataclass(frozen=True)
class LayeredRows:
    """Rows of the network with two hidden layers.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per image: ``id, group, split, dataset, label`` (-1 for strangers).
    layers : tuple of two ndarray of float32
        Activations of the hidden layers, (n_rows, 64) and (n_rows, 32).
    logits : ndarray of shape (n_rows, KNOWN_DIGITS), float32
    """

    frame: pd.DataFrame
    layers: tuple[NDArray[np.float32], NDArray[np.float32]]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class DigitRows:
    """Held-out rows of the digits network, and its last layer.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per noisy scan: ``id, group, split, noise, stroke, label``.
    logits : ndarray of shape (n_rows, 10), float32
    features : ndarray of shape (n_rows, HIDDEN_UNITS), float32
        Activations of the hidden layer.
    weight : ndarray of shape (10, HIDDEN_UNITS), float32
    bias : ndarray of shape (10,), float32
    """

    frame: pd.DataFrame
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def assign_roles(
    n_rows: int, group_size: int, n_training: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Cut rows into blocks of neighbours and give every block one role.

    Parameters
    ----------
    n_rows : int
        Rows of the data set, in its own order.
    group_size : int
        Rows per block; the last block may be smaller and is never trained on.
    n_training : int
        Blocks that train the model; half of the others calibrate, half test.
    rng : numpy.random.Generator
        Shuffles the blocks.

    Returns
    -------
    group : ndarray of shape (n_rows,)
        Number of the block of each row.
    role : ndarray of shape (n_rows,)
        ``"train"``, ``"calibration"`` or ``"test"``.
    """
    group = np.arange(n_rows) // group_size
    n_groups = int(group[-1]) + 1
    order = rng.permutation(n_rows // group_size)
    role_of_group = np.full(n_groups, "test", dtype="<U11")
    role_of_group[order[:n_training]] = "train"
    n_calibration = (n_groups - n_training) // 2
    role_of_group[order[n_training : n_training + n_calibration]] = "calibration"
    return group, role_of_group[group]


def into_thirds(
    values: NDArray[np.float64], names: tuple[str, str, str]
) -> NDArray[np.str_]:
    """Name each value by the third of the sorted values it falls in."""
    cuts = np.quantile(values, [1 / 3, 2 / 3])
    return np.array(names)[np.searchsorted(cuts, values)]


def train_network(
    pixels: NDArray[np.float64],
    labels: NDArray[np.int64],
    layers: tuple[int, ...] = (HIDDEN_UNITS,),
    seed: int = SEED,
    epochs: int = EPOCHS,
) -> MLPClassifier:
    """Train the network for a fixed number of epochs.

    A stopping rule could stop an epoch earlier on another machine and change every
    number, so there is none, and its warning says nothing.
    """
    network = MLPClassifier(
        layers,
        max_iter=epochs,
        n_iter_no_change=epochs,
        tol=0.0,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(pixels, labels)


def noisy_scans(
    digits: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Give each held-out scan two noisy copies, at two of the three noise levels.

    Parameters
    ----------
    digits : pandas.DataFrame
        One row per held-out scan: ``scan`` (its number), ``group, split, stroke,
        label``.
    rng : numpy.random.Generator
        Draws the noise.

    Returns
    -------
    frame : pandas.DataFrame
        Two rows per scan, with ``noise`` and ``id``.
    noise : ndarray of shape (2 * n_scans, 64)
        What to add to the pixels of each row.
    """
    left_out = np.arange(len(digits)) % len(NOISE_LEVELS)
    level = np.array([np.delete(np.arange(len(NOISE_LEVELS)), i) for i in left_out])
    frame = digits.loc[digits.index.repeat(2)].reset_index(drop=True)
    frame["noise"] = np.array(list(NOISE_LEVELS))[level.ravel()]
    frame["id"] = [
        f"scan_{scan:04d}_{noise}"
        for scan, noise in zip(frame["scan"], frame["noise"], strict=True)
    ]
    scale = np.array(list(NOISE_LEVELS.values()))[level.ravel()]
    return frame, rng.normal(size=(len(frame), 64)) * scale[:, None]


@dataclass(frozen=True)
class DigitWorld:
    """A network trained on clean digits, and noisy scans of the others.

    Attributes
    ----------
    network : MLPClassifier
    frame : pandas.DataFrame
        Two rows per held-out scan.
    pixels : ndarray of shape (n_rows, 64)
        Of the noisy scans, 0 to 16.
    clean : ndarray of shape (1797, 64)
        All scans without noise; ``frame.scan`` is their row.
    n_errors, n_clean : int
        Errors on the held-out digits without noise, and how many those are.
    """

    network: MLPClassifier
    frame: pd.DataFrame
    pixels: NDArray[np.float64]
    clean: NDArray[np.float64]
    n_errors: int
    n_clean: int


def digit_world(seed: int = SEED) -> DigitWorld:
    """Train on 600 clean digits; put noise on the other 1,197, twice each."""
    rng = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    group, role = assign_roles(len(labels), SCANS_PER_SHEET, TRAINING_SHEETS, rng)
    is_training = role == "train"
    network = train_network(pixels[is_training], labels[is_training], seed=seed)
    held_out = np.flatnonzero(~is_training)
    ink = pixels[held_out].mean(axis=1)
    digits = pd.DataFrame(
        {
            "scan": held_out,
            "group": [f"sheet_{number:03d}" for number in group[held_out]],
            "split": role[held_out],
            "stroke": into_thirds(ink, ("thin", "medium", "thick")),
            "label": np.array(DIGIT_NAMES)[labels[held_out]],
        }
    )
    frame, noise = noisy_scans(digits, rng)
    noisy = np.clip(pixels[frame["scan"].to_numpy()] + noise, 0.0, 16.0)
    n_errors = int((network.predict(pixels[held_out]) != labels[held_out]).sum())
    return DigitWorld(network, frame, noisy, pixels, n_errors, len(held_out))


def make_digits(world: DigitWorld) -> DigitRows:
    """Predict the noisy scans."""
    return forward_pass(world.network, world.pixels, world.frame)


def transformed(
    pixels: NDArray[np.float64], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return four copies of images: turned, shifted, noised, with less contrast.

    Parameters
    ----------
    pixels : ndarray of shape (n, 64), 0 to 16
    rng : numpy.random.Generator
        Draws the noise.
    """
    images = pixels.reshape(-1, 8, 8)
    turned = ndimage.rotate(images, 12.0, axes=(2, 1), reshape=False, order=1)
    shifted = ndimage.shift(images, (0.0, 0.0, 0.75), order=1)
    middle = images.mean(axis=(1, 2), keepdims=True)
    copies = {
        "rotated": turned,
        "shifted": shifted,
        "noised": images + rng.normal(scale=2.0, size=images.shape),
        "contrast": middle + 0.6 * (images - middle),
    }
    return {
        name: np.clip(copy, 0.0, 16.0).reshape(-1, 64) for name, copy in copies.items()
    }


def logits_of(
    network: MLPClassifier, pixels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the outputs of the one-layer network before the softmax."""
    (hidden_weight, head_weight), (hidden_bias, head_bias) = (
        network.coefs_,
        network.intercepts_,
    )
    hidden = np.maximum(pixels @ hidden_weight + hidden_bias, 0.0)
    return hidden @ head_weight + head_bias


def shifted_scans(
    world: DigitWorld, rng: np.random.Generator
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return the test scans as a worse scanner sees them: askew, paler and noisy.

    Returns
    -------
    frame : pandas.DataFrame
        One row per test scan.
    pixels : ndarray of shape (n, 64)
    """
    is_first = ~world.frame["scan"].duplicated()
    frame = world.frame[is_first & (world.frame["split"] == "test")]
    frame = frame.reset_index(drop=True).assign(noise="shifted")
    frame["id"] = [f"scan_{scan:04d}_shifted" for scan in frame["scan"]]
    images = world.clean[frame["scan"].to_numpy()].reshape(-1, 8, 8)
    askew = ndimage.rotate(images, -20.0, axes=(2, 1), reshape=False, order=1)
    paler = 0.8 * ndimage.shift(askew, (0.0, 0.5, 0.0), order=1)
    noisy = paler + rng.normal(scale=2.0, size=paler.shape)
    return frame, np.clip(noisy, 0.0, 16.0).reshape(-1, 64)


def write_copies(world: DigitWorld, out: Path) -> None:
    """Write ``digits_noisy_copies.npz`` and ``digits_shifted.npz``."""
    rng = np.random.default_rng(SEED + 1)

    def copies(pixels: NDArray[np.float64]) -> dict[str, NDArray[np.float16]]:
        return {
            f"logits_{name}": logits_of(world.network, copy).astype(np.float16)
            for name, copy in transformed(pixels, rng).items()
        }

    ids = world.frame["id"].to_numpy().astype(str)
    np.savez_compressed(out / "digits_noisy_copies.npz", id=ids, **copies(world.pixels))
    frame, pixels = shifted_scans(world, rng)
    labels = [DIGIT_NAMES.index(name) for name in frame["label"]]
    np.savez_compressed(
        out / "digits_shifted.npz",
        logits=logits_of(world.network, pixels).astype(np.float32),
        labels=np.array(labels, dtype=np.int64),
        classes=np.array(DIGIT_NAMES),
        id=frame["id"].to_numpy().astype(str),
        group=frame["group"].to_numpy().astype(str),
        **copies(pixels),
    )


def forward_pass(
    network: MLPClassifier, pixels: NDArray[np.float64], frame: pd.DataFrame
) -> DigitRows:
    """Compute features and logits, and check them against ``predict_proba``.

    The logits come from the rounded (float32) features and weights, because those
    are what the file holds.
    """
    (hidden_weight, head_weight), (hidden_bias, head_bias) = (
        network.coefs_,
        network.intercepts_,
    )
    features = np.maximum(pixels @ hidden_weight + hidden_bias, 0.0).astype(np.float32)
    weight = np.ascontiguousarray(head_weight.T, dtype=np.float32)
    bias = head_bias.astype(np.float32)
    logits = features.astype(np.float64) @ weight.T.astype(np.float64) + bias
    gap = np.abs(softmax(logits, axis=1) - network.predict_proba(pixels)).max()
    if gap > 1e-5:
        msg = f"softmax(logits) and predict_proba differ by {gap:.2g}; at most 1e-5"
        raise RuntimeError(msg)
    return DigitRows(frame, logits.astype(np.float32), features, weight, bias)


def strangers(
    pixels: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Make images that the second network should not know, near ones first.

    Parameters
    ----------
    pixels, labels : ndarray of shape (n, 64) and (n,)
        Images that the network was not trained on, of all ten digits.
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to ndarray of shape (m, 64)
        Pixels from 0 to 16.
    """
    is_known = labels < KNOWN_DIGITS
    known = pixels[is_known]
    n = int((~is_known).sum())
    chosen = {
        name: known[rng.choice(len(known), n, replace=False)]
        for name in ("turned", "inverted", "shuffled")
    }
    turned = np.rot90(chosen["turned"].reshape(-1, 8, 8), axes=(1, 2))
    order = rng.permuted(np.tile(np.arange(64), (n, 1)), axis=1)
    return {
        "near_held_out": pixels[~is_known],
        "near_turned": turned.reshape(-1, 64),
        "far_inverted": 16.0 - chosen["inverted"],
        "far_shuffled": np.take_along_axis(chosen["shuffled"], order, axis=1),
        "far_textures": textures(n, rng),
        "far_noise": rng.integers(0, 17, size=(n, 64)).astype(np.float64),
    }


def textures(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw gratings of random direction, wave length and phase, in whole pixels."""
    row, column = np.mgrid[0:8, 0:8].reshape(2, 1, 64)
    angle, phase = rng.uniform(0, 2 * np.pi, size=(2, n, 1))
    wave = rng.uniform(2.0, 6.0, size=(n, 1))
    along = np.cos(angle) * row + np.sin(angle) * column
    return np.round(8.0 + 8.0 * np.sin(2 * np.pi * along / wave + phase))


def make_strange_digits() -> tuple[LayeredRows, LayeredRows, MLPClassifier]:
    """Train on clean digits 0 to 7, and show the network others, and no digits at all.

    Returns
    -------
    reference : LayeredRows
        The rows that trained the network.
    rows : LayeredRows
        Held-out digits 0 to 7, then the strangers.
    network : MLPClassifier
    """
    rng = np.random.default_rng(SEED + 1)
    pixels, labels = load_digits(return_X_y=True)
    group, role = assign_roles(len(labels), SCANS_PER_SHEET, TRAINING_SHEETS, rng)
    is_training = (role == "train") & (labels < KNOWN_DIGITS)
    network = train_network(pixels[is_training] / 16.0, labels[is_training], LAYERS)
    held_out = np.flatnonzero(role != "train")
    sets = strangers(pixels[held_out], labels[held_out], rng)
    known = held_out[labels[held_out] < KNOWN_DIGITS]
    parts = [of_digits("digits", known, group, role, labels)]
    parts += [
        pd.DataFrame(
            {
                "id": [f"{name}_{number:03d}" for number in range(len(images))],
                "group": [f"{name}_{number:03d}" for number in range(len(images))],
                "split": "test",
                "dataset": name,
                "label": -1,
            }
        )
        for name, images in sets.items()
    ]
    images = np.concatenate([pixels[known], *sets.values()])
    trained = np.flatnonzero(is_training)
    reference = of_digits("training", trained, group, role, labels)
    return (
        layered_pass(network, pixels[trained], reference),
        layered_pass(network, images, pd.concat(parts, ignore_index=True)),
        network,
    )


def of_digits(
    name: str,
    scans: NDArray[np.int64],
    group: NDArray[np.int64],
    role: NDArray[np.str_],
    labels: NDArray[np.int64],
) -> pd.DataFrame:
    """Return what is known of some images of the original data."""
    return pd.DataFrame(
        {
            "id": [f"scan_{scan:04d}" for scan in scans],
            "group": [f"sheet_{number:03d}" for number in group[scans]],
            "split": role[scans],
            "dataset": name,
            "label": labels[scans],
        }
    )


def layered_pass(
    network: MLPClassifier, pixels: NDArray[np.float64], frame: pd.DataFrame
) -> LayeredRows:
    """Compute both hidden layers and the logits, each from the rounded one before."""
    (first, second, head), (bias_1, bias_2, bias_3) = (
        network.coefs_,
        network.intercepts_,
    )
    early = np.maximum(pixels / 16.0 @ first + bias_1, 0.0).astype(np.float32)
    late = np.maximum(early.astype(np.float64) @ second + bias_2, 0.0)
    late = late.astype(np.float32)
    head, bias_3 = head.astype(np.float32), bias_3.astype(np.float32)
    logits = late.astype(np.float64) @ head.astype(np.float64) + bias_3
    return LayeredRows(frame, (early, late), logits.astype(np.float32))


def scenes(
    images: NDArray[np.float64],
    labels: NDArray[np.int64],
    n: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Lay five of nine digits, half as large again, out on sheets of paper.

    Parameters
    ----------
    images, labels : ndarray of shape (m, 64) and (m,)
        Digits to take; only those of `SCENE_CLASSES` are used.
    n : int
        Scenes to make.
    rng : numpy.random.Generator

    Returns
    -------
    ink : ndarray of shape (n, SCENE_SIZE, SCENE_SIZE), 0 to 16
    classes : ndarray of uint8 of the same shape
        Place in `SCENE_CLASSES`, or `UNCLEAR` where ink fades into paper.
    """
    ink = np.zeros((n, SCENE_SIZE, SCENE_SIZE))
    kind = np.zeros((n, SCENE_SIZE, SCENE_SIZE), dtype=np.uint8)
    places = {name: np.flatnonzero(labels == digit) for name, digit in SCENE_DIGITS}
    across = SCENE_SIZE // CELL
    for scene in range(n):
        for cell in rng.choice(across**2, 5, replace=False):
            number = int(rng.integers(1, len(SCENE_CLASSES)))
            chosen = rng.choice(places[SCENE_CLASSES[number]])
            row, column = (CELL * int(i) for i in divmod(cell, across))
            window = (scene, slice(row, row + CELL), slice(column, column + CELL))
            ink[window] = ndimage.zoom(images[chosen].reshape(8, 8), 1.5, order=1)
            kind[window] = number
    kind[ink < 3.0] = 0
    kind[(ink >= 3.0) & (ink < 6.0)] = UNCLEAR
    return ink, kind


def patches(ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what stands around every pixel: (n * height * width, PATCH ** 2)."""
    half = PATCH // 2
    wide = np.pad(ink, ((0, 0), (half, half), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (PATCH, PATCH), (1, 2))
    return windows.reshape(-1, PATCH**2) / 16.0


def write_scenes(out: Path) -> str:
    """Write ``digit_scenes.npz``: pixels of sheets, classified by what is around them.

    The network learns from scenes with little noise, and meets more of it.

    Returns
    -------
    str
        What it makes of them: accuracy, confidence, and the pixels that count.
    """
    rng = np.random.default_rng(SEED + 2)
    pixels, labels = load_digits(return_X_y=True)
    _, role = assign_roles(len(labels), SCANS_PER_SHEET, TRAINING_SHEETS, rng)
    is_training = role == "train"
    ink, kind = scenes(pixels[is_training], labels[is_training], 30, rng)
    seen = patches(np.clip(ink + rng.normal(size=ink.shape) * 0.5, 0.0, 16.0))
    counts = np.flatnonzero(kind.ravel() != UNCLEAR)
    some = rng.choice(counts, 6_000, replace=False)
    network = train_network(seen[some], kind.ravel()[some], (32,), epochs=150)
    ink, kind = scenes(pixels[~is_training], labels[~is_training], SCENES, rng)
    noise = rng.normal(size=ink.shape) * rng.uniform(1.0, 4.0, size=(SCENES, 1, 1))
    shape = (SCENES, SCENE_SIZE, SCENE_SIZE, len(SCENE_CLASSES))
    z = logits_of(network, patches(np.clip(ink + noise, 0.0, 16.0))).reshape(shape)
    z = np.round(z - z.mean(axis=-1, keepdims=True), 1)
    np.savez_compressed(
        out / "digit_scenes.npz",
        logits=np.moveaxis(z, -1, 1).astype(np.float16),
        labels=kind,
        classes=np.array(SCENE_CLASSES),
        ignore_index=np.array(UNCLEAR),
    )
    is_used = kind != UNCLEAR
    right = (z.argmax(axis=-1) == kind)[is_used].mean()
    sure = softmax(z, axis=-1).max(axis=-1)[is_used].mean()
    return (
        f"scenes: {is_used.sum():,} pixels count; accuracy {right:.1%}, confidence "
        f"{sure:.1%}"
    )


def make_breast_cancer() -> pd.DataFrame:
    """Train a naive Bayes classifier on 120 cases and predict the other 449."""
    rng = np.random.default_rng(SEED)
    measurements, target = load_breast_cancer(return_X_y=True)
    measurements = measurements[:, MEAN_FEATURES]
    is_malignant = 1 - target  # scikit-learn codes malignant as 0
    group, role = assign_roles(len(target), CASES_PER_BATCH, TRAINING_BATCHES, rng)
    is_training = role == "train"
    model = GaussianNB().fit(measurements[is_training], is_malignant[is_training])
    held_out = np.flatnonzero(~is_training)
    radius = measurements[held_out, 0]
    return pd.DataFrame(
        {
            "id": [f"case_{number:03d}" for number in held_out],
            "group": [f"batch_{number:02d}" for number in group[held_out]],
            "split": role[held_out],
            "nucleus_size": into_thirds(radius, ("small", "medium", "large")),
            "label": is_malignant[held_out],
            "prob_malignant": model.predict_proba(measurements[held_out])[:, 1],
        }
    )


def log_probabilities(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn p(second class) into two columns of logs, without minus infinity.

    Exact zeros take the smallest positive probability of the file, of either class,
    at most 1e-12.
    """
    both = np.concatenate([probability, 1.0 - probability])
    floor = min(1e-12, float(both[both > 0.0].min()))
    with np.errstate(divide="ignore"):
        logs = np.column_stack([np.log1p(-probability), np.log(probability)])
    return np.where(np.isfinite(logs), logs, np.log(floor))


def negative_log_likelihood(
    logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Return the mean of minus the log probability of the true class, in nats."""
    scores = log_softmax(logits / temperature, axis=1)
    return float(-scores[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Find the temperature of least NLL (Guo et al. 2017)."""
    fit = minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, labels, np.exp(log_t)),
        bounds=(-3.0, 5.0),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(fit.x))


def table_row(
    name: str,
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    split: NDArray[np.str_],
) -> str:
    """Return one line of the README table: figures of the test rows of a file."""
    fit, test = split == "calibration", split == "test"
    temperature = fit_temperature(logits[fit], labels[fit])
    logits, labels = logits[test], labels[test]
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    confidence = float(softmax(logits, axis=1).max(axis=1).mean())
    after = float(softmax(logits / temperature, axis=1).max(axis=1).mean())
    cells = (
        f"{fit.sum():,} / {test.sum():,}",
        f"{accuracy:.1%}",
        f"{confidence:.1%}",
        f"{100 * (confidence - accuracy):+.1f}",
        f"{negative_log_likelihood(logits, labels):.3f}",
        f"{temperature:.2f}",
        f"{negative_log_likelihood(logits, labels, temperature):.3f}",
        f"{100 * (after - accuracy):+.1f}",
    )
    return f"| {name} | " + " | ".join(cells) + " |"


def digit_table(rows: DigitRows) -> list[str]:
    """Return the lines of the README table about the digits, whole and by noise."""
    logits = rows.logits.astype(np.float64)
    labels = np.array([DIGIT_NAMES.index(name) for name in rows.frame["label"]])
    split = rows.frame["split"].to_numpy().astype(str)
    noise = rows.frame["noise"].to_numpy().astype(str)
    lines = [table_row("`digits_noisy.csv`", logits, labels, split)]
    for level in NOISE_LEVELS:
        part = noise == level
        name = f"only `noise` = {level}"
        lines.append(table_row(name, logits[part], labels[part], split[part]))
    return lines


def write_digits(rows: DigitRows, out: Path) -> None:
    """Write ``digits_noisy.csv`` and ``digits_features.npz``: the same rows twice."""
    columns = ["id", "group", "split", "noise", "stroke", "label"]
    scores = pd.DataFrame(
        rows.logits.astype(np.float64), columns=[f"logit_{c}" for c in DIGIT_NAMES]
    )
    # Nine significant digits bring back the same float32.
    pd.concat([rows.frame[columns], scores], axis=1).to_csv(
        out / "digits_noisy.csv",
        index=False,
        float_format="%.9g",
        lineterminator="\n",
    )
    labels = [DIGIT_NAMES.index(name) for name in rows.frame["label"]]
    np.savez_compressed(
        out / "digits_features.npz",
        logits=rows.logits,
        labels=np.array(labels, dtype=np.int64),
        features=rows.features,
        head_weight=rows.weight,
        head_bias=rows.bias,
        classes=np.array(DIGIT_NAMES),
        split=rows.frame["split"].to_numpy().astype(str),
        id=rows.frame["id"].to_numpy().astype(str),
        group=rows.frame["group"].to_numpy().astype(str),
    )


def write_strangers(
    reference: LayeredRows, rows: LayeredRows, network: MLPClassifier, out: Path
) -> None:
    """Write ``digits_reference.npz`` and ``digits_ood.npz``, with the last layer."""
    head = {
        "head_weight": np.ascontiguousarray(network.coefs_[-1].T, dtype=np.float32),
        "head_bias": network.intercepts_[-1].astype(np.float32),
        "classes": np.array(DIGIT_NAMES[:KNOWN_DIGITS]),
    }
    for name, part in (("digits_reference", reference), ("digits_ood", rows)):
        frame = part.frame
        columns = ["id", "group"]
        more = {}
        if part is rows:
            columns += ["split", "dataset"]
            more["is_ood"] = (frame["label"] < 0).to_numpy()
        np.savez_compressed(
            out / f"{name}.npz",
            logits=part.logits,
            labels=frame["label"].to_numpy(np.int64),
            features_layer1=part.layers[0],
            features=part.layers[1],
            **head,
            **{column: frame[column].to_numpy().astype(str) for column in columns},
            **more,
        )


def stranger_line(rows: LayeredRows) -> str:
    """Return what the second network makes of each set: accuracy and confidence."""
    sure = softmax(rows.logits.astype(np.float64), axis=1).max(axis=1)
    label = rows.frame["label"].to_numpy()
    is_known = label >= 0
    right = (rows.logits.argmax(axis=1) == label)[is_known].mean()
    means = [
        f"{name} {sure[(rows.frame['dataset'] == name).to_numpy()].mean():.1%}"
        for name in dict.fromkeys(rows.frame["dataset"])
    ]
    return f"digits 0 to 7: accuracy {right:.1%}; mean confidence: {', '.join(means)}"


def main(arguments: list[str] | None = None) -> int:
    """Write the sample files and print their figures."""
    parser = argparse.ArgumentParser(description="Make the sample files.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="folder to write to (default: the folder of this script)",
    )
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        world = digit_world()
        rows = make_digits(world)
        cancer = make_breast_cancer()
        strange = make_strange_digits()
        write_digits(rows, out)
        write_copies(world, out)
        write_strangers(*strange, out)
        scene_line = write_scenes(out)
        cancer.to_csv(
            out / "breast_cancer_binary.csv", index=False, lineterminator="\n"
        )
        probability = cancer["prob_malignant"].to_numpy()
        lines = [
            *digit_table(rows),
            table_row(
                "`breast_cancer_binary.csv`",
                log_probabilities(probability),
                cancer["label"].to_numpy(),
                cancer["split"].to_numpy().astype(str),
            ),
            f"digits without noise: {world.n_errors} errors in {world.n_clean:,}",
            f"exact probabilities of 0 or 1: {np.isin(probability, [0, 1]).sum()}",
            stranger_line(strange[1]),
            scene_line,
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
