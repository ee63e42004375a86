"""Predictions: frozen, validated rows of scores; Study: the uploads of a session."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core.fingerprints import fingerprint_of, frozen, rows_of, update_digest
from core.head import Head, check_head
from core.messages import DataError, Note
from core.validation import (
    as_times,
    check_weights,
    checked_confidence,
    checked_labels,
    checked_logits,
    file_row,
    log_probabilities,
    optional_rows,
    two_class_logits,
)

__all__ = ["ColumnRoles", "Head", "Predictions", "Study"]

FloatArray = NDArray[np.floating[Any]]
Features = FloatArray | Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """Which metadata column plays which role; None where no column does.

    Parameters
    ----------
    id, group, weight, time, split : str or None
        Names of columns of `Predictions.metadata`.
    slices : tuple of str, default=()
        Columns that results may be sliced by.
    """

    id: str | None = None
    group: str | None = None
    weight: str | None = None
    time: str | None = None
    split: str | None = None
    slices: tuple[str, ...] = ()

    def named(self) -> dict[str, str]:
        """Return role -> column for the roles that a column plays."""
        pairs = {
            "id": self.id,
            "group": self.group,
            "weight": self.weight,
            "time": self.time,
            "split": self.split,
        }
        return {role: column for role, column in pairs.items() if column is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Rows of class scores with everything known about them; build by `from_arrays`.

    Parameters
    ----------
    logits : ndarray of shape (n, k) or None
        float32 or float64, C-contiguous, read-only; None when `input_kind` is
        "confidence" or "features".
    input_kind : {"logits", "probabilities", "confidence", "features"}
        What the user gave; for probabilities `logits` are their logarithms. Rows of
        features alone are read by out-of-distribution detectors only.
    labels : ndarray of int64 of shape (n,) or None
        Columns of `logits`; -1 where unlabelled.
    classes : tuple of str
        Class names in column order.
    confidence, correct : ndarray of shape (n,) or None
        The only scores of a "confidence" file.
    is_ood : ndarray of bool of shape (n,) or None
        True where a row is known to be out-of-distribution.
    features : ndarray of shape (n, d), mapping from layer to such arrays, or None
        Activations of the network.
    metadata : DataFrame
        Every other column, one row per prediction.
    roles : ColumnRoles
        Which metadata column is what.
    file_rows : ndarray of int64 of shape (n,)
        Row of the file that each prediction came from, counted from 1.
    left_out : DataFrame
        Rows of the file that were left out, with the reason.
    name, fingerprint : str
        Name of the file; sha256 over arrays, classes and roles.
    notes : tuple of Note
        Remarks made while the rows were read.
    """

    logits: FloatArray | None
    input_kind: str
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    confidence: FloatArray | None
    correct: NDArray[np.bool_] | None
    is_ood: NDArray[np.bool_] | None
    features: Features | None
    metadata: pd.DataFrame
    roles: ColumnRoles
    file_rows: NDArray[np.int64]
    left_out: pd.DataFrame
    name: str
    fingerprint: str
    notes: tuple[Note, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        scores: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        *,
        input_kind: str = "logits",
        classes: tuple[str, ...] | None = None,
        confidence: ArrayLike | None = None,
        correct: ArrayLike | None = None,
        is_ood: ArrayLike | None = None,
        features: Features | None = None,
        metadata: pd.DataFrame | None = None,
        roles: ColumnRoles | None = None,
        file_rows: ArrayLike | None = None,
        left_out: pd.DataFrame | None = None,
        name: str = "predictions",
        renormalise: bool = False,
        copy: bool = True,
        notes: tuple[Note, ...] = (),
    ) -> Self:
        """Establish every invariant once; afterwards nothing validates again.

        Parameters
        ----------
        scores : array-like of shape (n, k), (n,) or (n, 1), or None
            Logits or probabilities. One column is a binary score: logits become
            ``(0, z)``, probabilities ``(log1p(-p), log(p))``.
        labels : array-like of int of shape (n,) or (n, 1), optional
            Class indices, -1 where unlabelled.
        input_kind : str, default="logits"
            What `scores` are: "logits", "probabilities" or "confidence"; "features"
            where there are none.
        renormalise : bool, default=False
            Whether rows of probabilities further than 1 % from 1 may be rescaled.
        copy : bool, default=True
            Whether scores and features that are used as they are get copied. False
            makes the given arrays read-only.

        Raises
        ------
        DataError
            Naming the column and the row (of `file_rows`) of what cannot be used.
        """
        found = list(notes)
        places = None if file_rows is None else np.asarray(file_rows)
        conf = hit = logits = None
        if input_kind == "confidence":
            conf, hit = checked_confidence(confidence, correct, name, places)
            n_rows, names = conf.shape[0], tuple(classes or ())
            labels = None
        elif input_kind == "features":
            n_rows, names = _without_scores(features, labels, classes, name)
        else:
            if input_kind == "probabilities":
                logits, more = log_probabilities(
                    scores, name, renormalise=renormalise, file_rows=places
                )
                found += more
            elif input_kind == "logits":
                logits = two_class_logits(checked_logits(scores, name, places))
            else:
                msg = f"Unknown input_kind {input_kind!r}."
                how = "Say logits, probabilities, confidence or features."
                raise DataError(msg, name, how)
            n_rows, n_classes = logits.shape
            names = tuple(classes or (f"class {i}" for i in range(n_classes)))
            _check_classes(names, n_classes, name)
        if n_rows == 0:
            raise DataError(
                "The file has no rows of predictions.",
                name,
                "Upload a file with one row per prediction under the header.",
            )
        table = _checked_table(metadata, n_rows, name)
        roles = roles or ColumnRoles()
        found += _check_roles(table, roles, name, places)
        values: dict[str, Any] = {
            "logits": _unshared(logits, scores) if copy else logits,
            "labels": checked_labels(labels, n_rows, len(names), name, places),
            "confidence": conf,
            "correct": hit,
            "is_ood": optional_rows(is_ood, np.bool_, n_rows, "is_ood", name),
            "file_rows": (
                np.arange(1, n_rows + 1)
                if file_rows is None
                else optional_rows(file_rows, np.int64, n_rows, "file_rows", name)
            ),
        }
        fixed = {key: frozen(value) for key, value in values.items()}
        layers = _checked_features(features, n_rows, name, places, copy=copy)
        return cls(
            input_kind=input_kind,
            classes=names,
            features=layers,
            metadata=table,
            roles=roles,
            left_out=left_out if left_out is not None else pd.DataFrame(),
            name=name,
            fingerprint=fingerprint_of(fixed, layers, table, names, roles, input_kind),
            notes=tuple(found),
            **fixed,
        )

    def __len__(self) -> int:
        return int(self.file_rows.shape[0])

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for a file of confidences."""
        return 0 if self.logits is None else int(self.logits.shape[1])

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Mask of the rows whose outcome is known."""
        if self.input_kind == "confidence":
            return np.ones(len(self), dtype=bool)
        if self.labels is None:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.labels >= 0)

    def column(self, role: str) -> pd.Series[Any] | None:
        """Return the metadata column that plays a role, or None."""
        name = getattr(self.roles, role)
        return None if name is None else self.metadata[name]

    def take(self, rows: NDArray[np.int64], name: str | None = None) -> Predictions:
        """Return some rows, in the order given, as rows of a file of their own.

        Parameters
        ----------
        rows : ndarray of int64 of shape (m,)
        name : str, optional
            By default that of these rows.
        """
        rows = np.asarray(rows, dtype=np.int64)
        parts: dict[str, Any] = {
            key: None if array is None else frozen(rows_of(array, rows))
            for key in _ROW_FIELDS
            for array in [getattr(self, key)]
        }
        features: Features | None = None
        if isinstance(self.features, Mapping):
            layers = {key: frozen(rows_of(a, rows)) for key, a in self.features.items()}
            features = MappingProxyType(layers)
        elif self.features is not None:
            features = frozen(rows_of(self.features, rows))
        digest = hashlib.sha256(self.fingerprint.encode())
        update_digest(digest, "rows", rows)
        return replace(
            self,
            **parts,
            features=features,
            metadata=self.metadata.iloc[rows].reset_index(drop=True),
            name=self.name if name is None else name,
            fingerprint=digest.hexdigest(),
        )

    def group_codes(self) -> NDArray[np.int64] | None:
        """Return one integer per row and group; a row without a group is its own."""
        column = self.column("group")
        if column is None:
            return None
        codes = np.array(pd.factorize(column)[0], dtype=np.int64)
        lonely = codes < 0
        codes[lonely] = codes.max(initial=-1) + 1 + np.arange(lonely.sum())
        return codes

    def sample_weight(self) -> FloatArray | None:
        """Return the weights as float64, or None where rows count alike."""
        column = self.column("weight")
        return None if column is None else np.array(column, dtype=np.float64)

    def time_order(self) -> NDArray[np.int64] | None:
        """Return ranks of the rows in time, equal times sharing a rank, or None."""
        column = self.column("time")
        if column is None:
            return None
        ranks = as_times(column, self.name).rank(method="dense")
        return np.array(ranks, dtype=np.int64)


