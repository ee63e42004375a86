"""Calibrators as torch modules: readable source, and parameters as safetensors."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators import CALIBRATORS, Calibrator
from core.export.curves import Segments, interpolation, steps
from core.export.literals import assignment
from core.export.portable import document_of, properties
from core.export.templates import WRITERS

__all__ = ["TORCH_WRITERS", "TorchWriter", "to_torch"]

FloatArray = NDArray[np.floating[Any]]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TorchWriter:
    """How one calibrator is written as a torch module.

    Parameters
    ----------
    code : str
        Method ``calibrated(self, z)``: float64 logits (n, k) to probabilities (n, k).
    tensors : callable
        From the calibrator's own state to its buffers, float64.
    """

    code: str
    tensors: Callable[[State], dict[str, FloatArray]]


def to_torch(calibrator: Calibrator, metadata: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return a torch module as source, and its parameters.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted, of a method that has an entry in `TORCH_WRITERS`.
    metadata : mapping
        From `export_metadata`; may be empty.

    Returns
    -------
    source : str
        Python that imports torch only; `Calibrator.from_file()` reads the parameters
        beside it. As a program it tests itself.
    parameters : bytes
        The buffers in float64, in the safetensors format.
    """
    from safetensors.numpy import save

    document = document_of(calibrator, metadata)
    writer = TORCH_WRITERS[document["method"]]
    tensors = writer.tensors(document["parameters"])
    if document["input"] == "probabilities":
        tensors["log_floor"] = np.array(document["log_floor"])
    tensors = {name: np.ascontiguousarray(t, np.float64) for name, t in tensors.items()}
    values = {
        "CLASSES": document["classes"],
        "SHAPES": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "FIT": {"method": document["method"], **document["fit"]},
        "EXAMPLE_INPUTS": document["examples"]["inputs"],
        "EXAMPLE_OUTPUTS": document["examples"]["outputs"],
    }
    lines = "\n".join(assignment(name, value) for name, value in values.items())
    parameters = bytes(save(tensors, metadata=properties(document)))
    return _source(document, writer, lines), parameters


def _source(document: Mapping[str, Any], writer: TorchWriter, constants: str) -> str:
    """Return the source; `constants` comes last, as it holds the user's names."""
    is_logits = document["input"] == "logits"
    convention = WRITERS[document["method"]].convention(document["input"])
    entry = _LOGITS if is_logits else _PROBABILITIES
    if document["n_scores"] == 1 < len(document["classes"]):
        entry += "        z = z - z[:, :1]\n"
    words = {
        "@SUMMARY@": CALIBRATORS[document["method"]].label,
        "@GIVEN@": "logits" if is_logits else "p",
        "@EXPECTS@": _EXPECTS_LOGITS if is_logits else _EXPECTS_PROBABILITIES,
        "@CONVENTION@": textwrap.fill(
            f"Convention: {convention}.", 88, break_long_words=False
        ),
        "@ENTRY@": entry,
        "@CODE@": writer.code,
    }
    text = _MODULE
    for word, value in words.items():
        text = text.replace(word, value)
    return text.replace("@CONSTANTS@", constants)


