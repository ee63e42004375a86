"""One or several files of an upload become tables of rows, each with its part."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import pyarrow as pa

from core.loading import sources
from core.loading.array_layouts import raw_of_arrays
from core.loading.arrays import read_arrays, read_bag
from core.loading.columnar import read_arrow, read_parquet
from core.loading.joining import by_id, shared_id
from core.loading.layouts import lay_out
from core.loading.names import (
    ARRAY_LABELS,
    ARRAY_SCORES,
    NAMES,
    PARTS,
    common_stem,
    part_of,
    plain,
)
from core.loading.records import read_json
from core.loading.roles import find_roles
from core.loading.sources import Raw, Source, as_source
from core.loading.text import packed_kind, read_text
from core.loading.text_rows import IN_PARTS_FROM
from core.messages import DataError, Note, Progress
from core.settings import Settings

__all__ = ["FileSource", "FileSources", "read_files"]

FileSource = bytes | str | Path
FileSources = FileSource | Sequence[FileSource]

_CHUNK = 1 << 22
_AS_TEXT = {"text", "json", "gzip", "zstd"}


def read_files(
    source: FileSources,
    name: str | Sequence[str] | None,
    progress: Progress,
    id_column: str | None = None,
    classes: tuple[str, ...] = (),
) -> dict[str, Raw]:
    """Read what was given together; rows that belong together are joined.

    Parameters
    ----------
    source : bytes, str, Path or sequence of these
        One file, or the files of one upload.
    name : str or sequence of str, optional
        Names to show for bytes, one per file.
    progress : callable
    id_column : str, optional
        Column to join tables on; empty joins them by order where only an index
        without a name is in both.
    classes : tuple of str, optional
        Classes that score columns may be called after.

    Returns
    -------
    dict of str to Raw
        "evaluation", and where file names say so "fit" and "reference".

    Raises
    ------
    DataError
        If a file cannot be read, or files do not belong together.
    """
    if isinstance(source, (str, Path)) or not isinstance(source, (list, tuple)):
        shown = name if name is None or isinstance(name, str) else name[0]
        return {"evaluation": _read_alone(as_source(source, shown), progress)}
    names = [None] * len(source) if name is None else list(name)
    if not source or len(names) != len(source):
        raise DataError("There are no files to read.", "", "Give one or more files.")
    found, notes = _distinct(
        [as_source(item, shown) for item, shown in zip(source, names, strict=True)]
    )
    if len(found) == 1:
        raws = {"evaluation": _read_alone(found[0], progress)}
    else:
        raws = _read_several(found, progress, id_column, classes)
    raws["evaluation"].notes[:0] = notes
    return raws


def _read_alone(found: Source, progress: Progress) -> Raw:
    """Read a file; text takes long to read, arrays and columns to be put together."""
    kind = sources.recognise(found)
    share = 0.85 if kind in _AS_TEXT else 0.35
    if kind == "text" and found.size > IN_PARTS_FROM:
        share = 0.6  # with two threads, about half of the time
    raw = _read(found, lambda part, words: progress(share / 0.85 * part, words))
    raw.read_share = share
    return raw


def _read(found: Source, progress: Progress) -> Raw:
    kind = sources.recognise(found)
    if kind in sources.ARRAY_FORMATS:
        return read_arrays(found, kind, progress)
    if kind == "parquet":
        return lay_out(read_parquet(found, progress))
    if kind == "json":
        return lay_out(read_json(found, progress))
    if kind in {"arrow", "arrow stream"}:
        return lay_out(read_arrow(found, kind, progress))
    if kind != "text" and packed_kind(found, kind) == "json":
        return lay_out(read_json(found, progress, kind))
    return lay_out(read_text(found, "" if kind == "text" else kind, progress))


def _distinct(given: list[Source]) -> tuple[list[Source], list[Note]]:
    """Return the files without exact copies, and a note for each copy."""
    seen: dict[tuple[int, str], Source] = {}
    notes = []
    for item in given:
        key = (item.size, _digest(item))
        if key in seen:
            text = f"{item.name} is the same file as {seen[key].name}; it is used once."
            notes.append(Note("same-file", "info", text))
        seen.setdefault(key, item)
    return list(seen.values()), notes


def _digest(item: Source) -> str:
    digest = hashlib.sha256()
    with item.open() as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _read_several(
    found: list[Source],
    progress: Progress,
    id_column: str | None,
    classes: tuple[str, ...],
) -> dict[str, Raw]:
    def part(number: int) -> Progress:
        def report(fraction: float, message: str) -> None:
            done = number + min(1.0, fraction / 0.8)
            progress(0.8 * done / len(found), f"{message} of {found[number].name}")

        return report

    kinds = [sources.recognise(item) for item in found]
    if all(kind in sources.ARRAY_FORMATS for kind in kinds):
        return {"evaluation": _joined_arrays(found, kinds, part)}
    raws = [_read(item, part(number)) for number, item in enumerate(found)]
    strengths = [_strength(raw, classes) for raw in raws]
    by_part = _by_part(raws, strengths)
    if by_part is not None:
        return by_part
    base = _base(raws, strengths)
    for other in [raw for raw in raws if raw is not base]:
        base = _joined(base, other, id_column)
    return {"evaluation": base}


# --- arrays ---------------------------------------------------------------------------


def _joined_arrays(found: list[Source], kinds: list[str], part: Any) -> Raw:
    """Put the arrays of several files together by name: logits.npy and labels.npy.

    Arrays of one name get the part that their file is called after: val.npz and
    test.npz become logits_val, logits_test and so on.
    """
    stems = [PurePath(item.name).stem for item in found]
    shared = common_stem(tuple(stems))
    bags, notes = [], []
    for number, (item, kind) in enumerate(zip(found, kinds, strict=True)):
        bag, more = read_bag(item, kind, part(number))
        if kind == "npy":
            stem = stems[number].removeprefix(shared)
            bag = {_array_name(stem): array for array in bag.values()}
        bags.append(bag)
        notes += more
    keys = [key for bag in bags for key in bag]
    merged: dict[str, Any] = {}
    for item, bag in zip(found, bags, strict=True):
        for key, array in bag.items():
            wanted = key
            if keys.count(key) > 1:
                wanted = f"{key}_{_file_part(item.name) or '?'}"
            if wanted in merged or wanted.endswith("_?"):
                raise DataError(
                    f"More than one of the files holds an array {key}.",
                    item.name,
                    "Call the files val and test, such as val.npz and test.npz, or "
                    "give one of them.",
                )
            merged[wanted] = array
    name = _names(item.name for item in found)
    return raw_of_arrays(name, "npz", merged, notes)


def _array_name(stem: str) -> str:
    """Return resnet_val_logits as logits_val: the alias that a file name ends with."""
    base, part = part_of(stem)
    words = re.split(r"[_ .\-]+", base)
    for start in range(len(words)):
        word = "_".join(words[start:])
        if plain(word) in {*ARRAY_SCORES, *ARRAY_LABELS}:
            part = part or _file_part(stem)
            return f"{word}_{part}" if part else word
    return stem


# --- tables ---------------------------------------------------------------------------


def _names(names: Any) -> str:
    return " + ".join(names)


def _file_part(name: str) -> str:
    """Return the part of the data that a file name speaks of, or nothing."""
    words = re.split(r"[_ .\-]+", PurePath(name).stem.lower())
    return next((PARTS[word] for word in reversed(words) if word in PARTS), "")


def _strength(raw: Raw, classes: tuple[str, ...]) -> int:
    """Return how surely a file holds scores: 0 not at all, 3 one per class."""
    try:
        roles = find_roles(raw, Settings(), classes)
    except DataError:  # a confidence whose outcome stands in the other file
        return 3
    if roles.column("confidence"):
        return 3
    if not roles.scores:
        return 0
    if roles.found[roles.scores[0]][1].endswith("of decimals"):
        return 1
    is_matrix = roles.scores[0] in raw.arrays
    return 3 if len(roles.scores) > 1 or is_matrix else 2


def _by_part(raws: list[Raw], strengths: list[int]) -> dict[str, Raw] | None:
    """Return the files by role where each holds the scores of another part."""
    parts = [_file_part(raw.name) for raw in raws]
    is_apart = "" not in parts and len(set(parts)) == len(parts)
    if not is_apart or "test" not in parts or min(strengths) < 2:
        return None
    keys = {"test": "evaluation", "calibration": "fit", "train": "reference"}
    found = {keys[part]: raw for part, raw in zip(parts, raws, strict=True)}
    own = found["evaluation"]
    for role, use in (("fit", "fit calibrators"), ("reference", "are not measured")):
        if role in found:
            raw = found[role]
            text = f"The {raw.n_rows:,} rows of {raw.name} {use}; {own.name} is tested."
            own.notes.append(Note("files-by-role", "info", text))
    return found


def _base(raws: list[Raw], strengths: list[int]) -> Raw:
    """Return the one file with scores."""
    best = max(strengths)
    chosen = [raw for raw, s in zip(raws, strengths, strict=True) if s == best]
    if best < 2:
        named = [raw for raw in raws if _has_target_columns(raw, raws)]
        chosen = named or chosen
    if best == 0 and len(chosen) != 1:
        raise DataError(
            "None of the files holds columns of scores.",
            _names(raw.name for raw in raws),
            "Name the scores logit_<class> or prob_<class>, one column per class.",
        )
    if len(chosen) > 1:
        raise DataError(
            f"{len(chosen)} of the files hold scores, and their names do not say what "
            "they are.",
            _names(raw.name for raw in chosen),
            "Call them val and test, such as val.csv and test.csv (calibration, test "
            "rows); or put their rows into one file with a column split that says "
            "calibration or test; or give one of them.",
        )
    return chosen[0]


def _has_target_columns(raw: Raw, others: list[Raw]) -> bool:
    """Whether columns are called <target>_<class> after a column of another file."""
    targets = {n for other in others if other is not raw for n in other.names}
    return any(
        sum(name.startswith(f"{target}_") for name in raw.names) > 1
        for target in targets
    )


def _joined(base: Raw, other: Raw, id_column: str | None) -> Raw:
    """Add the columns of another table to the rows of the one with scores."""
    name = _names((base.name, other.name))
    keys = shared_id(base, other, id_column)
    notes = [*base.notes, *other.notes]
    rows = by_id(base, other, keys, notes) if keys else _by_order(base, other, notes)
    table = base.table
    taken = other.table.take(pa.array(rows, from_pandas=True))
    for column in other.table.column_names:
        if keys is not None and column == keys[1]:
            continue
        wanted = column
        if column in base.names:
            if column in base.table.column_names and taken[column].equals(
                base.table[column]
            ):
                continue
            wanted = f"{column} ({PurePath(other.name).stem})"
            is_known = base.known.get(column, ("label", ""))[0] != "label"
            if plain(column) in NAMES["label"] and is_known:
                table, wanted = _without_claim(base, table, column), column
        if table.num_columns:
            table = table.append_column(wanted, taken[column])
        else:
            table = pa.table({wanted: taken[column]})
    known = {**other.known, **base.known}
    known = {c: item for c, item in known.items() if c in {*table.column_names}}
    return Raw(
        name=name,
        format=base.format,
        table=table,
        n_rows=base.n_rows,
        arrays=base.arrays,
        delimiter=base.delimiter,
        has_header=base.has_header,
        notes=notes,
        known=known,
    )


def _without_claim(base: Raw, table: Any, column: str) -> Any:
    """Rename a column that is no label, although it is called like one."""
    renamed = f"{column} ({PurePath(base.name).stem})"
    base.known[renamed] = base.known.pop(column)
    names = [renamed if c == column else c for c in table.column_names]
    return table.rename_columns(names)


def _by_order(base: Raw, other: Raw, notes: list[Note]) -> Any:
    if base.n_rows != other.n_rows:
        raise DataError(
            f"{base.name} has {base.n_rows:,} rows and {other.name} "
            f"{other.n_rows:,}, and no column with ids is in both.",
            _names((base.name, other.name)),
            "Give both files the same rows in the same order, or an id column of the "
            "same name.",
        )
    text = (
        f"{base.name} and {other.name} have no id in common; their rows were put "
        "together in the order of the files. Is that right?"
    )
    notes.append(Note("joined-by-order", "question", text))
    return pd.array(range(base.n_rows), dtype="Int64")