_ROW_FIELDS = ("logits", "labels", "confidence", "correct", "is_ood", "file_rows")
"""Fields of `Predictions` with one row of an array per prediction."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """The uploads of one session, by role; rows match by id, else by order.

    Parameters
    ----------
    evaluation : Predictions
        The rows that are analysed.
    fit : Predictions or None
        Calibration rows, when they come as a file of their own.
    copies, fit_copies : tuple of Predictions
        Logits of transformed copies of the evaluation rows, and of the `fit` rows.
    reference : Predictions or None
        Rows that out-of-distribution models are fitted on.
    ood, models : mapping of str to Predictions
        Out-of-distribution sets; other models on the same rows.
    head : Head or None
        Last layer of the network.
    """

    evaluation: Predictions
    fit: Predictions | None = None
    copies: tuple[Predictions, ...] = ()
    reference: Predictions | None = None
    ood: Mapping[str, Predictions] = field(default_factory=dict)
    head: Head | None = None
    models: Mapping[str, Predictions] = field(default_factory=dict)
    fit_copies: tuple[Predictions, ...] = ()

    def __post_init__(self) -> None:
        own = self.evaluation
        others = {"fit": self.fit, "reference": self.reference}
        for role, other in (*others.items(), *self.ood.items()):
            if other is not None:
                _check_same_classes(own, other, role)
        if self.head is not None:
            check_head(self.head, own.n_classes, own.features, own.name)
        for other in (*self.copies, *self.models.values()):
            _check_same_classes(own, other, other.name)
            matching_rows(own, other)
        for other in self.fit_copies:
            _check_same_classes(own, other, other.name)
            matching_rows(self.fit or own, other)
        object.__setattr__(self, "ood", MappingProxyType(dict(self.ood)))
        object.__setattr__(self, "models", MappingProxyType(dict(self.models)))

    @property
    def fingerprint(self) -> str:
        """Sha256 over the fingerprints of everything in the study."""
        digest = hashlib.sha256()
        for role, item in self._by_role().items():
            digest.update(f"{role}={item.fingerprint}\n".encode())
        if self.head is not None:
            for array in (self.head.weight, self.head.bias):
                update_digest(digest, "head", np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def identity(self) -> str:
        """Fingerprint with the names of the files and what was noted of them.

        The same rows may come from another file, read in another way: what tells of
        the file, and not only of its rows, is kept by this.
        """
        digest = hashlib.sha256(self.fingerprint.encode())
        for role, item in self._by_role().items():
            told = (role, item.name, item.notes, len(item.left_out))
            digest.update(repr(told).encode())
        return digest.hexdigest()

    def _by_role(self) -> dict[str, Predictions]:
        named = {
            "evaluation": self.evaluation,
            "fit": self.fit,
            "reference": self.reference,
            **{f"copies/{i}": item for i, item in enumerate(self.copies)},
            **{f"fit_copies/{i}": item for i, item in enumerate(self.fit_copies)},
            **{f"ood/{key}": item for key, item in self.ood.items()},
            **{f"models/{key}": item for key, item in self.models.items()},
        }
        return {role: item for role, item in named.items() if item is not None}


def matching_rows(own: Predictions, other: Predictions) -> NDArray[np.int64]:
    """Return, for each row of `own`, the row of `other` that belongs to it.

    Rows match by id where both have one, else by order.

    Raises
    ------
    DataError
        If lengths differ, an id is missing in `other`, or an id is repeated there.
    """
    left, right = own.column("id"), other.column("id")
    if left is None or right is None:
        if len(own) != len(other):
            raise DataError(
                f"{other.name} has {len(other):,} rows and {own.name} {len(own):,}.",
                other.name,
                "Give both files the same rows in the same order, or an id column.",
            )
        return np.arange(len(own))
    lookup = pd.Index(as_keys(right))
    if not lookup.is_unique:
        repeated = lookup[lookup.duplicated()][0]
        raise DataError(
            f"The id {repeated!r} occurs more than once, so rows cannot be matched.",
            f"{other.name}, column {right.name}",
            "Keep one row per id.",
        )
    rows = lookup.get_indexer(as_keys(left))
    if (rows < 0).any():
        lost = as_keys(left).to_numpy()[rows < 0]
        raise DataError(
            f"{len(lost):,} ids of {own.name} are missing, the first is {lost[0]!r}.",
            f"{other.name}, column {right.name}",
            "Export both files from the same rows.",
        )
    return np.asarray(rows, dtype=np.int64)


def as_keys(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return ids or groups as text that is alike in two files.

    A column of whole numbers becomes floats where one value is missing; 7 and 7.0
    name the same group.
    """
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("string")


