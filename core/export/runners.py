"""Programs that run exported files in a clean interpreter, and how they are run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RUN_BOTH",
    "RUN_DETECTOR",
    "RUN_ONNX",
    "RUN_TORCH",
    "run_clean",
    "run_on_archive",
]

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
names = [given.name for given in session.get_inputs()]
is_single = session.get_inputs()[0].type == "tensor(float)"
scores, *more = (np.load(name, allow_pickle=False) for name in sys.argv[1:-1])
copies = more[0] if more else np.empty((0, *scores.shape))
step = max(1, 1_000_000 // scores.shape[1])
starts = [0, *range(1, len(scores), step)]  # one row alone, then blocks
parts = []
for start, end in zip(starts, [*starts[1:], len(scores)]):
    blocks = [scores[start:end], copies[:, start:end]]
    feed = {
        name: block.astype(np.float32 if is_single else np.float64)
        for name, block in zip(names, blocks)
    }
    parts.append(session.run(["probabilities", "label"], feed))
np.save(sys.argv[-1], np.concatenate([p for p, _ in parts]))
np.save("label.npy", np.concatenate([label for _, label in parts]))
"""

RUN_DETECTOR = """\
import sys

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(
    "@FILE@", options, providers=["CPUExecutionProvider"]
)
is_single = session.get_inputs()[0].type == "tensor(float)"
dtype = np.float32 if is_single else np.float64
with np.load(sys.argv[1], allow_pickle=False) as archive:
    rows = {name: archive[name].astype(dtype) for name in archive}
n = len(next(iter(rows.values())))
starts = [0, *range(1, n, 1024)]  # one row alone, then blocks
scores, accepted = [], []
for start, end in zip(starts, [*starts[1:], n]):
    block = {name: values[start:end] for name, values in rows.items()}
    found = session.run(["ood_score", "accepted"], block)
    scores.append(found[0].astype(np.float64))
    accepted.append(found[1])
np.savez(
    sys.argv[2], ood_score=np.concatenate(scores), accepted=np.concatenate(accepted)
)
"""

RUN_TORCH = """\
import sys

import numpy as np
import torch

sys.path.insert(0, ".")
from calibrator_torch import Calibrator

torch.set_num_threads(1)
module = Calibrator.from_file().eval()
scores, *more = (
    torch.from_numpy(np.load(name, allow_pickle=False)) for name in sys.argv[1:-1]
)
step = max(1, 1_000_000 // scores.shape[1])
blocks = [scores.split(step), *(copies.split(step, dim=1) for copies in more)]
with torch.inference_mode():
    found = [module(*block) for block in zip(*blocks)]
np.save(sys.argv[-1], torch.cat(found).numpy())
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

_MODELS = """\
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
"""
# Opens models, and makes up inputs for them.

RUN_FUSED = (
    _LIMIT
    + _MODELS
    + """

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


