"""Compute with other libraries what the tests compare with; writes peers.json.

The libraries are too heavy to be test dependencies. The values were made by::

    python -m venv peers
    peers/bin/pip install torch==2.13.0 torchmetrics==1.9.0 netcal==1.4.0 numpy==2.3.5
    peers/bin/python tests/golden/make_peers.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from netcal.metrics import ECE, MCE
from torchmetrics.functional.classification import multiclass_calibration_error

N, K = 400, 4
LIBRARIES = ("torch", "torchmetrics", "netcal", "numpy")


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
        "logits": z.tolist(),
        "labels": y.tolist(),
    }
    path = Path(__file__).with_name("peers.json")
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
