"""From the cells of a file to checked rows: outcomes, labels, rows left out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.loading.class_values import as_whole
from core.loading.columns import Roles
from core.loading.labels import encode
from core.loading.names import NAMES, common_stem, parse_score_name, plain
from core.loading.roles import MARKS, UNCLAIMED_DECIMALS
from core.loading.schema import Schema
from core.loading.score_columns import BY_LABEL_VALUES
from core.loading.sources import Raw, clipped
from core.loading.understanding import Understood
from core.loading.values import find_invalid
from core.messages import Answer, DataError, Note, Progress
from core.predictions import ColumnRoles, Head, Predictions
from core.settings import Settings

__all__ = ["assemble", "head_of"]

_MANY = 20  # rows that are not all wrong by chance
_RIGHT = ("1", "true", "yes", "t", "y")
_WRONG = ("0", "false", "no", "f", "n")
_LEAVE_OUT = Answer("Leave such rows out", "invalid_rows", "leave-out")


def assemble(
    understood: Understood,
    settings: Settings,
    progress: Progress,
    *,
    is_label_wanted: bool | None = None,
) -> Predictions:
    """Return the rows of a file as Predictions, or say which row cannot be used.

    Parameters
    ----------
    understood : Understood
    settings : Settings
    progress : callable
    is_label_wanted : bool, optional
        Whether to say so where there is no label; by default where the settings do
        not refuse one.
    """
    raw, schema, scores = understood.raw, understood.schema, understood.scores
    if schema.input_kind == "features":
        return _features_alone(understood, settings, progress)
    if scores is None:
        raise _no_scores(understood.roles)
    progress(raw.gathered_share, "Checking the rows")
    bad = find_invalid(scores, schema.input_kind)
    outcome = None
    if schema.input_kind == "confidence":
        outcome, more = _outcome(understood)
        bad = pd.concat([bad, more]).drop_duplicates("row").sort_values("row")
    kept, left_out, notes = _leave_out(raw, bad, schema.input_kind, settings)
    if is_label_wanted is None:
        is_label_wanted = settings.label_column != ""
    labels, more_notes = _labels(understood, kept, is_wanted=is_label_wanted)
    matrix = scores.matrix if kept is None else scores.matrix[kept]
    is_confidence = schema.input_kind == "confidence"
    if outcome is not None and kept is not None:
        outcome = outcome[kept]
    rows = np.arange(raw.n_rows) if kept is None else kept
    result = Predictions.from_arrays(
        None if is_confidence else matrix,
        labels,
        input_kind=schema.input_kind,
        classes=schema.classes,
        confidence=matrix[:, 0] if is_confidence else None,
        correct=outcome,
        is_ood=_marks(understood, kept),
        features=_features(understood, kept),
        metadata=_metadata(understood, kept),
        roles=_column_roles(schema),
        file_rows=rows + 1,
        left_out=left_out,
        name=raw.name,
        renormalise=settings.renormalise == "yes" or _is_named_by_target(understood),
        copy=False,
        notes=(*raw.notes, *notes, *more_notes, *_remarks(understood)),
    )
    progress(1.0, "Read")
    return result


def _features_alone(
    understood: Understood, settings: Settings, progress: Progress
) -> Predictions:
    """Return rows without class scores, which detectors of features can read."""
    raw, schema = understood.raw, understood.schema
    is_wanted = settings.label_column != "" and understood.roles.column("label")
    labels, notes = _labels(understood, None, is_wanted=bool(is_wanted))
    result = Predictions.from_arrays(
        None,
        labels,
        input_kind="features",
        classes=schema.classes,
        is_ood=_marks(understood, None),
        features=_features(understood, None),
        metadata=_metadata(understood, None),
        roles=_column_roles(schema),
        name=raw.name,
        copy=False,
        notes=(*raw.notes, *notes),
    )
    progress(1.0, "Read")
    return result


def _marks(
    understood: Understood, kept: NDArray[np.int64] | None
) -> NDArray[np.bool_] | None:
    """Return which rows are marked as out-of-distribution, or None."""
    name = understood.schema.column("ood")
    if name is None:
        return None
    text = understood.raw.text(name).str.lower()
    known = text.map(MARKS)
    if known.isna().any():
        row = int(np.flatnonzero(known.isna())[0])
        raise DataError(
            f"The cell {clipped(text.iloc[row])} does not say whether the row is "
            "out-of-distribution.",
            f"{understood.raw.name}, column {name}, row {row + 1}",
            "Write 1 for out-of-distribution rows and 0 for the others.",
        )
    marks: NDArray[np.bool_] = known.to_numpy(bool)
    return marks if kept is None else marks[kept]


def _is_named_by_target(understood: Understood) -> bool:
    """Whether the scores are called <label>_<class>, as Kaggle has them.

    Competitions rescale such rows to 1 before they measure anything.
    """
    roles = understood.roles
    label = roles.column("label")
    stem = common_stem(roles.scores) if len(roles.scores) > 1 else ""
    return label is not None and stem[:-1] == label and parse_score_name(stem) is None


def _remarks(understood: Understood) -> list[Note]:
    """Say what else may be a score, and what one score is the score of."""
    roles, schema = understood.roles, understood.schema
    notes = []
    if any(roles.found[n][1] == BY_LABEL_VALUES for n in roles.scores):
        rest = [
            name
            for name, (role, evidence) in roles.found.items()
            if role == "other" and evidence == UNCLAIMED_DECIMALS
        ]
        if rest:
            listed = ", ".join(rest[:5]) + (" ..." if rest[5:] else "")
            text = (
                f"Decimals that no label names were not taken as scores: {listed}. Are "
                "these classes without a row? Then choose them as score columns too."
            )
            notes.append(Note("unclaimed-decimals", "question", text))
    is_one = understood.scores is not None and understood.scores.matrix.shape[1] == 1
    is_unnamed = schema.classes == ("0", "1") and roles.column("label") is None
    if is_one and is_unnamed and schema.input_kind != "confidence":
        text = "The one score column names no class; it counts for the second one."
        notes.append(Note("one-unnamed-score", "info", text))
    return notes


def _no_scores(roles: Roles) -> DataError:
    raw, classes = roles.raw, roles.classes
    predicted, label = roles.column("predicted"), roles.column("label")
    if predicted is not None and roles.kind(predicted) in {"whole", "text"}:
        beside = "" if label is None else f" and the label ({label})"
        return DataError(
            f"The file holds the predicted class ({predicted}){beside}, but no score: "
            "nothing says how sure the model was.",
            raw.name,
            "Save the probabilities or logits of every class beside them "
            "(predict_proba, not predict), or the confidence of the predicted class "
            "as a column confidence.",
        )
    shapes = {name: f" {array.shape}" for name, array in raw.arrays.items()}
    named = [name + shapes.get(name, "") for name in raw.names[:20]]
    some = ", ".join(named) + (" ..." if len(raw.names) > 20 else "")
    missing = [clipped(name) for name in classes if name not in raw.names]
    if missing:
        few = ", ".join(missing[:5]) + (" ..." if missing[5:] else "")
        some += f"; the calibrator also has {few}"
    return DataError(
        f"No score columns were found among: {some}.",
        raw.name,
        "Name the scores logit_<class> or prob_<class> (one column per class; in an "
        "NPZ an array logits of shape (rows, classes)), or choose the score columns.",
    )


def _metadata(
    understood: Understood, kept: NDArray[np.int64] | None
) -> pd.DataFrame | None:
    """Return every column that is not kept elsewhere, of the rows that stay."""
    roles = {"score", "confidence", "correct"}
    if understood.schema.input_kind != "confidence":
        roles.add("label")
    table, found = understood.raw.table, understood.roles.found
    names = [name for name in table.column_names if found[name][0] not in roles]
    if not names:
        return None
    chosen = table.select(names)
    rows = chosen if kept is None else chosen.take(pa.array(kept))
    frame: pd.DataFrame = rows.to_pandas()
    return frame


def _column_roles(schema: Schema) -> ColumnRoles:
    return ColumnRoles(
        id=schema.column("id"),
        group=schema.column("group"),
        weight=schema.column("weight"),
        time=schema.column("time"),
        split=schema.column("split"),
        slices=schema.names("slice"),
    )


def _outcome(understood: Understood) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Return whether each prediction was right, and the rows that do not say."""
    raw, roles = understood.raw, understood.roles
    name = roles.column("correct")
    if name is None and not roles.needs_outcome:
        return np.zeros(raw.n_rows, dtype=bool), pd.DataFrame()
    if name is not None:
        text = raw.text(name).str.lower()
        right = text.isin(_RIGHT).to_numpy(bool)
        is_known = right | text.isin(_WRONG).to_numpy(bool)
    else:
        name = roles.column("label") or ""
        label, predicted = raw.text(name), raw.text(roles.column("predicted") or name)
        _check_same_coding(raw, name, roles.column("predicted") or name)
        right = (label == predicted).fillna(value=False).to_numpy(bool)
        is_known = (label.notna() & predicted.notna()).to_numpy(bool)
        text = label
    rows = np.flatnonzero(~is_known)
    lines = pd.DataFrame(
        {
            "row": rows,
            "column": name,
            "value": text.iloc[rows].fillna("").to_numpy(),
            "reason": "does not say whether the prediction was right",
        }
    )
    return right, lines


