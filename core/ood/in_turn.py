"""Detectors one after the other, so that the first results need not wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from core.messages import Progress, no_progress, part_of
from core.ood.base import DETECTORS
from core.ood.detection import Detection, Scored, results_of, unusable_reasons
from core.ood.division import OodRows
from core.settings import Settings

__all__ = ["detect_in_turn", "stages"]


def detect_in_turn(
    rows: OodRows,
    settings: Settings,
    methods: Sequence[str],
    progress: Progress = no_progress,
    *,
    known: Mapping[str, Scored] | None = None,
) -> Iterator[Detection]:
    """Yield everything that is there after each detector, quick ones first.

    Parameters
    ----------
    rows : OodRows
        From `divide`.
    settings : Settings
    methods : sequence of str
        Ids or aliases.
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    known : mapping of str to Scored, optional
        Results by id that need not be computed again.

    Yields
    ------
    Detection
        The detectors so far, in the order that was asked for; those that cannot be
        used have their reason from the start. The last one is what `detect` returns.
    """
    names = tuple(dict.fromkeys(DETECTORS[name].id for name in methods))
    skipped = unusable_reasons(rows, names)
    results = {n: item for n, item in (known or {}).items() if n in names}
    results = {n: item for n, item in results.items() if n not in skipped}
    left = [n for n in names if n not in results and n not in skipped]
    if results or not left:
        yield _so_far(rows, names, results, skipped)
    parts = stages(left)
    for number, part in enumerate(parts):
        report = part_of(progress, number / len(parts), (number + 1) / len(parts))
        is_empty = True
        for item in results_of(rows, settings, part, skipped, _named(part, report)):
            results[item.method] = item
            is_empty = False
            yield _so_far(rows, names, results, skipped)
        if is_empty:
            yield _so_far(rows, names, results, skipped)


def stages(methods: Sequence[str]) -> list[tuple[str, ...]]:
    """Return detectors in the groups that are scored together, the quick ones first.

    The first score of the logits alone comes by itself, so that something is there;
    the others share their trips through memory. What reads features costs seconds, and
    comes one at a time.
    """
    quick = [n for n in methods if _reads(n) == "logits"]
    fitted = [n for n in methods if _reads(n) == "fitted logits"]
    slow = [n for n in methods if n not in quick and n not in fitted]
    parts = [tuple(quick[:1]), tuple(quick[1:]), tuple(fitted)]
    parts += [(name,) for name in slow]
    return [part for part in parts if part]


def _reads(name: str) -> str:
    target = DETECTORS[name].target
    if "logits" not in target.requires or target.requires & {"features", "head"}:
        return "features"
    return "logits" if target.fits_on == "nothing" else "fitted logits"


def _so_far(
    rows: OodRows,
    names: Sequence[str],
    results: Mapping[str, Scored],
    skipped: Mapping[str, str],
) -> Detection:
    return Detection(
        rows, {n: results[n] for n in names if n in results}, dict(skipped)
    )


def _named(part: Sequence[str], progress: Progress) -> Progress:
    """Return progress that says which detector it is of."""
    label = DETECTORS[part[0]].label if len(part) == 1 else "Scores of the logits"

    def report(fraction: float, message: str) -> None:
        progress(fraction, f"{label}: {message}" if message else label)

    return report
