"""Calibrators as torch modules: readable source, and parameters as safetensors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.calibrators import CALIBRATORS, Calibrator
from core.export.literals import assignment
from core.export.methods import EXPORTS, TorchWriter
from core.export.portable import document_of, properties
from core.export.templates import COPIES_EXPECTED

__all__ = ["to_torch"]


def to_torch(calibrator: Calibrator, metadata: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return a torch module as source, and its parameters.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted, of a method that has an entry in `core.export.methods.EXPORTS`.
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
    writer = EXPORTS[document["method"]].of(document["parameters"]).torch
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
    if document.get("n_copies"):
        values["N_COPIES"] = document["n_copies"]
        values["EXAMPLE_COPIES"] = document["examples"]["copies"]
    lines = "\n".join(assignment(name, value) for name, value in values.items())
    parameters = bytes(save(tensors, metadata=properties(document)))
    return _source(document, writer, lines), parameters


def _source(document: Mapping[str, Any], writer: TorchWriter, constants: str) -> str:
    """Return the source; `constants` comes last, as it holds the user's names."""
    is_logits = document["input"] == "logits"
    entry = EXPORTS[document["method"]].of(document["parameters"])
    convention = entry.numpy.convention(document["input"])
    given = _LOGITS if is_logits else _PROBABILITIES
    if document["n_scores"] == 1 < len(document["classes"]):
        given += "        z = z - z[:, :1]\n"
    n_copies = int(document.get("n_copies", 0))
    expects = _EXPECTS_LOGITS if is_logits else _EXPECTS_PROBABILITIES
    if n_copies:
        expects += "\n\n" + COPIES_EXPECTED.replace("@N@", str(n_copies))
    words = {
        "@FORWARD@": _FORWARD_COPIES if n_copies else _FORWARD,
        "@SELF_TEST@": _SELF_TEST_COPIES if n_copies else _SELF_TEST,
        "@COPIES@": ", copies" if n_copies else "",
        "@SUMMARY@": CALIBRATORS[document["method"]].label,
        "@GIVEN@": "logits" if is_logits else "p",
        "@EXPECTS@": expects,
        "@CONVENTION@": textwrap.fill(
            f"Convention: {convention}.", 88, break_long_words=False
        ),
        "@ENTRY@": given,
        "@CODE@": writer.code,
    }
    text = _MODULE
    for word, value in words.items():
        text = text.replace(word, value)
    return text.replace("@CONSTANTS@", constants)


_MODULE = '''"""@SUMMARY@: calibrated class probabilities, as a torch module.

    calibrator = Calibrator.from_file()  # reads the .safetensors file beside this one
    probabilities = calibrator(@GIVEN@@COPIES@)  # (n, k), columns as in CLASSES

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

@FORWARD@@CODE@

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
@SELF_TEST@

if __name__ == "__main__":
    difference = self_test()
    is_right = difference <= TOLERANCE
    print(f"{'OK' if is_right else 'FAILED'}: self-test differs by {difference:.1e}")
    sys.exit(0 if is_right else 1)
'''

_FORWARD = '''\
    def forward(self, @GIVEN@):
        """Return probabilities (n, k)."""
@ENTRY@        return self.calibrated(z).to(@GIVEN@.dtype)
'''

_FORWARD_COPIES = '''\
    def forward(self, @GIVEN@, copies):
        """Return probabilities (n, k); copies are (m, n, k), m as in N_COPIES."""
        z = self.as_logits(@GIVEN@)
        c = torch.stack([self.as_logits(copy) for copy in copies])
        if c.shape[:2] != (N_COPIES, len(z)):
            raise ValueError(f"expected {N_COPIES} copies of {len(z)} rows")
        return self.calibrated(z, c).to(@GIVEN@.dtype)

    def as_logits(self, @GIVEN@):
        """Return logits in float64, one column per class."""
@ENTRY@        return z
'''

_SELF_TEST = """\
    rows = [[float(value) for value in row] for row in EXAMPLE_INPUTS]
    given = torch.tensor(rows, dtype=torch.float64)
    expected = torch.tensor(EXAMPLE_OUTPUTS, dtype=torch.float64)
    with torch.inference_mode():
        return float((Calibrator.from_file()(given) - expected).abs().max())
"""

_SELF_TEST_COPIES = """\
    given = [
        torch.tensor([[float(v) for v in row] for row in rows], dtype=torch.float64)
        for rows in (EXAMPLE_INPUTS, *EXAMPLE_COPIES)
    ]
    expected = torch.tensor(EXAMPLE_OUTPUTS, dtype=torch.float64)
    with torch.inference_mode():
        found = Calibrator.from_file()(given[0], torch.stack(given[1:]))
        return float((found - expected).abs().max())
"""

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