def _check_same_coding(raw: Raw, label: str, predicted: str) -> None:
    """Refuse truths and predictions that have no class in common."""
    texts = {name: raw.distinct(name) for name in (label, predicted)}
    truths, guesses = texts.values()
    if not truths or not guesses or not set(truths).isdisjoint(guesses):
        return
    numbers = [as_whole(values) is not None for values in texts.values()]
    if numbers[0] == numbers[1] and raw.n_rows < _MANY:
        return  # a few rows may all be wrong
    examples = [clipped(values[0]) for values in texts.values()]
    raise DataError(
        f"{label} and {predicted} have no value in common ({examples[0]} against "
        f"{examples[1]}), so no prediction would be right.",
        f"{raw.name}, column {predicted}",
        "Write both with the same class names, or give a column correct (0 or 1).",
    )


def _leave_out(
    raw: Raw, bad: pd.DataFrame, kind: str, settings: Settings
) -> tuple[NDArray[np.int64] | None, pd.DataFrame, list[Note]]:
    """Return the rows that stay (None: all), those that do not, and a note.

    Raises
    ------
    DataError
        With answers, when nobody allowed rows to be left out.
    """
    if bad.empty:
        return None, bad, []
    table = bad.astype({"row": np.int64})
    kept = np.setdiff1d(np.arange(raw.n_rows), table["row"].to_numpy())
    table["row"] += 1
    table = table.reset_index(drop=True)
    first = table.iloc[0]
    where = f"{raw.name}, column {first['column']}, row {first['row']}"
    got = f"{clipped(first['value'])} " if first["value"] else ""
    n_bad = len(table)
    count = "1 row" if n_bad == 1 else f"{n_bad:,} rows"
    if settings.invalid_rows != "leave-out" or not kept.size:
        answers = (_LEAVE_OUT,) if kept.size else ()
        if kind == "probabilities" and "probability" in first["reason"]:
            logits = Answer("These are logits", "input_kind", "logits")
            is_rare = n_bad < raw.n_rows / 2
            answers = (*answers, logits) if is_rare else (logits, *answers)
        raise DataError(
            f"The cell {got}{first['reason']}; {count} of {raw.n_rows:,} cannot be "
            "used.",
            where,
            _row_fix(kind, str(first["value"]), is_any_left=bool(kept.size)),
            answers=answers,
        )
    text = (
        f"{count} of {raw.n_rows:,} left out; the first is row {first['row']}, where "
        f"{first['column']} {first['reason']}{': ' + got if got else ''}".rstrip()
        + "."
    )
    return kept, table, [Note("rows-left-out", "warning", text)]


