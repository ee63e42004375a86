"""Loading: file bytes or a path become Predictions, and say how they were read."""

from core.loading.copies import add_copies, read_copies
from core.loading.ood_sets import (
    add_head,
    add_ood,
    add_reference,
    read_given_scores,
    read_rows,
)
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
    "add_copies",
    "add_head",
    "add_ood",
    "add_reference",
    "inspect_file",
    "open_study",
    "read_copies",
    "read_given_scores",
    "read_predictions",
    "read_rows",
    "read_study",
]