_MODULE = '''"""@SUMMARY@: calibrated class probabilities, as a torch module.

    calibrator = Calibrator.from_file()  # reads the .safetensors file beside this one
    probabilities = calibrator(@GIVEN@)  # (n, k), columns as in CLASSES

@EXPECTS@

@CONVENTION@

It computes in float64 and returns the float type of its input. Keep its buffers in
float64: `.half()` or `.float()` would round what was learned. As a program it tests
itself. Written by Plumbline: FIT says from which rows and with what result.
"""

import json
import math
import sys
from pathlib import Path

import torch
from torch import nn

@CONSTANTS@
TOLERANCE = 1e-9  # of the self-test, on any machine


class Calibrator(nn.Module):
    """Scores in, calibrated probabilities out; nothing in it is trained further."""

    def __init__(self):
        super().__init__()
        for name, shape in SHAPES.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @classmethod
    def from_file(cls, path=None):
        """Return the fitted module; its parameters lie beside this file by default."""
        module = cls()
        place = Path(__file__).with_suffix(".safetensors") if path is None else path
        module.load_state_dict(read_safetensors(place))
        return module

    def forward(self, @GIVEN@):
        """Return probabilities (n, k)."""
@ENTRY@        return self.calibrated(z).to(@GIVEN@.dtype)
@CODE@

def as_rows(scores):
    """Return scores in float64, one row per prediction."""
    if not scores.is_floating_point():
        raise ValueError("expected scores of a float type")
    rows = scores.double()
    rows = rows[:, None] if rows.ndim == 1 else rows
    is_binary = len(CLASSES) == 2 and rows.shape[-1] == 1
    if rows.ndim != 2 or not (is_binary or rows.shape[1] == len(CLASSES)):
        found = tuple(scores.shape)
        raise ValueError(f"expected shape (n, {len(CLASSES)}), got {found}")
    return rows


def read_safetensors(path):
    """Return the tensors of a safetensors file: lengths, a JSON header, the numbers."""
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, shape in SHAPES.items():
        place, count = header[name], math.prod(shape)
        if place["dtype"] != "F64" or place["shape"] != shape:
            raise ValueError(f"{name} is not what this module was written for")
        tensors[name] = torch.frombuffer(
            data,
            dtype=torch.float64,
            count=count,
            offset=start + place["data_offsets"][0],
        ).reshape(shape).clone()
    return tensors


def self_test():
    """Return the largest difference from the probabilities that were expected."""
    rows = [[float(value) for value in row] for row in EXAMPLE_INPUTS]
    given = torch.tensor(rows, dtype=torch.float64)
    expected = torch.tensor(EXAMPLE_OUTPUTS, dtype=torch.float64)
    with torch.inference_mode():
        return float((Calibrator.from_file()(given) - expected).abs().max())


if __name__ == "__main__":
    difference = self_test()
    is_right = difference <= TOLERANCE
    print(f"{'OK' if is_right else 'FAILED'}: self-test differs by {difference:.1e}")
    sys.exit(0 if is_right else 1)
'''

_EXPECTS_LOGITS = """\
It expects logits, one column per class. One binary score, of shape
(n,) or (n, 1), is that of the second class."""

_EXPECTS_PROBABILITIES = """\
It expects probabilities, one column per class. One binary
probability, of shape (n,) or (n, 1), is that of the second class."""

_LOGITS = """\
        z = as_rows(logits)
        if z.shape[1] < len(CLASSES):
            z = torch.cat([torch.zeros_like(z), z], dim=1)
"""

_PROBABILITIES = """\
        p = as_rows(p)
        z = torch.log(p)
        if z.shape[1] < len(CLASSES):
            z = torch.cat([torch.log1p(-p), z], dim=1)
        z = torch.where(torch.isneginf(z), self.log_floor, z)
"""

_UNCALIBRATED = '''
    def calibrated(self, z):
        """Return the probabilities as they are."""
        return torch.softmax(z - z.amax(dim=1, keepdim=True), dim=1)
'''

_TEMPERATURE = '''
    def calibrated(self, z):
        """Divide the logits by T."""
        shifted = z - z.amax(dim=1, keepdim=True)
        return torch.softmax(shifted / self.temperature, dim=1)
'''

_RENORMALISED = '''
    def renormalised(self, p, z):
        """Make rows sum to 1; classes at -inf stay 0, rows of zeros are uniform."""
        is_open = ~torch.isneginf(z)
        p = torch.where(is_open, p, 0.0)
        p = torch.where(p.sum(dim=1, keepdim=True) > 0, p, is_open.double())
        return p / p.sum(dim=1, keepdim=True)
'''

_MAPPED = '''
    def mapped(self, p):
        """Map each class by its curve; of two classes the second has one."""
        columns = p[:, -len(self.start) :].T.contiguous()
        at = torch.searchsorted(self.start, columns, right=True) - 1
        start, slope = self.start.gather(1, at), self.slope.gather(1, at)
        found = (self.value.gather(1, at) + slope * (columns - start)).T
        return torch.cat([1.0 - found, found], dim=1) if len(columns) == 1 else found
'''

_ISOTONIC = (
    '''
    def calibrated(self, z):
        """Map each class by its curve, renormalise, mix with what was there before."""
        p = torch.log_softmax(z, dim=1).exp()
        mapped = self.renormalised(self.mapped(p), z)
        return (1.0 - self.mixing) * mapped + self.mixing * p
'''
    + _MAPPED
    + _RENORMALISED
)


