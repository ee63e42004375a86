"""New rows for a calibrator: score columns may be called just as its classes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.loading import inspect_file, read_predictions
from core.loading.files import FileSources
from core.messages import DataError, Progress, no_progress
from core.predictions import Predictions
from core.settings import Settings

__all__ = ["read_new_rows"]


def read_new_rows(
    source: FileSources,
    metadata: Mapping[str, Any],
    *,
    name: str | Sequence[str] | None = None,
    progress: Progress = no_progress,
    **reading: Any,
) -> Predictions:
    """Read rows to calibrate; labels are not needed.

    Parameters
    ----------
    source : bytes, str, Path or a list of these
        Bytes of an upload, or a path; several files that belong together.
    metadata : mapping
        From `from_json` or `export_metadata`: its classes name the score columns of
        a file in which no others are found.
    name : str or sequence of str, optional
        Name to show for bytes, one per file.
    progress : callable, optional
        Called with a fraction and a message; may raise `Cancelled`.
    **reading
        The reading fields of `Settings`, as for `read_predictions`.

    Returns
    -------
    Predictions

    Raises
    ------
    DataError
        As `read_predictions`.
    """
    try:
        return read_predictions(source, name=name, progress=progress, **reading)
    except DataError:
        if not _are_classes(source, metadata, name, reading):
            raise
    reading["score_columns"] = tuple(metadata["classes"])
    if reading.get("input_kind") in {None, "auto"}:
        reading["input_kind"] = metadata["input"]
    return read_predictions(source, name=name, progress=progress, **reading)


def _are_classes(
    source: FileSources,
    metadata: Mapping[str, Any],
    name: str | Sequence[str] | None,
    reading: dict[str, Any],
) -> bool:
    """Whether a file has no scores but columns called as the classes are."""
    given = {key: value for key, value in reading.items() if value is not None}
    classes = set(metadata.get("classes") or ())
    if given.get("score_columns") or not classes:
        return False
    found = inspect_file(source, settings=Settings(**given), name=name)
    is_free = not found.names("score") and found.input_kind != "confidence"
    return is_free and classes <= {item.name for item in found.columns}
