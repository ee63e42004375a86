"""What a file holds: the role of each column, the scores, the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.loading.class_values import as_whole
from core.loading.columns import Roles
from core.loading.kinds import Kind, judge_kind, tidy
from core.loading.labels import LabelMap, map_binary, map_labels
from core.loading.names import class_names, parse_score_name, plain
from core.loading.roles import find_roles
from core.loading.schema import ColumnGuess, Expected, Schema
from core.loading.score_families import NO_CLASSES
from core.loading.sources import Raw
from core.loading.values import Scores, gather_scores
from core.messages import DataError, Progress
from core.settings import Settings

__all__ = ["Understood", "understand"]


@dataclass(slots=True)
class Understood:
    """A file with the role of every column and the scores as one array."""

    raw: Raw
    roles: Roles
    schema: Schema
    scores: Scores | None
    labels: LabelMap


def understand(
    raw: Raw,
    settings: Settings,
    progress: Progress,
    expected: Expected = Expected(),  # noqa: B008 - frozen
) -> Understood:
    """Find the role of each column of what was read, the scores and the classes."""
    progress(raw.read_share, "Recognising the columns")
    needs_outcome = expected.input_kind != "confidence"
    roles = find_roles(raw, settings, expected.classes, needs_outcome=needs_outcome)
    label = roles.column("label")
    values = () if label is None else tuple(raw.distinct(label))
    others = {
        name: roles.alternatives(name, roles.found[name][0]) for name in raw.names
    }
    scores, labels = None, LabelMap(())
    confidence = roles.column("confidence")
    kind, evidence = "logits", "no score columns were found"
    if confidence is not None:
        kind = "confidence"
        evidence = f"column {confidence} with the outcome of the top prediction"
        scores = gather_scores(raw, (confidence,), progress)
        raw.notes += tidy(scores, Kind(kind, evidence))
    elif roles.scores:
        _check_numeric(raw, roles)
        scores = gather_scores(raw, roles.scores, progress)
        judged = judge_kind(scores, raw.name, settings.input_kind, expected.input_kind)
        kind, evidence = judged.name, judged.evidence
        raw.notes += tidy(scores, judged)
        where = f"{raw.name}, column {label}" if label else raw.name
        labels = _match_labels(roles, scores, values, settings, where, expected)
    elif expected.is_companion and roles.column("features") is not None:
        kind, evidence = "features", "there are features and no scores"
        labels = _labels_alone(values, settings, expected, raw.name)
    schema = _schema(roles, others, labels, (kind, evidence))
    return Understood(raw, roles, schema, scores, labels)


def _check_numeric(raw: Raw, roles: Roles) -> None:
    """Refuse chosen score columns that hold text."""
    if len(roles.scores) == 1 and roles.scores[0] in raw.arrays:
        array = raw.arrays[roles.scores[0]]
        if array.ndim == 2 and len(array) == raw.n_rows and array.dtype.kind in "fiu":
            return
        raise DataError(
            f"The array {roles.scores[0]} has shape {array.shape} and type "
            f"{array.dtype}.",
            f"{raw.name}, array {roles.scores[0]}",
            "Choose an array of numbers with one row per prediction.",
        )
    for name in roles.scores:
        is_chosen = roles.found[name][1] == "chosen"
        if name in raw.arrays or (is_chosen and not roles.is_numeric(name)):
            raise DataError(
                f"The column {name!r} does not hold numbers.",
                f"{raw.name}, column {name}",
                "Choose columns of logits or probabilities as scores.",
            )


def _match_labels(
    roles: Roles,
    scores: Scores,
    values: tuple[str, ...],
    settings: Settings,
    where: str,
    expected: Expected,
) -> LabelMap:
    if scores.matrix.shape[1] == 1:
        parsed = parse_score_name(roles.scores[0]) if not scores.array else None
        suffix = parsed.suffix if parsed else ""
        if plain(suffix) in NO_CLASSES and suffix not in values:
            suffix = ""
        return map_binary(values, suffix, settings.positive_class, where)
    is_counted = _is_unnamed(roles, scores) and roles.column("classes") is None
    names = _class_names(roles, scores)
    if expected.is_companion and is_counted and len(names) == len(expected.classes):
        names, is_counted = expected.classes, False
    base = settings.label_base
    labels = map_labels(values, names, base, where, is_counted=is_counted)
    if settings.positive_class is not None:
        _check_positive(settings.positive_class, labels.classes, where)
    return labels


def _labels_alone(
    values: tuple[str, ...], settings: Settings, expected: Expected, where: str
) -> LabelMap:
    """Match labels to the classes of the study, or count them where it has none."""
    classes = expected.classes
    if not classes:
        numbers = as_whole([value for value in values if value.strip()])
        if numbers is None:
            classes = tuple(sorted(values))
        else:
            classes = tuple(
                str(i) for i in range(max(numbers.values(), default=-1) + 1)
            )
    return map_labels(values, classes, settings.label_base, where)


def _check_positive(positive: str, classes: tuple[str, ...], where: str) -> None:
    if positive not in classes:
        raise DataError(
            f"The positive class {positive!r} is not one of the classes.",
            where,
            f"Choose one of: {', '.join(classes[:20])}.",
        )


def _is_unnamed(roles: Roles, scores: Scores) -> bool:
    return bool(scores.array) or not roles.raw.has_header


def _class_names(roles: Roles, scores: Scores) -> tuple[str, ...]:
    n_classes = scores.matrix.shape[1]
    numbered = tuple(str(i) for i in range(n_classes))
    given = roles.column("classes")
    if given is not None:
        raw = roles.raw
        array: Any = raw.arrays.get(given)
        names = raw.text(given).tolist() if array is None else array.tolist()
        if len(names) != n_classes:
            raise DataError(
                f"There are {len(names)} class names for {n_classes} scores.",
                f"{raw.name}, array {given}",
                "Save one name per score column.",
            )
        return tuple(str(item).strip() for item in names)
    if _is_unnamed(roles, scores):
        return numbered
    known = {name.strip().casefold(): name for name in roles.classes}
    words = [name.strip().casefold() for name in scores.names]
    if len(words) == len(roles.classes) and known.keys() == set(words):
        pairs = zip(scores.names, words, strict=True)
        return tuple(n if n in roles.classes else known[word] for n, word in pairs)
    return class_names(scores.names)


def _schema(
    roles: Roles,
    others: dict[str, tuple[str, ...]],
    labels: LabelMap,
    kind: tuple[str, str],
) -> Schema:
    raw = roles.raw
    columns = []
    for name in others:
        role, evidence = roles.found[name]
        if role == "label" and labels.evidence:
            evidence += f"; {labels.evidence}"
        columns.append(ColumnGuess(name, role, evidence, others[name]))
    return Schema(
        name=raw.name,
        format=raw.format,
        n_rows=raw.n_rows,
        input_kind=kind[0],
        input_evidence=kind[1],
        columns=tuple(columns),
        classes=labels.classes,
        delimiter=raw.delimiter,
        has_header=raw.has_header,
    )
