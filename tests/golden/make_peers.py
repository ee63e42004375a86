r"""Compute with other libraries what the tests compare with; writes peers.json.

The libraries are too heavy to be test dependencies. The values were made by::

    python -m venv peers
    peers/bin/pip install torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0 \
        netcal==1.4.0 MAPIE==1.6.0 relplot==1.0.3 model-diagnostics==1.5.0 \
        probmetrics==1.3.0 pandas==3.1.1 seaborn==0.13.2 numba
    peers/bin/pip install --no-deps torch-uncertainty==0.13.0
    peers/bin/python tests/golden/make_peers.py
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import relplot
import torch
from mapie.metrics.calibration import (
    expected_calibration_error,
    kolmogorov_smirnov_statistic,
    top_label_ece,
)
from model_diagnostics.scoring import LogLoss, SquaredError, decompose
from netcal.metrics import ACE, ECE, MCE
from probmetrics.metrics import Metrics
from torchmetrics.functional.classification import (
    calibration_error,
    multiclass_calibration_error,
)


def bare(name: str) -> None:
    """Enter a package without running its `__init__`, which asks for torchvision."""
    spec = find_spec(name)
    assert spec is not None
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = list(spec.submodule_search_locations or [])


for part in ("", ".metrics", ".metrics.classification"):
    bare(f"torch_uncertainty{part}")

from torch_uncertainty.metrics.classification.calibration import (  # noqa: E402
    AdaptiveCalibrationError,
    ClasswiseCalibrationError,
    SmoothCalibrationError,
)
from torch_uncertainty.metrics.classification.risk_coverage import AURC  # noqa: E402

N, K = 400, 4
LIBRARIES = (
    *("torch", "torchmetrics", "netcal", "MAPIE", "relplot", "numpy"),
    *("model-diagnostics", "torch-uncertainty", "probmetrics"),
)
BINS = 15
SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Return overconfident logits, rounded so that they are stored exactly."""
    rng = np.random.default_rng(20)
    logits = np.round(rng.normal(0, 3, (N, K)), 3)
    labels = (logits / 2 + rng.gumbel(size=(N, K))).argmax(axis=1)
    return logits, labels


def fitted_temperature(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, ...]:
    """Return T and the NLL there, by L-BFGS with a strong Wolfe line search."""
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [log_t],
        max_iter=200,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits / log_t.exp(), labels)
        value.backward()
        return value

    optimiser.step(loss)
    return float(log_t.exp().item()), float(loss().item())


def preset_rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities with ties, values on edges, and exact zeros and ones."""
    rng = np.random.default_rng(30 + k)
    p = np.round(rng.dirichlet(np.full(k, 0.4), 300) * 60) / 60
    p[:, -1] = 1.0 - p[:, :-1].sum(axis=1)
    p = np.maximum(p, 0.0)
    p[:40] = np.eye(k)[rng.integers(0, k, 40)]
    p /= p.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(k, p=(row + 0.1) / (row + 0.1).sum()) for row in p])
    return p, labels


def distinct_rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows with no ties, edges or certainties; 300 divide into 15 bins."""
    rng = np.random.default_rng(50 + k)
    p = rng.dirichlet(np.full(k, 0.8), 300)
    p = 0.98 * p + 0.02 / k
    p /= p.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(k, p=(row + 0.1) / (row + 0.1).sum()) for row in p])
    return p, labels


def sparse_rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences of few values, so that most bins are empty."""
    rng = np.random.default_rng(60 + k)
    top = rng.choice([0.6, 0.62, 0.9, 0.97], 200)
    place = rng.integers(0, k, 200)
    p = np.repeat((1 - top)[:, None] / (k - 1), k, axis=1)
    p[np.arange(200), place] = top
    return p, np.where(rng.random(200) < 0.8, place, rng.integers(0, k, 200))


def sample_rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and labels of a sample file."""
    table = pd.read_csv(SAMPLES / f"{name}.csv", dtype={"label": str})
    if "prob_malignant" in table:
        p = table["prob_malignant"].to_numpy()
        return np.column_stack([1 - p, p]), table["label"].astype(int).to_numpy()
    columns = [column for column in table if column.startswith("logit_")]
    z = table[columns].to_numpy()
    e = np.exp(z - z.max(axis=1, keepdims=True))
    names = [column.removeprefix("logit_") for column in columns]
    y = np.array([names.index(label) for label in table["label"]])
    return e / e.sum(axis=1, keepdims=True), y