def _check_same_classes(own: Predictions, other: Predictions, role: str) -> None:
    if own.classes != other.classes:
        raise DataError(
            f"{other.name} ({role}) has the classes {_some(other.classes)}, "
            f"{own.name} has {_some(own.classes)}.",
            other.name,
            "Give both files the same classes in the same column order.",
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def _without_scores(
    features: Features | None,
    labels: ArrayLike | None,
    classes: tuple[str, ...] | None,
    where: str,
) -> tuple[int, tuple[str, ...]]:
    """Return how many rows there are and the names of the classes."""
    layers = features.values() if isinstance(features, Mapping) else (features,)
    first = next(iter(layers), None)
    if first is None:
        raise DataError(
            "There are neither class scores nor features.",
            where,
            "Give features of shape (rows, features).",
        )
    n_classes = 0 if labels is None else int(np.max(labels, initial=-1)) + 1
    names = tuple(classes or (f"class {i}" for i in range(n_classes)))
    return len(first), names


def _check_classes(names: tuple[str, ...], n_classes: int, where: str) -> None:
    if len(names) != n_classes:
        raise DataError(
            f"There are {len(names)} class names for {n_classes} score columns.",
            where,
            "Give one name per column.",
        )
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"Two score columns are called {repeated!r}.",
            where,
            "Give every class a name of its own.",
        )


