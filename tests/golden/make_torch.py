"""Run every exported torch module where torch is; writes torch.json.

torch is too heavy to be a test dependency. The values were made by::

    python -m venv torch-environment
    torch-environment/bin/pip install torch==2.15.0 numpy==2.4.6
    .venv/bin/python tests/golden/make_torch.py torch-environment/bin/python
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core.calibrators import CALIBRATORS
from core.export.runners import RUN_TORCH
from core.export.torch_module import to_torch

SIZES = (2, 3, 8)


def rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels; rounded so that they are stored exactly."""
    rng = np.random.default_rng(k)
    logits = np.round(rng.normal(0, 3, (240, k)), 3)
    return logits, (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)


def given(k: int) -> np.ndarray:
    """Return scores to calibrate: rows of the fit, ties, extremes and masks."""
    logits = rows(k)[0][:12]
    ties = np.zeros((2, k))
    ties[1, 1:] = -2.0
    extremes = np.round(np.random.default_rng(k).uniform(-100, 100, (6, k)), 3)
    masked = logits[:3].copy()
    masked[:, 0] = -np.inf
    return np.vstack([logits, ties, extremes, masked])


def digest(source: str, parameters: bytes) -> str:
    """Return one hash of what a module does, whatever the machine.

    Expected outputs of its self-test may differ between machines in the last digit,
    and safetensors orders what it says of itself at random.
    """
    tree = ast.parse(source)
    outputs = "EXAMPLE_OUTPUTS"
    tree.body = [node for node in tree.body if outputs not in ast.unparse(node)[:20]]
    found = hashlib.sha256(ast.unparse(tree).encode())
    for name, tensor in sorted(load(parameters).items()):
        found.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        found.update(tensor.tobytes())
    return found.hexdigest()


def torch_says(
    python: str, source: str, parameters: bytes, scores: np.ndarray
) -> np.ndarray:
    """Run a module in another interpreter; its own self-test must pass."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "calibrator_torch.py").write_text(source, encoding="utf-8")
        (place / "calibrator_torch.safetensors").write_bytes(parameters)
        (place / "reader.py").write_text(RUN_TORCH, encoding="utf-8")
        np.save(place / "in.npy", scores)
        for command in (["reader.py", "in.npy", "out.npy"], ["calibrator_torch.py"]):
            subprocess.run([python, "-I", *command], cwd=folder, check=True)
        return np.load(place / "out.npy", allow_pickle=False)


def as_json(values: np.ndarray) -> list[list[Any]]:
    """Return rows; JSON has no infinity, the text is read back by float()."""
    return [[v if np.isfinite(v) else "-inf" for v in row] for row in values.tolist()]


def main(python: str) -> None:
    """Write scores, calibrators, hashes of the modules, and what torch says."""
    command = [python, "-c", "import torch; print(torch.__version__)"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cases = []
    for k in SIZES:
        logits, labels = rows(k)
        for method in CALIBRATORS:
            calibrator = CALIBRATORS[method]().fit(logits, labels)
            source, parameters = to_torch(calibrator, {})
            found = torch_says(python, source, parameters, given(k))
            cases.append(
                {
                    "calibrator": calibrator.to_dict(),
                    "sha256": digest(source, parameters),
                    "probabilities": found.tolist(),
                }
            )
    document = {
        "torch": version.strip(),
        "scores": {str(k): as_json(given(k)) for k in SIZES},
        "cases": cases,
    }
    path = Path(__file__).with_name("torch.json")
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