def parts(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return model-diagnostics' decompositions, without and with weights 1, 2, 3."""
    one = p[:, 1] if p.shape[1] == 2 else p.max(axis=1)
    hit = y if p.shape[1] == 2 else (p.argmax(axis=1) == y).astype(int)
    found = {}
    for rule, score in (("brier", SquaredError()), ("log", LogLoss())):
        if rule == "log" and not 0 < one.min() <= one.max() < 1:
            continue  # infinite, or impossible, by its rule
        for weight in (None, 1.0 + np.arange(y.size) % 3):
            table = decompose(hit, one, weight, scoring_function=score).to_dicts()[0]
            suffix = "" if weight is None else ", weights"
            for part, name in (
                ("mcb", "miscalibration"),
                ("dsc", "discrimination"),
                ("unc", "uncertainty"),
            ):
                found[f"{rule}-{part}{suffix}"] = table[name]
    return found


def measured(metric: Any, p: np.ndarray, y: np.ndarray) -> float:
    """Return what one metric of torch-uncertainty says."""
    metric.update(torch.tensor(p), torch.tensor(y))
    return float(metric.compute())


def uncertainty(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return what torch-uncertainty prints for all classes."""
    k = p.shape[1]
    task = {"task": "multiclass", "num_classes": k, "num_bins": BINS}
    return {
        "ace": measured(AdaptiveCalibrationError(**task), p, y),
        "classwise-ece": measured(ClasswiseCalibrationError(k, BINS), p, y),
        "aurc": measured(AURC(), p, y),
        "smooth-ece": measured(
            SmoothCalibrationError("reflected"), p.astype(np.float32), y
        ),
    }


def probmetrics(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return what probmetrics prints: of the positive class for two classes."""
    names = ["ece-15", "rmsce-15", "mce-15", "smece", "brier"]
    found = Metrics.from_names(names).compute_all_from_labels_probs(
        torch.tensor(y), torch.tensor(p)
    )
    return {name: value.item() for name, value in found.items()}


def case(name: str, rows: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Return one input, or the name of its file, and what all libraries say."""
    p, y = rows
    given = {"p": p.tolist(), "y": y.tolist()}
    return {
        "name": name,
        **({"file": name} if (SAMPLES / f"{name}.csv").exists() else given),
        "values": plain(presets(p, y)),
        "model-diagnostics": plain(parts(p, y)),
        "torch-uncertainty": plain(uncertainty(p, y)),
        "probmetrics": plain(probmetrics(p, y)),
    }


def presets(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return what the libraries print for the calls of `core.metrics.presets`."""
    k = p.shape[1]
    top, right = p.max(axis=1), (p.argmax(axis=1) == y).astype(int)
    one, hit = (p[:, 1], y) if k == 2 else (top, right)
    task = {"task": "binary"} if k == 2 else {"task": "multiclass", "num_classes": k}
    given = torch.tensor(p[:, 1] if k == 2 else p), torch.tensor(y)
    scores = p[:, 1] if k == 2 else p
    found = {
        f"torchmetrics {norm}": calibration_error(
            *given, n_bins=BINS, norm=norm, **task
        ).item()
        for norm in ("l1", "l2", "max")
    }
    return found | {
        "netcal ECE": ECE(BINS).measure(scores, y),
        "netcal ACE": ACE(BINS).measure(scores, y),
        "netcal MCE": MCE(BINS).measure(scores, y),
        "MAPIE expected": expected_calibration_error(right, top, num_bins=BINS),
        "MAPIE top_label": top_label_ece(y, p, num_bins=BINS),
        "MAPIE classwise": expected_calibration_error(
            right, p, num_bins=BINS, classwise=True, class_labels=y
        ),
        "MAPIE kolmogorov": kolmogorov_smirnov_statistic(right, top),
        "relplot smECE": relplot.smECE(one, hit),
    }


def plain(values: dict[str, float]) -> dict[str, float | None]:
    """Return values that JSON can hold."""
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in values.items()
    }


def smooth_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences and outcomes; the last set is calibrated and large."""
    rng = np.random.default_rng(seed)
    n = (60, 200, 400, 1500)[seed]
    f = np.round(rng.beta(4, (1.0, 0.2, 2.0, 1.5)[seed], n), 4)
    o = (rng.random(n) < f ** (2.0, 1.3, 0.8, 1.0)[seed]).astype(int)
    return f, o


def main() -> None:
    """Write the inputs, the values and the versions."""
    z, y = rows()
    logits, labels = torch.tensor(z, dtype=torch.float64), torch.tensor(y)
    p = torch.softmax(logits, dim=1)
    errors = {
        f"torchmetrics_ece_15_{norm}": multiclass_calibration_error(
            p, labels, num_classes=K, n_bins=15, norm=norm
        ).item()
        for norm in ("l1", "l2", "max")
    }
    temperature, nll = fitted_temperature(logits, labels)
    values = {
        **errors,
        "netcal_ece_15": float(ECE(15).measure(p.numpy(), y)),
        "netcal_mce_15": float(MCE(15).measure(p.numpy(), y)),
        "torch_cross_entropy": torch.nn.functional.cross_entropy(logits, labels).item(),
        "torch_temperature": temperature,
        "torch_nll_at_temperature": nll,
    }
    document = {
        "versions": {name: version(name) for name in LIBRARIES},
        "values": values,
        "presets": [
            case("binary", preset_rows(2)),
            case("multiclass", preset_rows(3)),
            case("many classes", preset_rows(12)),
            case("distinct, binary", distinct_rows(2)),
            case("distinct, multiclass", distinct_rows(5)),
            case("empty bins, binary", sparse_rows(2)),
            case("empty bins, multiclass", sparse_rows(4)),
            *(
                case(n, sample_rows(n))
                for n in ("digits_noisy", "breast_cancer_binary")
            ),
        ],
        "smooth": [
            {"f": f.tolist(), "o": o.tolist(), "value": float(relplot.smECE(f, o))}
            for f, o in map(smooth_rows, range(4))
        ],
        "logits": z.tolist(),
        "labels": y.tolist(),
    }
    path = Path(__file__).with_name("peers.json")
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
