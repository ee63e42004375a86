"""Flags of the command line, made from the fields of `Settings`.

Nothing heavy is imported here: `--help` has to answer at once.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from core import settings as core_settings
from core.messages import Answer, DataError
from core.settings import Settings

__all__ = [
    "add_files",
    "add_method_flags",
    "add_session_flags",
    "add_settings_flags",
    "add_some_flags",
    "answer_flag",
    "chosen_settings",
    "command",
    "flag_groups",
    "name_list",
    "read_text",
]

# Fields with a flag of their own making (`add_method_flags`), or of no use here.
_OWN_FLAGS = (
    *("calibrators", "baseline", "method", "options", "temperature"),
    *("detectors", "detector"),
)

# The first field of each group of flags, in the order of the dataclass.
_GROUPS = {
    "input_kind": ("reading", "reading the file"),
    "split": ("splitting", "dividing rows into fit and test"),
    "n_bins": ("statistics", "numbers and intervals"),
    "detectors": ("detection", "thresholds and out-of-distribution sets"),
}


def flag_groups() -> dict[str, tuple[str, ...]]:
    """Return group -> names of the fields of `Settings` that have a plain flag."""
    groups: dict[str, list[str]] = {}
    current: list[str] = []
    for item in fields(Settings):
        if item.name in _GROUPS:
            current = groups.setdefault(_GROUPS[item.name][0], [])
        if item.name not in _OWN_FLAGS:
            current.append(item.name)
    return {name: tuple(members) for name, members in groups.items()}


def add_settings_flags(
    parser: argparse.ArgumentParser, groups: tuple[str, ...]
) -> None:
    """Add one flag per field of `Settings` for some groups of fields."""
    by_name = {item.name: item for item in fields(Settings)}
    titles = dict(_GROUPS.values())
    for group, names in flag_groups().items():
        if group in groups:
            section = parser.add_argument_group(titles[group])
            for name in names:
                _add_flag(section, by_name[name])


def add_some_flags(
    parser: argparse.ArgumentParser, title: str, names: Sequence[str]
) -> None:
    """Add the flags of some fields of `Settings`, for what does not use the others."""
    by_name = {item.name: item for item in fields(Settings)}
    section = parser.add_argument_group(title)
    for name in names:
        _add_flag(section, by_name[name])


def add_files(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the files to read: one, or several that `core.loading` puts together."""
    parser.add_argument("files", type=Path, metavar="FILE", nargs="+", help=text)


def command(
    commands: Any, name: str, function: Any, text: str, aliases: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Add a command that calls a function, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        aliases=aliases,
        allow_abbrev=False,
    )
    parser.set_defaults(command=function)
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


def add_session_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that read and write a session file."""
    section = parser.add_argument_group("session")
    section.add_argument(
        "--session",
        type=Path,
        metavar="FILE",
        help="session file of the page or of --save-session; flags override it",
    )
    section.add_argument(
        "--save-session",
        type=Path,
        metavar="FILE",
        help="write the settings that were used; the page opens such files",
    )


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose calibrators and their options."""
    section = parser.add_argument_group("calibrators (see `methods`)")
    section.add_argument(
        "--method",
        action="append",
        metavar="ID",
        help="calibrator to fit (default: temperature); may be repeated, the first "
        "one is the one that `calibrate` writes",
    )
    section.add_argument(
        "--calibrators",
        action="append",
        type=name_list,
        metavar="IDS",
        help="calibrators to compare, separated by commas",
    )
    section.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="ID.NAME=VALUE",
        help="option of a calibrator; may be repeated",
    )


def chosen_settings(args: argparse.Namespace) -> Settings:
    """Return the settings of the session file, overridden by the flags.

    Raises
    ------
    DataError
        If the session file or a value cannot be used.
    """
    session = getattr(args, "session", None)
    settings = Settings() if session is None else _read_session(session)
    given = vars(args)
    plain = [name for names in flag_groups().values() for name in names]
    changes = {name: given[name] for name in plain if name in given}
    for name, value in changes.items():
        if isinstance(value, list):  # a flag of names, given once or several times
            changes[name] = tuple(item for part in value for item in part)
    changes |= _method_changes(args, settings)
    try:
        return settings.replace(**changes)
    except DataError as error:
        where = error.where.replace("setting ", "flag --").replace("_", "-")
        raise DataError(error.what, where, error.how_to_fix) from None


def answer_flag(answer: Answer) -> str:
    """Return an answer as a flag that a shell takes as it stands."""
    quoted = shlex.quote(answer.value)
    if quoted == answer.value and not quoted.startswith("-"):
        return answer.flag
    return f"--{answer.setting.replace('_', '-')}={quoted}"


