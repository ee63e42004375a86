"""Values of users' files as Python literals: data in the source, never code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["assignment", "plain"]

_WIDTH = 88


def plain(value: Any) -> Any:
    """Return a deep copy in the plain types of JSON; NaN or infinity is an error.

    Subclasses of str and float have a representation of their own, which must not
    reach a source file; the trip through JSON leaves only the built-in types.
    """
    return json.loads(json.dumps(value, allow_nan=False))


def assignment(name: str, value: Any) -> str:
    r"""Return the source of ``name = value`` for plain JSON values, in 88 columns.

    Strings are quoted by `repr`, which escapes quotes, backslashes, line ends and
    everything that does not print (so that no direction mark reorders the source).

    Examples
    --------
    >>> print(assignment("FIT", plain({"a": [1.5, None], "b": "it's a\n"})))
    FIT = {
        "a": [1.5, None],
        "b": "it's a\n",
    }
    """
    return "\n".join(_lines(value, "", f"{name} = ", ""))


def _scalar(value: Any) -> str:
    """Return a literal on one line, in double quotes where that needs no escape."""
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_scalar(key)}: {_scalar(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, str):
        # A leading apostrophe makes `repr` choose double quotes if it can.
        quoted = repr("'" + value)
        return f'"{quoted[2:]}' if quoted[0] == '"' else repr(value)
    return repr(value)


def _lines(value: Any, indent: str, before: str, after: str) -> Iterator[str]:
    """Yield the lines of one value, with what stands before and after it."""
    deeper = indent + "    "
    parts = value if isinstance(value, list) else ()
    is_flat = isinstance(value, dict) and not any(
        isinstance(item, (dict, list)) for item in value.values()
    )
    flat = f"{indent}{before}{_scalar(value)}{after}" if is_flat else ""
    if isinstance(value, dict) and not 0 < len(flat) <= _WIDTH:
        yield f"{indent}{before}{{"
        for key, item in value.items():
            yield from _lines(item, deeper, f"{_scalar(key)}: ", ",")
        yield f"{indent}}}{after}"
    elif any(isinstance(item, (dict, list)) for item in parts):
        yield f"{indent}{before}["
        for item in parts:
            yield from _lines(item, deeper, "", ",")
        yield f"{indent}]{after}"
    else:
        line = flat or f"{indent}{before}{_scalar(value)}{after}"
        if len(line) <= _WIDTH or not parts:
            yield line
            return
        yield f"{indent}{before}["
        yield from _packed(parts, deeper)
        yield f"{indent}]{after}"


def _packed(values: list[Any], indent: str) -> Iterator[str]:
    """Yield lines filled with scalars."""
    line = indent
    for value in values:
        text = f"{_scalar(value)},"
        if len(line) + len(text) > _WIDTH and line.strip():
            yield line.rstrip()
            line = indent
        line += text + " "
    yield line.rstrip()
