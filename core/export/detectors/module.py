"""A detector as a module of readable code that needs NumPy only."""

from __future__ import annotations

import base64
import textwrap
from typing import Any

import numpy as np

from core.export.detectors.fitted import FittedDetector
from core.export.detectors.registered import EXPORTS, code_of
from core.export.literals import assignment, plain
from core.ood.base import DETECTORS

__all__ = ["json_reader", "needed", "to_python"]

_OF_GAUSSIANS = {"covariance", "classes", "counts", "rank", "shrinkage", "how"}
_SHORT = 8  # numbers that are written as they are
_EXAMPLES = 5
_EXAMPLE_CELLS = 20_000

MODULE = '''"""@SUMMARY@: an out-of-distribution detector, with NumPy only.

    ood_score, accepted = detect(rows)

@EXPECTS@

Larger scores are more out-of-distribution, always; rows are accepted where the score
is at most THRESHOLD.

@FORMULA@

As a program it tests itself; given file names, in.npz and out.npz, it scores the
arrays of the first, called as in INPUTS. Written by Plumbline: FIT says from which
rows.
"""

import base64
@IMPORTS@import sys

import numpy as np


def array(kind, shape, text):
    """Return an array from its bytes, written as base64."""
    return np.frombuffer(base64.b64decode(text), dtype=kind).reshape(shape)


@CONSTANTS@
TOLERANCE = 1e-9  # of the self-test, relative to the scores, on any machine
BLOCK = 1024  # rows scored at once


def detect(rows):
    """Return scores (n,) and which of the rows are accepted as in-distribution.

    rows holds arrays by name, see INPUTS; where there is one, it may be the array.
    """
    given = checked(rows)
    n = len(given[INPUTS[0]["name"]])
    score = np.empty(n)
    for start in range(0, n, BLOCK):
        block = by_role(given, slice(start, start + BLOCK))
        score[start : start + BLOCK] = SCORES[DETECTOR["method"]](block, DETECTOR)
    if np.isnan(score).any():
        raise ValueError("the score of a row is not a number")
    return score, score <= THRESHOLD


def checked(rows):
    """Return arrays by name as float64, one row each."""
    if not hasattr(rows, "keys"):
        rows = {INPUTS[0]["name"]: rows}
    given = {}
    for wanted in INPUTS:
        name, width = wanted["name"], wanted["width"]
        if name not in rows:
            raise ValueError(f"{name} is missing")
        values = np.asarray(rows[name], dtype=np.float64)
        is_score = wanted["holds"] != "features"
        if is_score and width == 2 and (values.ndim == 1 or values.shape[1] == 1):
            values = values.reshape(-1, 1)
            first = 1 - values if wanted["holds"] == "probabilities" else 0 * values
            values = np.hstack([first, values])
        if values.ndim != 2 or values.shape[1] != width:
            shape = np.shape(rows[name])
            raise ValueError(f"{name}: expected shape (n, {width}), got {shape}")
        is_absurd = np.isnan(values).any() or (values == np.inf).any()
        if is_absurd or (not is_score and not np.isfinite(values).all()):
            raise ValueError(f"{name}: there are values that are no numbers")
        given[name] = values
    if len({len(values) for values in given.values()}) != 1:
        raise ValueError("the arrays have different numbers of rows")
    return given


def by_role(given, rows):
    """Return logits and features of some rows."""
    found = {"features": {}}
    for item in INPUTS:
        values = given[item["name"]][rows]
        if item["holds"] == "features":
            found["features"][item["layer"]] = values
        elif item["holds"] == "probabilities":
            with np.errstate(divide="ignore"):
                logs = np.log(values)
            found["logits"] = np.where(values > 0, logs, LOG_FLOOR)
        else:
            found["logits"] = values
    return found
@CODE@

def self_test():
    """Return the largest difference from the scores that were expected."""
    if not EXAMPLES:
        return 0.0
    found, _ = detect(EXAMPLES)
    size = np.maximum(np.abs(EXAMPLE_SCORES), 1)
    return float((np.abs(found - EXAMPLE_SCORES) / size).max())


def main(arguments):
    """Score arrays if file names are given; test in any case."""
    if len(arguments) not in (0, 2):
        print("usage: python THIS_FILE [in.npz out.npz]", file=sys.stderr)
        return 2
    if arguments:
        with np.load(arguments[0], allow_pickle=False) as archive:
            ood_score, accepted = detect(archive)
        np.savez(arguments[1], ood_score=ood_score, accepted=accepted)
    difference = self_test()
    is_right = difference <= TOLERANCE
    print(f"{'OK' if is_right else 'FAILED'}: self-test differs by {difference:.1e}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''

_READ = '''\
with open(@FILE@, encoding="utf-8") as file:
    document = json.load(file)


