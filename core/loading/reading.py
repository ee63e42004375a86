"""The readers: a path or bytes in, Predictions or a Study out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from core.loading.rows import assemble, head_of
from core.loading.schema import Schema
from core.loading.understanding import understand
from core.messages import Progress, no_progress
from core.predictions import Predictions, Study
from core.settings import Settings

__all__ = [
    "READING_FIELDS",
    "inspect_file",
    "open_study",
    "read_predictions",
    "read_study",
]

READING_FIELDS = (
    *("input_kind", "label_column", "score_columns", "id_column", "group_column"),
    *("weight_column", "time_column", "split_column", "slice_columns"),
    *("positive_class", "invalid_rows", "renormalise"),
)
"""Fields of `Settings` that decide how a file is read."""


def inspect_file(
    source: bytes | str | Path,
    *,
    settings: Settings | None = None,
    name: str | None = None,
    progress: Progress = no_progress,
) -> Schema:
    """Say what each column of a file is taken for, and why.

    Parameters
    ----------
    source : bytes, str or Path
        Bytes of an upload, or a path.
    settings : Settings, optional
        Choices that the user made already.
    name : str, optional
        Name to show for bytes.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.

    Returns
    -------
    Schema
        A file without score columns has no column of the role "score".

    Raises
    ------
    DataError
        If the file cannot be read at all.
    """
    return understand(source, settings or Settings(), name, progress).schema


def read_predictions(
    source: bytes | str | Path,
    *,
    schema: Schema | None = None,
    name: str | None = None,
    progress: Progress = no_progress,
    **overrides: Any,
) -> Predictions:
    """Read predictions from CSV, TSV, Parquet or NPZ.

    Parameters
    ----------
    source : bytes, str or Path
        Bytes of an upload, or a path.
    schema : Schema, optional
        Roles as `inspect_file` found them; taken where no override speaks.
    name : str, optional
        Name to show for bytes.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.
    **overrides
        The reading fields of `Settings` (`READING_FIELDS`): None takes what was
        found, an empty string says "no such column".

    Returns
    -------
    Predictions

    Raises
    ------
    DataError
        What is wrong, where, and how to fix it; with answers where a setting
        would let the file through.
    """
    settings = _settings_of(schema, overrides)
    return assemble(understand(source, settings, name, progress), settings, progress)


def read_study(
    source: bytes | str | Path,
    settings: Settings,
    *,
    name: str | None = None,
    progress: Progress = no_progress,
) -> Study:
    """Read one file as the evaluation rows of a study, with its last layer.

    Parameters
    ----------
    source : bytes, str or Path
        Bytes of an upload, or a path.
    settings : Settings
        Choices; only the reading fields are used.
    name : str, optional
        Name to show for bytes.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.

    Returns
    -------
    Study
    """
    return open_study(source, settings, name=name, progress=progress)[0]


def open_study(
    source: bytes | str | Path,
    settings: Settings,
    *,
    name: str | None = None,
    progress: Progress = no_progress,
) -> tuple[Study, Schema]:
    """Read a study and what was understood of its file, in one trip.

    Parameters
    ----------
    source : bytes, str or Path
        Bytes of an upload, or a path.
    settings : Settings
        Choices; only the reading fields are used.
    name : str, optional
        Name to show for bytes.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.

    Returns
    -------
    study : Study
    schema : Schema
    """
    understood = understand(source, settings, name, progress)
    rows = assemble(understood, settings, progress)
    return Study(evaluation=rows, head=head_of(understood)), understood.schema


def _settings_of(schema: Schema | None, overrides: dict[str, Any]) -> Settings:
    unknown = sorted(set(overrides) - set(READING_FIELDS))
    if unknown:
        msg = (
            f"read_predictions has no option {unknown[0]!r}; it knows {READING_FIELDS}"
        )
        raise TypeError(msg)
    defaults = {item.name: item.default for item in fields(Settings)}
    given: dict[str, Any] = {
        key: defaults[key] if value is None else value
        for key, value in overrides.items()
    }
    for key in ("score_columns", "slice_columns"):
        if isinstance(given.get(key), str):
            given[key] = (given[key],) if given[key] else ()
    settings = Settings(**given)
    if schema is None:
        return settings
    taken: dict[str, Any] = {}
    if settings.input_kind == "auto" and not settings.score_columns:
        taken["input_kind"] = schema.input_kind
    for role in ("label", "id", "group", "weight", "time", "split"):
        if getattr(settings, f"{role}_column") is None:
            taken[f"{role}_column"] = schema.column(role) or ""
    if settings.slice_columns is None:
        taken["slice_columns"] = schema.names("slice")
    if not settings.score_columns:
        taken["score_columns"] = schema.names("score")
    used = {v for k, v in given.items() if k.endswith("_column")}
    used |= set(settings.score_columns)
    for key, value in taken.items():
        if key.endswith("_column") and value in used:
            taken[key] = ""
        elif isinstance(value, tuple):
            taken[key] = tuple(item for item in value if item not in used)
    return settings.replace(**taken)