_VECTOR = '''
    def calibrated(self, z):
        """Give the logit of each class its own slope and offset."""
        scores = torch.where(torch.isneginf(z), z, z * self.weights + self.bias)
        return torch.softmax(scores - scores.amax(dim=1, keepdim=True), dim=1)
'''

_HISTOGRAM = (
    '''
    def calibrated(self, z):
        """Look each class up in its bins; renormalise."""
        return self.renormalised(self.mapped(torch.log_softmax(z, dim=1).exp()), z)
'''
    + _MAPPED
    + _RENORMALISED
)

_FROM_SCORES = '''
    def log_chances(self, z):
        """Return log(p) and log(1 - p), neither below -700."""
        is_top = torch.arange(z.shape[1], device=z.device) == z.argmax(1, keepdim=True)
        z = z - z.amax(dim=1, keepdim=True)
        e = z.exp()
        total = e.sum(dim=1, keepdim=True)
        # Near 1, the difference would be rounding noise: add the other classes instead.
        others = e.masked_fill(is_top, 0.0).sum(dim=1, keepdim=True)
        rest = torch.where(is_top, others, total - e)
        logs = [(part - total.log()).clamp(min=-700.0) for part in (z, rest.log())]
        return [part[:, 1:] if z.shape[1] == 2 else part for part in logs]

    def from_scores(self, scores, z):
        """Return the probabilities of log-odds of each class against the rest."""
        if scores.shape[1] == 1:
            scores = torch.cat([-scores, scores], dim=1)
        logs = nn.functional.logsigmoid(scores)
        logs = logs.masked_fill(torch.isneginf(z), -torch.inf)
        best = logs.amax(dim=1, keepdim=True)
        p = torch.where(best.exp() > 0, (logs - best).exp(), 0.0)
        return self.renormalised(p, z)
'''

_PLATT = (
    '''
    def calibrated(self, z):
        """Map the log-odds of each class by a sigmoid, renormalise."""
        log_p, log_rest = self.log_chances(z)
        return self.from_scores(self.slope * (log_p - log_rest) + self.intercept, z)
'''
    + _FROM_SCORES
    + _RENORMALISED
)

_BETA = (
    '''
    def calibrated(self, z):
        """Map each class by a ratio of beta densities, renormalise."""
        log_p, log_rest = self.log_chances(z)
        return self.from_scores(self.a * log_p - self.b * log_rest + self.c, z)
'''
    + _FROM_SCORES
    + _RENORMALISED
)


def stacked(curves: Sequence[Segments]) -> dict[str, FloatArray]:
    """Return the segments of all curves as (columns, segments), padded at the end."""
    size = max(curve.start.size for curve in curves)

    def padded(name: str, end: float) -> FloatArray:
        rows = [getattr(curve, name) for curve in curves]
        return np.stack(
            [np.pad(row, (0, size - row.size), constant_values=end) for row in rows]
        )

    return {
        "start": padded("start", np.inf),
        "value": padded("value", 0.0),
        "slope": padded("slope", 0.0),
    }


def _isotonic_tensors(state: State) -> dict[str, FloatArray]:
    curves = [interpolation(curve["x"], curve["y"]) for curve in state["maps"]]
    return {"mixing": np.array(state["mixing"]), **stacked(curves)}


def _histogram_tensors(state: State) -> dict[str, FloatArray]:
    return stacked([steps(bins["edges"], bins["values"]) for bins in state["maps"]])


def _as_they_are(state: State) -> dict[str, FloatArray]:
    return {name: np.array(value, np.float64) for name, value in state.items()}


TORCH_WRITERS: dict[str, TorchWriter] = {
    "uncalibrated": TorchWriter(_UNCALIBRATED, _as_they_are),
    "temperature": TorchWriter(_TEMPERATURE, _as_they_are),
    "vector": TorchWriter(_VECTOR, _as_they_are),
    "isotonic": TorchWriter(_ISOTONIC, _isotonic_tensors),
    "histogram": TorchWriter(_HISTOGRAM, _histogram_tensors),
    "platt": TorchWriter(_PLATT, _as_they_are),
    "beta": TorchWriter(_BETA, _as_they_are),
}
"""How each registered calibrator becomes a module; a contract test wants one each."""
