"""Problems for calibrators: simulated ones with known truth, and real classifiers.

Every problem has rows to fit on and many fresh ones to be judged on. Nothing here is
tuned: shapes and sizes are those that people meet, in round numbers.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.base import clone
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from core.loading import read_study
from core.settings import Settings
from core.softmax import softmax
from core.splitting import make_split
from core.validation import log_probabilities

__all__ = ["Problem", "problems"]

Array = np.ndarray[Any, Any]
N_FRESH = 10_000
SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to fit on and rows to be judged on.

    Parameters
    ----------
    name : str
    z_fit, y_fit : ndarray of shape (n, k) and (n,)
    z_new, y_new : ndarray of shape (m, k) and (m,)
    truth : ndarray of shape (m, k) or None
        The probabilities of the classes of the new rows, where they are known: losses
        are expected over them then, so that no luck of labels is left.
    """

    name: str
    z_fit: Array
    y_fit: Array
    z_new: Array
    y_new: Array
    truth: Array | None = None

    @property
    def k(self) -> int:
        """Number of classes."""
        return int(self.z_fit.shape[1])


def problems() -> Iterator[Problem]:
    """Yield every problem, made when it is asked for."""
    yield from _simulated()
    yield from _classifiers()
    yield from _shipped()


def _drawn(p: Array, rng: np.random.Generator) -> Array:
    found = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1)
    return np.minimum(found, p.shape[1] - 1)


# ----------------------------------------------------------------------- simulated

# shape, classes, fit rows
_SHAPES = (
    ("overconfident", 2, 500),
    ("overconfident", 3, 500),
    ("overconfident", 10, 2000),
    ("overconfident", 100, 5000),
    ("underconfident", 5, 1000),
    ("calibrated", 2, 1000),
    ("calibrated", 10, 1000),
    ("calibrated", 50, 2000),
    ("class bias", 2, 1000),
    ("class bias", 4, 1000),
    ("class bias", 20, 2000),
    ("class slopes", 5, 1000),
    ("class slopes", 30, 5000),
    ("confusion", 4, 1000),
    ("confusion", 10, 5000),
    ("rare classes", 6, 2000),
    ("prior shift", 3, 1000),
    ("label noise", 3, 1000),
    ("label noise", 10, 2000),
    ("saturated", 2, 2000),
    ("saturated", 10, 2000),
    ("asymmetric", 2, 1000),
    ("asymmetric", 2, 5000),
    ("two difficulties", 5, 2000),
    ("two difficulties", 20, 5000),
    ("heavy tails", 8, 1000),
    ("few rows", 10, 100),
    ("few rows", 3, 60),
)


def _simulated() -> Iterator[Problem]:
    for shape, k, n in _SHAPES:
        name = f"{shape}, {k} classes, {n:,} rows"
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        u, z = _scores(shape, k, n + N_FRESH, rng)
        p = softmax(u)
        if shape == "label noise":
            p = 0.85 * p + 0.15 / k
        y = _drawn(p, rng)
        yield Problem(name, z[:n], y[:n], z[n:], y[n:], p[n:])


