"""How each registered detector is exported: one file per family, one entry each."""

from __future__ import annotations

import ast
import re

from core.export.detectors import features, heads, logits
from core.export.detectors.base import DetectorExport, Document, function_name
from core.export.detectors.combined import combined
from core.export.detectors.parts import SHARED

__all__ = ["EXPORTS", "code_of", "is_double", "methods_of"]

EXPORTS: dict[str, DetectorExport] = {
    **logits.EXPORTS,
    **features.EXPORTS,
    **heads.EXPORTS,
}
"""By id of the detector; a contract test wants one for each."""
EXPORTS.update(combined(EXPORTS))


def methods_of(d: Document) -> list[str]:
    """Return the ids of a detector and of the members that it is made of."""
    found = [str(d["method"])]
    for member in d["parameters"].get("members", ()):
        found += methods_of(member)
    return list(dict.fromkeys(found))


def is_double(d: Document) -> bool:
    """Return whether float32 would lose digits inside of a detector."""
    return any(EXPORTS[method].needs_double for method in methods_of(d))


def code_of(d: Document) -> str:
    """Return the functions that a detector needs, and SCORES, which finds them."""
    known = _functions(SHARED + "".join(entry.code for entry in EXPORTS.values()))
    methods = methods_of(d)
    wanted = [function_name(method) for method in methods]
    waiting = list(wanted)
    while waiting:
        tree = ast.walk(ast.parse(known[waiting.pop()]))
        named = dict.fromkeys(node.id for node in tree if isinstance(node, ast.Name))
        fresh = [name for name in named if name in known and name not in wanted]
        wanted += fresh
        waiting += fresh
    text = "".join(known[name] for name in known if name in wanted)
    table = "".join(f'    "{m}": {function_name(m)},\n' for m in methods)
    return f"{text}\n\nSCORES = {{\n{table}}}\n"


def _functions(text: str) -> dict[str, str]:
    """Return the source of each function by its name."""
    parts = re.split(r"(?m)^(?=def )", text)[1:]
    return {part[4 : part.index("(")]: f"\n\n{part.rstrip()}\n" for part in parts}
