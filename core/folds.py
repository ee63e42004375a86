"""Folds: rows dealt at random, every class and whole groups as evenly as they go.

The folds are those of scikit-learn's splitters, which are slow to import; most first
charts need nothing else of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fold_numbers"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

# Stratifying groups takes a groups x classes table and a loop over the groups.
_STRATIFY_CELLS = 2_000_000


def fold_numbers(
    labels: IndexArray, groups: IndexArray | None, n_folds: int, seed: int
) -> IndexArray:
    """Return a fold number per row: stratified by label, whole groups together."""
    strata = _strata(labels, n_folds)
    rng = np.random.RandomState(seed)
    if groups is None:
        return _stratified(strata, n_folds, rng)
    names, unit = np.unique(groups, return_inverse=True)
    if names.size * np.unique(strata).size > _STRATIFY_CELLS:
        numbers = np.empty(names.size, dtype=np.int64)
        parts = np.array_split(rng.permutation(names.size), n_folds)
        for number, part in enumerate(parts):
            numbers[part] = number
        return numbers[unit]
    return _stratified_groups(strata, unit, n_folds, rng)[unit]


def _strata(labels: IndexArray, n_folds: int) -> IndexArray:
    """Merge classes with fewer rows than folds, which cannot be stratified."""
    counts = np.bincount(labels)
    is_rare = counts[labels] < n_folds
    strata = np.where(is_rare, counts.size, labels)
    if 0 < is_rare.sum() < n_folds:
        strata[is_rare] = counts.argmax()
    return strata


def _stratified(
    strata: IndexArray, n_folds: int, rng: np.random.RandomState
) -> IndexArray:
    """Return a fold number per row, as `StratifiedKFold` deals them."""
    _, first, code = np.unique(strata, return_index=True, return_inverse=True)
    code = first.argsort().argsort()[code]  # classes in the order of their first rows
    order = code.argsort(kind="stable")
    ends = np.bincount(code).cumsum()[:-1]
    dealt = np.split(np.arange(strata.size) % n_folds, ends)
    numbers = np.empty(strata.size, dtype=np.int64)
    for rows, folds in zip(np.split(order, ends), dealt, strict=True):
        folds.sort()
        rng.shuffle(folds)
        numbers[rows] = folds
    return numbers


def _stratified_groups(
    strata: IndexArray, unit: IndexArray, n_folds: int, rng: np.random.RandomState
) -> IndexArray:
    """Return a fold number per group, as `StratifiedGroupKFold` deals them.

    One group after the other, the most uneven first, goes where the classes are then
    spread most evenly over the folds; among equals where fewest rows are.
    """
    _, code = np.unique(strata, return_inverse=True)
    shape = (int(unit.max()) + 1, int(code.max()) + 1)
    cells = np.bincount(unit * shape[1] + code, minlength=shape[0] * shape[1])
    table: FloatArray = cells.reshape(shape).astype(np.float64)
    sizes = table.sum(axis=0)
    order = np.arange(shape[0])
    rng.shuffle(order)
    order = order[np.argsort(-table[order].std(axis=1), kind="stable")]
    held: FloatArray = np.zeros((n_folds, shape[1]))
    every = np.arange(n_folds)
    numbers = np.empty(shape[0], dtype=np.int64)
    for item in order:
        tried = np.repeat(held[np.newaxis], n_folds, axis=0)
        tried[every, every] += table[item]
        uneven = (tried / sizes).std(axis=1).mean(axis=1)
        best = _least(uneven.tolist(), held.sum(axis=1).tolist())
        held[best] += table[item]
        numbers[item] = best
    return numbers


def _least(uneven: list[float], rows: list[float]) -> int:
    """Return the most even of all, or one as even that has fewer rows."""
    best = 0
    for number in range(1, len(uneven)):
        value, least = uneven[number], uneven[best]
        is_close = abs(value - least) <= 1e-8 + 1e-5 * abs(least)
        if value < least or (is_close and rows[number] < rows[best]):
            best = number
    return best