def _row_fix(kind: str, value: str, *, is_any_left: bool) -> str:
    fix = "Correct the file, or leave such rows out."
    if not is_any_left:
        fix = "Correct the file: no row would be left."
    if kind == "confidence":
        fix += " Confidences lie between 0 and 1: divide percentages by 100."
    if re.fullmatch(r"\s*\d+(\.\d*)?\s*%\s*", value):
        fix += " Write every score with a percent sign or none."
    if re.fullmatch(r"\s*[-+]?\d*,\d+\s*", value):
        fix += " Decimals need a point, not a comma."
    return fix


def _labels(
    understood: Understood, kept: NDArray[np.int64] | None, *, is_wanted: bool
) -> tuple[NDArray[np.int64] | None, list[Note]]:
    """Return labels of the rows that stay, and what is to be said about them."""
    raw, label = understood.raw, understood.roles.column("label")
    if understood.schema.input_kind == "confidence":
        return None, []
    if label is None and not is_wanted:
        return None, []  # as the user wants it
    if label is None:
        said = "There is no label column: these rows can be calibrated, not evaluated."
        return None, [Note("unlabelled", "info", said)]
    indices, texts = raw.factorised(label)
    codes = encode(indices, texts, understood.labels, f"{raw.name}, column {label}")
    if kept is not None:
        codes = codes[kept]
    notes = _label_remarks(raw, label)
    if understood.labels.question:
        said = understood.labels.question
        notes.append(Note("labels-by-meaning", "question", said))
    given = codes[codes >= 0]
    n_missing = len(codes) - len(given)
    if not given.size:
        said = "No row has a label: these rows can be calibrated, not evaluated."
        return None, [Note("unlabelled", "info", said)]
    if n_missing:
        said = f"{n_missing:,} of {len(codes):,} rows have no label."
        notes.append(Note("unlabelled-rows", "info", said))
    if (given == given[0]).all():
        said = (
            f"Every label is {understood.schema.classes[given[0]]}: what is measured "
            "holds for this class only."
        )
        notes.append(Note("one-class", "warning", said))
    return codes, notes


