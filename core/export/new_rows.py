"""New rows for a calibrator: what it was fitted on is known before they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.loading import Expected, read_predictions
from core.loading.files import FileSources
from core.messages import Answer, DataError, Progress, no_progress
from core.predictions import Predictions

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
        From `from_json` or `export_metadata`: its `classes` may name the score
        columns, its `input` is what scores are where the file leaves that open.
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
        As `read_predictions`; with both kinds as answers where the scores look like
        another kind than the calibrator's.
    """
    fitted = str(metadata.get("input") or "")
    expected = Expected(tuple(metadata.get("classes") or ()), fitted)
    own = read_predictions(
        source, expected=expected, name=name, progress=progress, **reading
    )
    is_open = bool(fitted) and reading.get("input_kind") in {None, "auto"}
    # Rows of other classes are refused as such when they are calibrated.
    is_same = len(own.classes) == len(expected.classes)
    if is_open and is_same and own.input_kind not in {"confidence", fitted}:
        raise _other_kind(own, fitted)
    return own


def _other_kind(own: Predictions, fitted: str) -> DataError:
    kinds = (fitted, own.input_kind)
    return DataError(
        f"The calibrator was fitted on {fitted}; these scores look like "
        f"{own.input_kind}.",
        own.name,
        f"Say whether they are {fitted} or {own.input_kind}.",
        answers=tuple(
            Answer(f"These are {kind}", "input_kind", kind) for kind in kinds
        ),
    )