def read_text(path: Path, kind: str) -> str:
    """Return the text of a small file; what cannot be read raises DataError."""
    if path.is_fifo():  # reading waits until somebody writes
        raise DataError(
            f"The {kind} is a pipe.", str(path), "Write it to a file, and give that."
        )
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        why = (error.strerror or "it cannot be read").lower()
        raise DataError(
            f"The {kind} cannot be opened: {why}.", str(path), "Check the path."
        ) from None
    except UnicodeDecodeError:
        raise DataError(
            f"This is not a {kind}: it does not hold text.",
            str(path),
            "Choose the JSON file that Plumbline wrote.",
        ) from None


def _read_session(path: Path) -> Settings:
    text = read_text(path, "session file")
    try:
        return Settings.from_json(text)
    except DataError as error:
        where = error.where.replace("session file", "").strip(", ")
        where = f"{path}, {where}" if where else str(path)
        raise DataError(error.what, where, error.how_to_fix) from None
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            "The session file holds a value of the wrong type.",
            str(path),
            "Write it anew with --save-session or from the page.",
        ) from None


def _method_changes(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return the changes that --method, --calibrators and --option ask for."""
    changes: dict[str, Any] = {}
    named = list(getattr(args, "method", None) or ())
    listed = getattr(args, "calibrators", None)
    options = [_parse_option(text) for text in getattr(args, "option", ())]
    if named:
        changes["method"] = named[0]
        changes["calibrators"] = tuple(named)
    if listed is not None:
        every = (*named, *(item for part in listed for item in part))
        changes["calibrators"] = tuple(dict.fromkeys(every))
        if not named and settings.method not in every:
            changes["method"] = next(iter(every), settings.method)
    if getattr(args, "no_calibrators", False):
        changes["calibrators"] = ()
    if getattr(args, "baseline", None) is not None:
        changes["baseline"] = args.baseline
    if hasattr(args, "detector"):
        changes["detector"] = args.detector
    if hasattr(args, "detectors"):
        changes["detectors"] = tuple(item for part in args.detectors for item in part)
    if options:
        replaced = {item[:2] for item in options}
        kept = tuple(item for item in settings.options if item[:2] not in replaced)
        changes["options"] = (*kept, *options)
    return changes


def _parse_option(text: str) -> tuple[str, str, Any]:
    path, equals, value = text.partition("=")
    owner, dot, name = path.partition(".")
    if not (equals and dot and owner and name):
        raise DataError(
            f"The option {text!r} cannot be read.",
            "flag --option",
            "Write it as METHOD.NAME=VALUE.",
        )
    return owner, name.replace("-", "_"), _number(value)


def _add_flag(section: Any, item: Field[Any]) -> None:
    kind = str(item.type)
    options: dict[str, Any] = {
        "dest": item.name,
        "default": argparse.SUPPRESS,
        "help": _help_text(item),
    }
    choices = core_settings.CHOICES.get(item.name)
    if choices is not None:
        options["metavar"] = "{" + ",".join(choices) + "}"
    elif kind.startswith("tuple"):
        options |= {"action": "append", "type": name_list, "metavar": "NAMES"}
    elif kind in ("int", "float"):
        options |= {"type": _number, "metavar": "N"}
    else:
        options["metavar"] = "NAME"
    section.add_argument(f"--{item.name.replace('_', '-')}", **options)


def _help_text(item: Field[Any]) -> str:
    text = _descriptions().get(item.name, "")
    if item.name.endswith("_column"):
        role = item.name.removesuffix("_column")
        text = f'Column of the role "{role}"; "" says that there is none.'
    elif str(item.type).startswith("tuple"):
        text += ' Separated by commas; "" for none.'
    limits = core_settings.LIMITS.get(item.name)
    if limits is not None:
        text += f" From {limits[0]:.10g} to {limits[1]:.10g}."
    if item.default not in (None, ()):
        text += f" Default: {item.default}."
    return text.replace("%", "%%")


@functools.cache
def _descriptions() -> dict[str, str]:
    """Return field -> description, from the docstring of `Settings`."""
    found: dict[str, str] = {}
    for names, text in _docstring_entries(Settings.__doc__ or ""):
        for name in names:
            found[name] = text
    return found


def _docstring_entries(text: str) -> Iterator[tuple[list[str], str]]:
    entry = re.compile(r"^    (\w+(?:, \w+)*)(?: : .*)?\n((?:        .*\n)+)", re.M)
    for match in entry.finditer(text):
        yield match[1].split(", "), " ".join(match[2].split())


def name_list(text: str) -> tuple[str, ...]:
    """Split names at commas; a name in double quotes may hold one."""
    row = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(name.strip() for name in row if name.strip())


def _number(text: str) -> Any:
    """Return a finite number, or the text for `Settings` to refuse."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text