def _label_remarks(raw: Raw, label: str) -> list[Note]:
    """Say so where labels are written as decimals."""
    column = raw.table[label]
    is_decimal = pa.types.is_floating(column.type) and not column.null_count
    if not is_decimal or pc.any(pc.is_nan(column)).as_py():
        return []  # whole numbers become decimals beside a gap
    text = f"The labels in {label} are decimals; 1.0 was read as 1."
    return [Note("float-labels", "info", text)]


def _features(
    understood: Understood, kept: NDArray[np.int64] | None
) -> dict[str, NDArray[Any]] | NDArray[Any] | None:
    raw = understood.raw
    layers = {}
    names = understood.schema.names("features")
    # What is called features, of no layer, is what enters the last one.
    for name in sorted(names, key=lambda name: plain(name) in NAMES["features"]):
        array = raw.arrays[name]
        if len(array) != raw.n_rows:
            raise DataError(
                f"{name} has {len(array):,} rows, the scores have {raw.n_rows:,}.",
                f"{raw.name}, array {name}",
                "Save features of the same rows as the scores.",
            )
        layers[name] = array if kept is None else array[kept]
    if len(layers) == 1:
        return next(iter(layers.values()))
    return layers or None


def head_of(understood: Understood) -> Head | None:
    """Return the last layer that an NPZ brings, or None.

    Weights may be written as (classes, features) or (features, classes); a missing
    bias is zero. One score gets the row of zeros that belongs to the logits (0, z).
    """
    arrays, scores = understood.raw.arrays, understood.scores
    names = understood.schema.names("head")
    weight_name = next((n for n in names if plain(n) in NAMES["head_weight"]), None)
    if weight_name is None or scores is None:
        return None
    n_columns = scores.matrix.shape[1]
    weight = np.asarray(arrays[weight_name], dtype=np.float64)
    if weight.shape[0] != n_columns and weight.shape[1] == n_columns:
        weight = weight.T
    bias_name = next((n for n in names if plain(n) in NAMES["head_bias"]), None)
    bias = (
        np.zeros(n_columns)
        if bias_name is None
        else np.asarray(arrays[bias_name], dtype=np.float64)
    )
    if weight.shape[0] != n_columns or bias.shape != (n_columns,):
        raise DataError(
            f"The last layer has weights {arrays[weight_name].shape} and bias "
            f"{bias.shape}; there are {n_columns} scores.",
            f"{understood.raw.name}, array {weight_name}",
            "Save weights of shape (classes, features) and one bias per class.",
        )
    if n_columns == 1:
        weight = np.vstack([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros(1), bias])
    return Head(weight, bias)
