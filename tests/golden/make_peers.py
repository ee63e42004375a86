r"""Compute with other libraries what the tests compare with; writes peers.json.

The libraries are too heavy to be test dependencies. The values were made by::

    python -m venv peers
    peers/bin/pip install torch torchmetrics==1.9.0 netcal==1.4.0 MAPIE==1.6.0 \
        relplot==1.0.3
    peers/bin/python tests/golden/make_peers.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import relplot
import torch
from mapie.metrics.calibration import (
    expected_calibration_error,
    kolmogorov_smirnov_statistic,
    top_label_ece,
)
from netcal.metrics import ACE, ECE, MCE
from torchmetrics.functional.classification import (
    calibration_error,
    multiclass_calibration_error,
)

N, K = 400, 4
LIBRARIES = ("torch", "torchmetrics", "netcal", "MAPIE", "relplot", "numpy")
BINS = 15


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


def plain(values: dict[str, float]) -> dict[str, float]:
    """Return values that JSON can hold."""
    return {name: float(value) for name, value in values.items()}


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
            {"p": q.tolist(), "y": t.tolist(), "values": plain(presets(q, t))}
            for q, t in map(preset_rows, (2, 3))
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
