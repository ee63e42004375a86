"""Files beside the evaluation rows: references, out-of-distribution sets, last layers.

Marked rows of one file become sets of their own; each set may also be a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.given_scores import GivenScores
from core.head import Head, check_head
from core.loading import sources
from core.loading.arrays import read_bag
from core.loading.files import FileSource, FileSources, read_files
from core.loading.names import NAMES, plain
from core.loading.rows import assemble
from core.loading.schema import Expected
from core.loading.sources import as_source
from core.loading.understanding import understand
from core.messages import DataError, Note, Progress, no_progress
from core.predictions import Predictions, Study
from core.settings import Settings

__all__ = [
    "add_head",
    "add_ood",
    "add_reference",
    "read_given_scores",
    "read_rows",
    "separated",
]

UNNAMED = "ood"
"""Name of a set that nothing names."""
_WEIGHT, _BIAS = "weight", "bias"
_GIVEN = {"conf", "label"}


# ------------------------------------------------------- several sets in one file


def separated(
    own: Predictions, dataset: str | None
) -> tuple[Predictions, dict[str, Predictions]]:
    """Return the in-distribution rows of a file, and its OOD sets by name.

    Parameters
    ----------
    own : Predictions
        Rows marked by `is_ood`; without marks, sets in which no row has a label are
        out-of-distribution.
    dataset : str or None
        Column of the metadata that names the set of each row.

    Raises
    ------
    DataError
        If every row is out-of-distribution.
    """
    names = None if dataset is None else own.metadata[dataset].astype(str).to_numpy()
    marks, is_guess = own.is_ood, False
    if marks is None and names is not None:
        known = pd.Series(own.is_labelled).groupby(names).transform("any")
        marks, is_guess = ~known.to_numpy(bool), True
    if marks is None or not marks.any():
        return own, {}
    if marks.all():
        raise DataError(
            "Every row is out-of-distribution.",
            own.name,
            "Give in-distribution rows too, in this file or as one of its own.",
        )
    sets = np.full(len(own), UNNAMED, dtype=object) if names is None else names
    found = {
        str(name): own.take(np.flatnonzero(marks & (sets == name)), str(name))
        for name in dict.fromkeys(sets[marks])
    }
    inside = own.take(np.flatnonzero(~marks))
    counted = ", ".join(f"{name} {len(rows):,}" for name, rows in found.items())
    text = (
        f"{int(marks.sum()):,} out-of-distribution rows ({counted}) are sets of their "
        "own; the numbers are of the others."
    )
    if is_guess:
        text += " No row of these sets has a label. Is that what they are?"
    notes = inside.notes
    if inside.is_labelled.all():
        notes = tuple(note for note in notes if note.code != "unlabelled-rows")
    note = Note("ood-rows-apart", "question" if is_guess else "info", text)
    return replace(inside, is_ood=None, notes=(*notes, note)), found


# ------------------------------------------------------------- files of their own


def add_reference(
    study: Study,
    source: FileSources,
    settings: Settings,
    *,
    name: str | Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> Study:
    """Return the study with rows that detectors are fitted on.

    Parameters
    ----------
    study : Study
    source : bytes, str, Path or a list of these
        Logits, features or both; labels where detectors need them.
    settings : Settings
        How the evaluation file was read; columns may be called otherwise here.
    name : str or sequence of str, optional
        To show for bytes.
    progress : callable, optional
    """
    rows, _ = read_rows(
        source,
        settings,
        classes=study.evaluation.classes,
        input_kind=study.evaluation.input_kind,
        name=name,
        progress=progress,
    )
    reference, _ = separated(rows, None)
    return replace(study, reference=reference)


def add_ood(
    study: Study,
    source: FileSources,
    settings: Settings,
    *,
    set_name: str | None = None,
    name: str | None = None,
    progress: Progress = no_progress,
) -> Study:
    """Return the study with the OOD set, or sets, of a file.

    Parameters
    ----------
    study : Study
    source : bytes, str, Path or a list of these
        Logits, features or both; labels are not read.
    settings : Settings
        As for `add_reference`.
    set_name : str, optional
        Of the set; by default the names of its dataset column, else of the file.
    name : str, optional
        To show for bytes.
    progress : callable, optional
    """
    quiet = settings.replace(label_column="")
    rows, dataset = read_rows(
        source,
        quiet,
        classes=study.evaluation.classes,
        input_kind=study.evaluation.input_kind,
        name=name,
        progress=progress,
    )
    keep = np.arange(len(rows)) if rows.is_ood is None else np.flatnonzero(rows.is_ood)
    if not keep.size:
        raise DataError(
            "No row is marked as out-of-distribution.",
            rows.name,
            "Give a file of OOD rows, or mark them in its is_ood column.",
        )
    rows = replace(rows.take(keep), is_ood=np.ones(keep.size, dtype=bool))
    stem = PurePath(rows.name).stem
    if set_name is not None or dataset is None:
        found = {set_name or stem: replace(rows, name=set_name or stem)}
    else:
        sets = rows.metadata[dataset].astype(str).to_numpy()
        found = {
            str(key): rows.take(np.flatnonzero(sets == key), str(key))
            for key in dict.fromkeys(sets)
        }
    twice = [key for key in found if key in study.ood]
    if twice:
        raise DataError(
            f"There are two OOD sets called {twice[0]!r}.",
            rows.name,
            "Give each set a name of its own.",
        )
    return replace(study, ood={**study.ood, **found})


def add_head(study: Study, source: FileSource, *, name: str | None = None) -> Study:
    """Return the study with the last layer that a file of arrays holds.

    Parameters
    ----------
    study : Study
    source : bytes, str or Path
        NPZ or safetensors, with weights (classes, features) or turned, and a bias; a
        whole network will do where the names or shapes tell its last layer.
    name : str, optional
        To show for bytes.
    """
    found = as_source(source, name)
    kind = sources.recognise(found)
    if kind not in sources.ARRAY_FORMATS:
        raise DataError(
            f"The last layer cannot be read from a {kind} file.",
            found.name,
            "Save it with numpy.savez(file, weight=..., bias=...) or as safetensors.",
        )
    bag, _ = read_bag(found, kind, no_progress)
    head = _head_of(bag, study.evaluation, found.name)
    check_head(head, len(study.evaluation.classes), None, found.name)
    return replace(study, head=head)


def read_rows(
    source: FileSources,
    settings: Settings,
    *,
    classes: tuple[str, ...] = (),
    input_kind: str = "",
    name: str | Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> tuple[Predictions, str | None]:
    """Read rows of known classes; features alone will do.

    Parameters
    ----------
    source : bytes, str, Path or a list of these
    settings : Settings
        The reading fields; columns that are chosen there and are not in the file are
        looked for anew.
    classes : tuple of str, default=()
        Columns without names are these, in order.
    input_kind : {"", "logits", "probabilities", "confidence"}, default=""
        What the scores are; confidences need no outcome.
    name : str or sequence of str, optional
        To show for bytes.
    progress : callable, optional

    Returns
    -------
    rows : Predictions
    dataset : str or None
        Column of the metadata that names the set of each row.
    """
    raws = read_files(source, name, progress, None, classes)
    raw = raws.pop("evaluation")
    if raws:
        raise DataError(
            "The files hold different parts of the data.",
            ", ".join((raw.name, *(other.name for other in raws.values()))),
            "Give the files of one part.",
        )
    chosen = {key: getattr(settings, key) for key in _COLUMNS}
    lacking = [key for key, column in chosen.items() if column not in (*raw.names, "")]
    known = ("logits", "probabilities", "confidence")
    kind = input_kind if input_kind in known else ""
    same = settings.replace(
        **dict.fromkeys(lacking),
        score_columns=(),
        split_column="",
        slice_columns=(),
        input_kind=kind or "auto",
    )
    expected = Expected(classes, kind, is_companion=True)
    understood = understand(raw, same, progress, expected)
    rows = assemble(understood, same, progress)
    return rows, understood.schema.column("dataset")


_COLUMNS = (
    *("label_column", "id_column", "group_column", "weight_column", "time_column"),
    *("ood_column", "dataset_column"),
)


def _head_of(bag: Mapping[str, NDArray[Any]], own: Predictions, where: str) -> Head:
    """Choose the weights and the bias among arrays, by names and then by shapes."""
    k = len(own.classes)
    tables = {key: a for key, a in bag.items() if a.ndim == 2 and a.dtype.kind == "f"}
    outputs = {k} | ({1} if k == 2 else set())
    fitting = [key for key, a in tables.items() if not k or outputs & set(a.shape)]
    named = [key for key in fitting if plain(key) in NAMES["head_weight"]]
    ending = [key for key in fitting if plain(key).endswith(_WEIGHT)]
    chosen = named or ending or fitting
    if not chosen:
        listed = ", ".join(f"{key} {a.shape}" for key, a in bag.items()) or "none"
        raise DataError(
            f"No weights of a last layer of {k} classes were found; the arrays are "
            f"{listed}.",
            where,
            "Save weight of shape (classes, features) and bias of shape (classes,).",
        )
    if len(chosen) > 1 and not named:
        right = [key for key in chosen if tables[key].shape[0] in outputs]
        chosen = right[-1:] or chosen[-1:]  # the last one of a network
    key = chosen[0]
    weight = np.asarray(tables[key], dtype=np.float64)
    if weight.shape[0] not in outputs and weight.shape[1] in outputs:
        weight = weight.T
    bias = _bias_of(bag, key, weight.shape[0])
    return Head(np.ascontiguousarray(weight), bias)


def _bias_of(
    bag: Mapping[str, NDArray[Any]], weight_key: str, k: int
) -> NDArray[np.float64]:
    """Return the bias beside the weights; zeros where there is none."""
    vectors = {
        key: a.reshape(-1)
        for key, a in bag.items()
        if a.size == k and a.dtype.kind == "f" and key != weight_key
    }
    beside = weight_key[: len(weight_key) - len(_WEIGHT)] + _BIAS
    wanted = [beside, *(n for n in vectors if plain(n) in NAMES["head_bias"]), *vectors]
    key = next((name for name in wanted if name in vectors), None)
    return np.zeros(k) if key is None else np.asarray(vectors[key], dtype=np.float64)


# -------------------------------------------------------------- uploaded scores


def read_given_scores(
    source: FileSource, *, name: str | None = None, progress: Progress = no_progress
) -> GivenScores | None:
    """Read scores that another library computed, or None for files of other kinds.

    OpenOOD writes `pred`, `conf` and `label` of each row, larger `conf` for
    in-distribution rows and the label -1 for OOD ones; the scores are turned round.

    Parameters
    ----------
    source : bytes, str or Path
    name : str, optional
        To show for bytes.
    progress : callable, optional
    """
    raw = read_files(source, name, progress)["evaluation"]
    columns = {plain(column): column for column in raw.table.column_names}
    known = {"conf", "label", "pred"}
    if not columns.keys() >= _GIVEN or set(columns) - known or raw.arrays:
        return None
    values = {
        key: raw.table[columns[key]].to_pandas() for key in known if key in columns
    }
    confidence = pd.to_numeric(values["conf"], errors="coerce").to_numpy(np.float64)
    labels = pd.to_numeric(values["label"], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(confidence) | ~(labels == np.floor(labels)))
    if bad.size:
        raise DataError(
            "A confidence or a label is not a number.",
            f"{raw.name}, row {bad[0] + 1}",
            "Save conf as numbers and label as whole numbers, -1 for OOD rows.",
        )
    is_ood = labels == -1
    is_share = bool(((confidence >= 0) & (confidence <= 1)).all())
    if is_share and not is_ood.any() and "pred" in values:
        return None  # confidences of a classifier, as other pages read them
    text = (
        f"{raw.name} holds scores of OpenOOD's layout, larger = in-distribution: they "
        "were turned round."
    )
    return GivenScores(
        name=PurePath(raw.name).stem,
        score=-confidence,
        labels=labels.astype(np.int64),
        is_ood=is_ood,
        notes=(Note("scores-turned", "info", text),),
    )
