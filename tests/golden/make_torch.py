"""Run exported torch modules where torch is; writes torch/<method>.json.

torch is too heavy to be a test dependency. The values were made by::

    python -m venv torch-environment
    torch-environment/bin/pip install torch numpy==2.4.6
    .venv/bin/python tests/golden/make_torch.py torch-environment/bin/python [METHOD...]

Each file says which torch. Without methods, all of them are run.
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
from core.export.methods import EXPORTS
from core.export.runners import RUN_TORCH
from core.export.torch_module import to_torch

SIZES = (2, 3, 8)
KEPT = "vector-kept"  # a calibrator that was told to keep predictions


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


def copies_of(logits: np.ndarray) -> np.ndarray:
    """Return scores of two made-up copies of each row, (2, n, k)."""
    turned = np.where(np.isneginf(logits), -1.0, logits)[:, ::-1]
    return np.stack([turned / 4 + np.maximum(logits, -50.0), logits / 2])


def beside(method: str, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a calibrator reads beside the logits."""
    names = CALIBRATORS[method].requires | CALIBRATORS[method].accepts
    return {"copies": copies_of(logits)} if "copies" in names else {}


def torch_says(
    python: str, source: str, parameters: bytes, **given_arrays: np.ndarray
) -> np.ndarray:
    """Run a module in another interpreter; its own self-test must pass."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "calibrator_torch.py").write_text(source, encoding="utf-8")
        (place / "calibrator_torch.safetensors").write_bytes(parameters)
        (place / "reader.py").write_text(RUN_TORCH, encoding="utf-8")
        names = [f"{name}.npy" for name in given_arrays]
        for name, array in zip(names, given_arrays.values(), strict=True):
            np.save(place / name, array)
        for command in (["reader.py", *names, "out.npy"], ["calibrator_torch.py"]):
            subprocess.run([python, "-I", *command], cwd=folder, check=True)
        return np.load(place / "out.npy", allow_pickle=False)


def as_json(values: np.ndarray) -> list[list[Any]]:
    """Return rows; JSON has no infinity, the text is read back by float()."""
    return [[v if np.isfinite(v) else "-inf" for v in row] for row in values.tolist()]


def main(python: str, *methods: str) -> None:
    """Write scores, calibrators, hashes of the modules, and what torch says."""
    command = [python, "-c", "import torch; print(torch.__version__)"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    folder = Path(__file__).with_name("torch")
    written = [name for name, entry in EXPORTS.items() if not entry.refusal]
    for name in methods or [*written, KEPT]:
        method = name.removesuffix("-kept")
        cases = []
        for k in SIZES:
            logits, labels = rows(k)
            more = beside(method, logits)
            calibrator = CALIBRATORS[method]().fit(logits, labels, **more)
            calibrator.keeps_predictions_ = name == KEPT
            source, parameters = to_torch(calibrator, {})
            scores = {"in": given(k), **beside(method, given(k))}
            found = torch_says(python, source, parameters, **scores)
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
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
