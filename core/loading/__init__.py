"""Loading: file bytes or a path become Predictions, and say how they were read."""

from core.loading.reading import (
    READING_FIELDS,
    inspect_file,
    open_study,
    read_predictions,
    read_study,
)
from core.loading.schema import ColumnGuess, Expected, Schema
from core.messages import DataError

__all__ = [
    "READING_FIELDS",
    "ColumnGuess",
    "DataError",
    "Expected",
    "Schema",
    "inspect_file",
    "open_study",
    "read_predictions",
    "read_study",
]