def _unshared(array: Any, given: Any) -> Any:
    """Return the array, or a copy of it where it is the caller's memory."""
    is_shared = array is not None and np.may_share_memory(array, np.asarray(given))
    return array.copy() if is_shared else array


def _checked_features(
    features: Features | None,
    n_rows: int,
    where: str,
    file_rows: NDArray[Any] | None,
    *,
    copy: bool,
) -> Features | None:
    if features is None:
        return None
    if isinstance(features, Mapping):
        layers = {
            key: _layer(values, n_rows, f"{where}, {key}", file_rows, copy=copy)
            for key, values in features.items()
        }
        return MappingProxyType(layers)
    return _layer(features, n_rows, where, file_rows, copy=copy)


def _layer(
    values: ArrayLike,
    n_rows: int,
    where: str,
    file_rows: NDArray[Any] | None,
    *,
    copy: bool,
) -> FloatArray:
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    is_table = array.ndim == 2 and array.shape[0] == n_rows and array.shape[1] > 0
    if not is_table:
        raise DataError(
            f"Features have shape {array.shape}; there are {n_rows:,} rows.",
            where,
            f"Give numbers of shape ({n_rows:,}, n_features).",
        )
    if not np.isfinite(array).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(
            f"A feature is {array[row, column]:g}: not finite.",
            f"{where}, row {file_row(row, file_rows)}, feature {column + 1}",
            "Save finite features, or leave such rows out of the file.",
        )
    ready = np.ascontiguousarray(array)
    found: FloatArray = frozen(_unshared(ready, values) if copy else ready)
    return found


def _checked_table(
    metadata: pd.DataFrame | None, n_rows: int, where: str
) -> pd.DataFrame:
    if metadata is None:
        return pd.DataFrame(index=pd.RangeIndex(n_rows))
    if len(metadata) != n_rows:
        raise DataError(
            f"The metadata have {len(metadata):,} rows, the scores {n_rows:,}.",
            where,
            "Give one row of metadata per prediction.",
        )
    return metadata.reset_index(drop=True)


def _check_roles(
    table: pd.DataFrame,
    roles: ColumnRoles,
    where: str,
    file_rows: NDArray[Any] | None,
) -> list[Note]:
    for role, column in (
        *roles.named().items(),
        *(("slice", name) for name in roles.slices),
    ):
        if column not in table.columns:
            have = ", ".join(map(str, table.columns)) or "no other columns"
            raise DataError(
                f"There is no column {column!r} to use as {role}.",
                where,
                f"Choose one of: {have}.",
            )
    notes = []
    if roles.id is not None and not (ids := table[roles.id]).is_unique:
        n_repeated = int(ids.duplicated(keep=False).sum())
        notes.append(
            Note(
                "repeated-id",
                "question",
                f"{n_repeated:,} rows share their {roles.id} with another row. Are "
                "these copies of the same case? Then choose that column as group.",
            )
        )
    if roles.weight is not None:
        check_weights(table[roles.weight], where, file_rows)
    if roles.time is not None:
        as_times(table[roles.time], where, file_rows)
    if roles.group is not None and table[roles.group].isna().any():
        n_lonely = int(table[roles.group].isna().sum())
        text = f"{n_lonely:,} rows have no {roles.group}; each counts as its own group."
        notes.append(Note("missing-group", "info", text))
    return notes