def decoded(value):
    """Return a value of the file with its arrays."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"dtype", "shape", "base64"}:
        return array(value["dtype"], value["shape"], value["base64"])
    return {key: decoded(item) for key, item in value.items()}


INPUTS = document["metadata"]["inputs"]
LOG_FLOOR = document["metadata"].get("log_floor")
THRESHOLD = document["threshold"]["value"]
DETECTOR = decoded(document["detector"])
EXAMPLES = EXAMPLE_SCORES = None
'''


def needed(value: Any) -> Any:
    """Return the document of a detector without what no score reads."""
    if isinstance(value, list):
        return [needed(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped: set[str] = set()
    if isinstance(value.get("whitening"), np.ndarray):
        dropped = _OF_GAUSSIANS
    elif isinstance(value.get("held_out"), np.ndarray):
        dropped = {"held_out"}
    elif {"method", "notes"} <= set(value):
        dropped = {"notes", "n_reference"}
    return {key: needed(item) for key, item in value.items() if key not in dropped}


def to_python(item: FittedDetector, examples: dict[str, Any] | None = None) -> str:
    """Return a module that needs NumPy only.

    Parameters
    ----------
    item : FittedDetector
    examples : dict of str to ndarray, optional
        Arrays from `FittedDetector.arrays`; a few of their rows become the self-test.

    Returns
    -------
    str
        ``detect(rows)`` returns scores and what is accepted; ``python module.py`` tests
        itself and ``python module.py in.npz out.npz`` scores arrays.
    """
    own = needed(item.detector.to_dict())
    few = {}
    if examples:
        cells = sum(values.shape[1] for values in examples.values())
        n = len(next(iter(examples.values())))
        n = min(n, _EXAMPLES, max(1, _EXAMPLE_CELLS // max(cells, 1)))
        few = {name: values[:n] for name, values in examples.items()}
    constants = {
        "CLASSES": item.metadata.get("classes", []),
        "INPUTS": [given.to_dict() for given in item.inputs],
        "LOG_FLOOR": item.log_floor,
        "THRESHOLD": item.threshold.value,
        "FIT": {
            "threshold": item.threshold.to_dict(),
            **{
                key: value
                for key, value in item.metadata.items()
                if key not in ("classes", "inputs", "log_floor")
            },
        },
    }
    if item.input_kind != "probabilities":
        del constants["LOG_FLOOR"]
    lines = [assignment(name, plain(value)) for name, value in constants.items()]
    lines += [
        f"DETECTOR = {_literal(own)}",
        f"EXAMPLES = {_literal(few)}",
        f"EXAMPLE_SCORES = {_literal(item.score(few) if few else None)}",
    ]
    return _module(item, "\n".join(lines), "")


def json_reader(item: FittedDetector, file_name: str) -> str:
    """Return a program that applies an exported JSON file with NumPy only.

    It shares no code with `from_json`: the verification reads the file with it.
    """
    return _module(item, _READ.replace("@FILE@", repr(file_name)), "import json\n")


def _module(item: FittedDetector, constants: str, imports: str) -> str:
    entry = EXPORTS[item.method]
    words = {
        "@SUMMARY@": DETECTORS[item.method].label,
        "@EXPECTS@": _expected(item),
        "@FORMULA@": textwrap.fill(f"Score: {entry.formula}.", 88),
        "@IMPORTS@": imports,
        "@CODE@": code_of(item.detector.to_dict()),
    }
    text = MODULE
    for word, value in words.items():
        text = text.replace(word, value)
    return text.replace("@CONSTANTS@", constants)


def _expected(item: FittedDetector) -> str:
    kinds = {
        "logits": "logits, one column per class",
        "probabilities": "probabilities, one column per class",
        "features": "features as those of the fit",
    }
    parts = dict.fromkeys(kinds[given.holds] for given in item.inputs)
    return textwrap.fill(f"It expects {' and '.join(parts)}; see INPUTS.", 88)


def _literal(value: Any, indent: str = "") -> str:
    """Return the source of plain values with arrays in them."""
    deeper = indent + "    "
    if isinstance(value, np.ndarray):
        return _array(value, deeper)
    if isinstance(value, dict):
        if not value:
            return "{}"
        lines = "".join(
            f"{deeper}{_literal(str(key))}: {_literal(item, deeper)},\n"
            for key, item in value.items()
        )
        return f"{{\n{lines}{indent}}}"
    if isinstance(value, (list, tuple)):
        if not any(isinstance(item, (dict, list, np.ndarray)) for item in value):
            return f"[{', '.join(_literal(item) for item in value)}]"
        lines = "".join(f"{deeper}{_literal(item, deeper)},\n" for item in value)
        return f"[\n{lines}{indent}]"
    return assignment("x", plain(value))[4:]


def _array(value: np.ndarray, indent: str) -> str:
    ready = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    if value.size <= _SHORT and value.dtype.kind == "f" and np.isfinite(value).all():
        return f"np.array({value.tolist()!r}, dtype={ready.dtype.str!r})"
    text = base64.b64encode(ready.tobytes()).decode("ascii")
    lines = "\n".join(text[i : i + 88] for i in range(0, len(text), 88))
    shape = tuple(value.shape)
    return f'array("{ready.dtype.str}", {shape!r}, """\n{lines}\n{indent}""")'