RUN_BOTH = (
    _LIMIT
    + _MODELS
    + """
with np.load(sys.argv[1], allow_pickle=False) as archive:
    given = dict(archive)
own, fused = opened("model.onnx"), opened("fused.onnx")
inputs, rng = own.get_inputs(), np.random.default_rng(0)
theirs, wanted = given["theirs"].tolist(), given["wanted"].tolist()
n, is_given = int(given["n"]), bool(given["is_given"])


def of_file(rows):
    # Blocks of rows that the model takes: one row alone, then more.
    one = inputs[0]
    kind = one.type.removeprefix("tensor(").removesuffix(")")
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    is_like = len(one.shape) == rows.ndim and all(
        not isinstance(size, int) or size == found
        for size, found in zip(one.shape[1:], rows.shape[1:])
    )
    if len(inputs) > 1 or kind == "string" or not is_like:
        return []
    fixed = one.shape[0] if isinstance(one.shape[0], int) else 0
    starts = [0, *range(1, len(rows), 256)]
    ends = [*starts[1:], len(rows)]
    if fixed:
        starts = range(0, len(rows) - fixed + 1, fixed)
        ends = range(fixed, len(rows) + 1, fixed)
    return [{one.name: rows[a:b].astype(kind)} for a, b in zip(starts, ends)]


def said(feeds):
    every = [own.run(theirs or None, feed) for feed in feeds]
    return [np.concatenate(parts) for parts in zip(*every)][: len(theirs)]


def is_as_in_file(found):
    # Whether something can be compared, and all that can is the same.
    gaps = []
    for place, values in enumerate(found):
        expected = given.get(f"expected_{place}")
        if expected is not None:
            expected = expected[: len(values)]
            last = values.reshape(len(values), -1)[:, -expected.shape[1] :]
            gap = np.abs(last - expected[:, -last.shape[1] :]).max()
            gaps.append(gap <= 1e-3 * max(1, np.abs(expected).max()))
    return bool(gaps) and all(gaps)


feeds, their = [], []
for name in sorted(name for name in given if name.startswith("rows_")):
    tried = of_file(given[name])
    try:
        found = said(tried)
    except Exception:
        continue
    if tried and (is_given or is_as_in_file(found)):
        feeds, their = tried, found
        break
is_of_file = bool(feeds)
if is_given and not feeds:
    sys.exit("your model does not take the inputs that you gave")
is_dynamic = any(i.shape and not isinstance(i.shape[0], int) for i in inputs)
blocks = [n, 1] if is_dynamic else [1] * n
why = ""
for other in (8, 32, 128, 224, 1):
    if feeds:
        break
    try:
        tried = [made_up(inputs, block, other, rng) for block in blocks]
        their = said(tried)
        feeds = tried
    except Exception as error:
        why = str(error)
if not feeds:
    sys.exit("it refuses inputs that are made up: " + why[:200])
ours = [fused.run(wanted, feed) for feed in feeds]
saved = {"is_of_file": np.array(is_of_file)}
for place in range(len(wanted)):
    values = np.concatenate([found[place] for found in ours])
    is_real = values.dtype.kind == "f"
    saved[f"value_{place}"] = values.astype(np.float64) if is_real else values
for place, values in enumerate(their):
    saved[f"theirs_{place}"] = values.astype(np.float64)
np.savez(sys.argv[2], **saved)
"""
)


def run_clean(
    folder: Path,
    program: str,
    scores: NDArray[Any],
    timeout: float,
    **beside: NDArray[Any] | None,
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
    **beside : ndarray, optional
        What ``copies.npy`` or ``features.npy`` holds, which is named between the two
        then.

    Returns
    -------
    arrays : dict of str to ndarray
        What was written, by the name of the file without ``.npy``.
    problem : str
        Why it failed; empty if it did not.
    """
    more = {f"{name}.npy": a for name, a in beside.items() if a is not None}
    given = {"in.npy": scores, **more}
    for name, array in given.items():
        np.save(folder / name, array, allow_pickle=False)
    problem = _run(folder, [program, *given, "out.npy"], timeout)
    arrays = {}
    for path in folder.glob("*.npy"):
        if path.name not in given:
            try:
                arrays[path.stem] = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError):
                problem = problem or "it wrote no array"
    return arrays, problem


def run_on_archive(
    folder: Path, program: str, arrays: Mapping[str, NDArray[Any]], timeout: float
) -> tuple[dict[str, NDArray[Any]], str]:
    """Run a program on arrays by name, as `run_clean` does.

    Parameters
    ----------
    folder : Path
        Holds the program; it is run there.
    program : str
        Name of a Python file, called with ``in.npz out.npz``.
    arrays : mapping of str to ndarray
        What ``in.npz`` holds.
    timeout : float
        Seconds.

    Returns
    -------
    arrays : dict of str to ndarray
        What ``out.npz`` holds.
    problem : str
        Why it failed; empty if it did not.
    """
    np.savez(folder / "in.npz", **dict[str, Any](arrays))
    problem = _run(folder, [program, "in.npz", "out.npz"], timeout)
    try:
        with np.load(folder / "out.npz", allow_pickle=False) as archive:
            return dict(archive), problem
    except (OSError, ValueError, EOFError, BadZipFile):
        return {}, problem or "it wrote no arrays"


def _run(folder: Path, arguments: Sequence[str], timeout: float) -> str:
    """Run a program in the clean interpreter; return why it failed, or nothing."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    command = [sys.executable, "-I", "-B", *arguments]
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
        return f"it took longer than {timeout:g} seconds"
    except OSError as error:
        return f"no interpreter could be started ({error.strerror})"
    if done.returncode == 0:
        return ""
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
    return f"it ended with: {said.splitlines()[-1] if said else 'no message'}"
