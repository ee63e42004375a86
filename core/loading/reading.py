"""The readers: a path or bytes in, Predictions or a Study out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from core.loading.copies import copies_beside
from core.loading.files import FileSources, read_files
from core.loading.ood_sets import separated
from core.loading.rows import assemble, head_of
from core.loading.schema import Expected, Schema
from core.loading.understanding import understand
from core.messages import DataError, Note, Progress, no_progress
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
    *("weight_column", "time_column", "split_column", "ood_column"),
    *("dataset_column", "slice_columns"),
    *("positive_class", "invalid_rows", "renormalise", "label_base"),
)
"""Fields of `Settings` that decide how a file is read."""


def inspect_file(
    source: FileSources,
    *,
    settings: Settings | None = None,
    name: str | Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> Schema:
    """Say what each column of a file is taken for, and why.

    Parameters
    ----------
    source : bytes, str, Path or a list of these
        Bytes of an upload, or a path; several files that belong together.
    settings : Settings, optional
        Choices that the user made already.
    name : str or sequence of str, optional
        Name to show for bytes, one per file.
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
    settings = settings or Settings()
    raw = read_files(source, name, progress, settings.id_column)["evaluation"]
    return understand(raw, settings, progress).schema


def read_predictions(
    source: FileSources,
    *,
    schema: Schema | None = None,
    expected: Expected = Expected(),  # noqa: B008 - frozen
    name: str | Sequence[str] | None = None,
    progress: Progress = no_progress,
    **overrides: Any,
) -> Predictions:
    """Read predictions from CSV, TSV, Parquet or NPZ.

    Parameters
    ----------
    source : bytes, str, Path or a list of these
        Bytes of an upload, or a path; several files that belong together.
    schema : Schema, optional
        Roles as `inspect_file` found them; taken where no override speaks.
    expected : Expected, optional
        What is known of the file before: classes that columns may be called after.
    name : str or sequence of str, optional
        Name to show for bytes, one per file.
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
    raws = read_files(source, name, progress, settings.id_column, expected.classes)
    own = raws.pop("evaluation")
    if raws:
        raise DataError(
            "The files hold different parts of the data; they are a study.",
            ", ".join((own.name, *(raw.name for raw in raws.values()))),
            "Read them with open_study, or give one of them.",
        )
    is_wanted = overrides.get("label_column") != ""
    understood = understand(own, settings, progress, expected)
    return assemble(understood, settings, progress, is_label_wanted=is_wanted)


def read_study(
    source: FileSources,
    settings: Settings,
    *,
    name: str | Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> Study:
    """Read one file as the evaluation rows of a study, with its last layer.

    Parameters
    ----------
    source : bytes, str, Path or a list of these
        Bytes of an upload, or a path; several files that belong together.
    settings : Settings
        Choices; only the reading fields are used.
    name : str or sequence of str, optional
        Name to show for bytes, one per file.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.

    Returns
    -------
    Study
    """
    return open_study(source, settings, name=name, progress=progress)[0]


def open_study(
    source: FileSources,
    settings: Settings,
    *,
    name: str | Sequence[str] | None = None,
    needs_scores: bool = True,
    progress: Progress = no_progress,
) -> tuple[Study, Schema]:
    """Read a study and what was understood of its file, in one trip.

    Parameters
    ----------
    source : bytes, str, Path or a list of these
        Bytes of an upload, or a path; several files that belong together.
    settings : Settings
        Choices; only the reading fields are used.
    name : str or sequence of str, optional
        Name to show for bytes, one per file.
    needs_scores : bool, default=True
        Whether rows of features alone are refused.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.

    Returns
    -------
    study : Study
        Rows that are marked as out-of-distribution are sets of its `ood`; arrays that
        are called as transformed copies are (`core.loading.copies`) are its `copies`.
    schema : Schema
    """
    raws = read_files(source, name, progress, settings.id_column)
    expected = Expected(is_companion=not needs_scores)
    understood = understand(raws.pop("evaluation"), settings, progress, expected)
    # The other parts hold scores of the same kind.
    kind = understood.schema.input_kind
    same = settings.replace(
        input_kind="auto" if kind == "features" else kind,
        split_column="",
        slice_columns=(),
    )
    others = {
        role: assemble(understand(raw, same, progress, expected), same, progress)
        for role, raw in raws.items()
    }
    fit_copies: tuple[Predictions, ...] = ()
    if "fit" in others:
        fit_copies = copies_beside(others["fit"], raws["fit"].arrays)
    for other in others.values():
        understood.raw.notes += [
            replace(note, text=f"{other.name}: {note.text}") for note in other.notes
        ]
    own = assemble(understood, settings, progress)
    inside, ood = separated(own, understood.schema.column("dataset"))
    copies = copies_beside(inside, understood.raw.arrays)
    if copies:
        listed = ", ".join(item.name.rpartition(", ")[2] for item in copies)
        text = f"Transformed copies of the rows lie beside them: {listed}."
        note = Note("copies-beside", "info", text)
        inside = replace(inside, notes=(*inside.notes, note))
    study = Study(
        evaluation=inside,
        fit=others.get("fit"),
        reference=others.get("reference"),
        ood=ood,
        head=head_of(understood),
        copies=copies,
        fit_copies=fit_copies,
    )
    return study, understood.schema


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
    for role in ("label", "id", "group", "weight", "time", "split", "ood", "dataset"):
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