def _scores(
    shape: str, k: int, n: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the logits of the truth, and what a model makes of them."""
    scale = 1.0 + np.log(k) / 2
    u = scale * rng.normal(size=(n, k))
    if shape == "overconfident":
        return u, 2.5 * u
    if shape == "underconfident":
        return u, 0.5 * u
    if shape in ("calibrated", "label noise"):
        return u, u.copy()
    if shape == "class bias":
        return u, 1.8 * u + rng.normal(size=k)
    if shape == "class slopes":
        return u, u * np.exp(0.4 * rng.normal(size=k)) + 0.3 * rng.normal(size=k)
    if shape == "confusion":
        mixing = np.eye(k) + 0.6 / k * rng.normal(size=(k, k)) * (
            rng.random((k, k)) < 0.5
        )
        return u, 1.5 * u @ mixing
    if shape == "rare classes":
        return u - 0.8 * np.arange(k), 2.0 * u - 0.8 * np.arange(k)
    if shape == "prior shift":
        return u + np.linspace(-1.5, 1.5, k), u
    if shape == "saturated":
        return u, 4.0 * np.tanh(u / 2.0)
    if shape == "asymmetric":
        gap = u[:, 1] - u[:, 0]
        bent = np.where(gap > 0, 2.5 * gap, 0.8 * gap)
        return u, np.column_stack([np.zeros(n), bent])
    if shape == "two difficulties":
        return u, u * np.where(rng.random((n, 1)) < 0.5, 3.0, 1.0)
    if shape == "heavy tails":
        u = scale * rng.standard_t(3, size=(n, k)) / np.sqrt(3)
        return u, 2.0 * u
    assert shape == "few rows"
    return u, 2.0 * u + 0.5 * rng.normal(size=k)


# --------------------------------------------------------------- trained classifiers


def _scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


_MODELS: dict[str, Any] = {
    "naive Bayes": GaussianNB(),
    "random forest": RandomForestClassifier(100, random_state=0),
    "extra trees": ExtraTreesClassifier(100, min_samples_leaf=3, random_state=0),
    "boosting": GradientBoostingClassifier(random_state=0),
    "AdaBoost": AdaBoostClassifier(random_state=0),
    "neighbours": _scaled(KNeighborsClassifier(15)),
    "small network": _scaled(MLPClassifier((64,), max_iter=200, random_state=0)),
    "regression": _scaled(LogisticRegression(C=100.0, max_iter=500)),
    "quadratic": QuadraticDiscriminantAnalysis(reg_param=0.01),
    "margins": _scaled(SVC(random_state=0)),
    "tree": DecisionTreeClassifier(min_samples_leaf=10, random_state=0),
}

# model, classes, rows to train on, rows to fit on
_GENERATED = (
    ("naive Bayes", 2, 2000, 1000),
    ("naive Bayes", 5, 2000, 1000),
    ("naive Bayes", 12, 3000, 2000),
    ("random forest", 2, 2000, 1000),
    ("random forest", 6, 2000, 1000),
    ("extra trees", 4, 2000, 1000),
    ("boosting", 2, 1000, 1000),
    ("boosting", 4, 1000, 1000),
    ("AdaBoost", 2, 1000, 1000),
    ("neighbours", 3, 2000, 1000),
    ("small network", 2, 800, 500),
    ("small network", 8, 2000, 2000),
    ("regression", 5, 300, 500),
    ("quadratic", 3, 500, 1000),
    ("margins", 2, 1000, 500),
    ("margins", 4, 1000, 1000),
    ("tree", 3, 2000, 1000),
)


def _classifiers() -> Iterator[Problem]:
    for model, k, n_train, n_fit in _GENERATED:
        seed = zlib.crc32(f"{model} {k}".encode()) % 2**31
        x, y = datasets.make_classification(
            n_train + n_fit + N_FRESH,
            n_features=20,
            n_informative=8,
            n_redundant=6,
            n_classes=k,
            n_clusters_per_class=2,
            flip_y=0.03,
            class_sep=1.0,
            weights=None if k > 4 else np.arange(2, k + 2) / np.arange(2, k + 2).sum(),
            random_state=seed,
        )
        scores = _trained(_MODELS[model], x, y, n_train)
        z, y = scores[n_train:], y[n_train:]
        name = f"{model}, {k} classes, {n_fit:,} rows"
        yield Problem(name, z[:n_fit], y[:n_fit], z[n_fit:], y[n_fit:])


def _trained(model: Any, x: Array, y: Array, n_train: int) -> Array:
    """Fit a model on the first rows; return the logits of all."""
    made = clone(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        made.fit(x[:n_train], y[:n_train])
    if hasattr(made, "predict_proba"):
        return np.asarray(log_probabilities(made.predict_proba(x), "p")[0])
    margin = made.decision_function(x)
    return np.column_stack([0 * margin, margin]) if margin.ndim == 1 else margin


# --------------------------------------------------------------------- shipped data


def _shipped() -> Iterator[Problem]:
    sets = {"digits": datasets.load_digits, "tumours": datasets.load_breast_cancer}
    for (title, load), model in (
        (pair, model)
        for pair in sets.items()
        for model in ("naive Bayes", "random forest", "small network")
    ):
        x, y = load(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(y))
        x, y = x[order], y[order]
        n_train = len(y) // 4
        n_fit = (len(y) - n_train) // 3
        z, y = _trained(_MODELS[model], x, y, n_train)[n_train:], y[n_train:]
        name = f"{model} on {title}, {n_fit:,} rows"
        yield Problem(name, z[:n_fit], y[:n_fit], z[n_fit:], y[n_fit:])
    study = read_study(SAMPLES / "digits_noisy.csv", Settings())
    own, round_ = study.evaluation, make_split(study, Settings()).rounds[0]
    assert own.logits is not None
    assert own.labels is not None
    yield Problem(
        f"noisy digits, {round_.fit.size:,} rows",
        own.logits[round_.fit],
        own.labels[round_.fit],
        own.logits[round_.test],
        own.labels[round_.test],
    )
