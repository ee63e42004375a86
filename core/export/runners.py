"""Programs that run exported files in a clean interpreter, and how they are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RUN_ONNX", "RUN_TORCH", "run_clean"]

_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")

RUN_ONNX = """\
import sys

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(
    "@FILE@", options, providers=["CPUExecutionProvider"]
)
given = session.get_inputs()[0]
is_single = given.type == "tensor(float)"
scores = np.load(sys.argv[1], allow_pickle=False)
step = max(1, 1_000_000 // scores.shape[1])
starts = [0, *range(1, len(scores), step)]  # one row alone, then blocks
parts = []
for start, end in zip(starts, [*starts[1:], len(scores)]):
    block = scores[start:end].astype(np.float32 if is_single else np.float64)
    parts.append(session.run(["probabilities", "label"], {given.name: block}))
np.save(sys.argv[2], np.concatenate([p for p, _ in parts]))
np.save("label.npy", np.concatenate([label for _, label in parts]))
"""

RUN_TORCH = """\
import sys

import numpy as np
import torch

sys.path.insert(0, ".")
from calibrator_torch import Calibrator

torch.set_num_threads(1)
module = Calibrator.from_file().eval()
scores = torch.from_numpy(np.load(sys.argv[1], allow_pickle=False))
step = max(1, 1_000_000 // scores.shape[1])
with torch.inference_mode():
    found = [module(block) for block in scores.split(step)]
np.save(sys.argv[2], torch.cat(found).numpy())
"""


def run_clean(
    folder: Path, program: str, scores: NDArray[Any], timeout: float
) -> tuple[dict[str, NDArray[Any]], str]:
    """Run a program on an array: isolated, in its own folder, without our settings.

    Parameters
    ----------
    folder : Path
        Holds the program; it is run there.
    program : str
        Name of a Python file, called with ``in.npy out.npy``.
    scores : ndarray
        What ``in.npy`` holds.
    timeout : float
        Seconds.

    Returns
    -------
    arrays : dict of str to ndarray
        What was written, by the name of the file without ``.npy``.
    problem : str
        Why it failed; empty if it did not.
    """
    np.save(folder / "in.npy", scores, allow_pickle=False)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    command = [sys.executable, "-I", "-B", program, "in.npy", "out.npy"]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own text
            command,
            cwd=folder,
            env={**kept, **_ONE_THREAD},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}, f"it took longer than {timeout:g} seconds"
    except OSError as error:
        return {}, f"no interpreter could be started ({error.strerror})"
    problem = ""
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        problem = f"it ended with: {said.splitlines()[-1] if said else 'no message'}"
    arrays = {}
    for path in folder.glob("*.npy"):
        if path.name != "in.npy":
            try:
                arrays[path.stem] = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError):
                problem = problem or "it wrote no array"
    return arrays, problem
