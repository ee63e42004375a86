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

_LIMIT = """\
try:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
except (ImportError, ValueError):
    pass
"""
# For programs that open what a user brought: 8 GiB of memory.

PREPARE_MODEL = (
    _LIMIT
    + """\
import sys

import numpy as np
import onnx
from onnx import checker, shape_inference, version_converter

oldest, wanted = np.load(sys.argv[1], allow_pickle=False).tolist()
model = onnx.load("model.onnx", load_external_data=False)
checker.check_model(model)
versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
if versions and max(versions) < oldest:
    model = version_converter.convert_version(model, wanted)
    checker.check_model(model)
onnx.save(shape_inference.infer_shapes(model), "prepared.onnx")
"""
)

RUN_FUSED = (
    _LIMIT
    + """\
import pathlib
import sys

import numpy as np
import onnxruntime

onnxruntime.set_default_logger_severity(4)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1


def opened(name):
    return onnxruntime.InferenceSession(
        name, options, providers=["CPUExecutionProvider"]
    )


def made_up(inputs, n, other, rng):
    feed, sizes = {}, {}
    for given in inputs:
        shape = []
        for place, size in enumerate(given.shape):
            if not isinstance(size, int):
                size = sizes.setdefault(size or place, n if place == 0 else other)
            shape.append(size)
        kind = given.type.removeprefix("tensor(").removesuffix(")")
        kind = {"float": "float32", "double": "float64"}.get(kind, kind)
        if kind == "string":
            sys.exit("its inputs are text")
        if kind.startswith("float"):
            feed[given.name] = rng.normal(size=shape).astype(kind)
        else:
            feed[given.name] = rng.integers(0, 2, size=shape).astype(kind)
    return feed


def of_file(inputs):
    # Rows of the user's file, where they can be inputs.
    path = pathlib.Path("features.npy")
    given = inputs[0]
    dtype = {"tensor(float)": "float32", "tensor(double)": "float64"}.get(given.type)
    if not path.is_file() or len(inputs) > 1 or not dtype or len(given.shape) != 2:
        return []
    rows = np.load(path, allow_pickle=False).astype(dtype)
    if isinstance(given.shape[0], int) or given.shape[1] != rows.shape[1]:
        return []
    starts = [0, *range(1, len(rows), 4096)]  # one row alone, then blocks
    ends = [*starts[1:], len(rows)]
    return [{given.name: rows[a:b]} for a, b in zip(starts, ends)]


place, n = np.load(sys.argv[1], allow_pickle=False).tolist()
own, fused = opened("model.onnx"), opened("fused.onnx")
inputs, rng = own.get_inputs(), np.random.default_rng(0)
feeds = of_file(inputs)
np.save("of_file.npy", np.array(len(feeds)))
is_dynamic = any(i.shape and not isinstance(i.shape[0], int) for i in inputs)
blocks = [n, 1] if is_dynamic else [1] * n
for other in (8, 32, 128, 224, 1):
    try:
        if not feeds:
            feeds = [made_up(inputs, block, other, rng) for block in blocks]
        theirs = [own.run(None, feed)[place] for feed in feeds]
        break
    except Exception as error:
        why, feeds = str(error), []
else:
    sys.exit("it refuses inputs that are made up: " + why[:200])
ours = [fused.run(None, feed) for feed in feeds]
np.save("theirs.npy", np.concatenate(theirs).astype(np.float64))
np.save("scores.npy", np.concatenate([r[2 + place] for r in ours]).astype(np.float64))
np.save("label.npy", np.concatenate([r[1] for r in ours]))
np.save(sys.argv[2], np.concatenate([r[0] for r in ours]).astype(np.float64))
"""
)


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
