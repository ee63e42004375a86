"""Compare calibrators that give each row a temperature; write the table into README.md.

Run ``python sample_data/correctness_table.py``; it takes a few minutes. For each of
five seeds everything is made anew: sheets, network, noise and copies. Calibrators are
fitted on the calibration rows, and measured on the test rows and on a shifted set: the
same sheets askew, paler and noisy, under a scanner that the calibrators never saw.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

from generate import (  # noqa: E402
    DIGIT_NAMES,
    SEED,
    DigitWorld,
    digit_world,
    logits_of,
    shifted_scans,
    transformed,
)

from core.calibrators import CALIBRATORS  # noqa: E402

START, END = "<!-- correctness: start -->", "<!-- correctness: end -->"
SEEDS = tuple(range(5))
BASELINE = "temperature"
N_DRAWS = 200
N_RESAMPLES = 2000

FloatArray = NDArray[np.float64]


class Variant(NamedTuple):
    """One line of the table; options where it is given copies."""

    method: str
    words: str = ""
    options: dict[str, Any] | None = None


_CA = "correctness-aware"
VARIANTS = tuple(
    item
    for item in (
        Variant("uncalibrated"),
        Variant("temperature"),
        Variant("ensemble-temperature"),
        Variant("parameterised-temperature"),
        Variant("top-versus-all"),
        Variant("top-versus-all-beta"),
        Variant(_CA, "without copies"),
        Variant(_CA, "copies", {}),
        Variant(_CA, "copies, log loss", {"loss": "cross-entropy"}),
        Variant(_CA, "copies, mixture", {"loss": "mixture"}),
        Variant(_CA, "copies, balanced, undone", {"weighting": "balanced"}),
        Variant(
            *(_CA, "copies, balanced"),
            {"weighting": "balanced", "undo_weighting": False},
        ),
        Variant("correctness-aware-released", "as released", {}),
    )
    if item.method in CALIBRATORS
)


class Rows(NamedTuple):
    """Rows of one role."""

    logits: FloatArray
    labels: NDArray[np.int64]
    copies: FloatArray
    group: NDArray[Any]


class Losses(NamedTuple):
    """What a calibrator does to each row, and numbers of all rows."""

    nll: FloatArray
    brier: FloatArray
    numbers: dict[str, float]


def rows_of(world: DigitWorld, frame: Any, pixels: FloatArray, seed: int) -> Rows:
    """Return logits of rows and of their copies."""
    rng = np.random.default_rng([seed, len(pixels)])
    copies = transformed(pixels, rng).values()
    return Rows(
        logits_of(world.network, pixels),
        np.array([DIGIT_NAMES.index(name) for name in frame["label"]]),
        np.stack([logits_of(world.network, copy) for copy in copies]),
        frame["group"].to_numpy(),
    )


def roles_of(seed: int) -> dict[str, Rows]:
    """Return calibration, test and shifted rows of one seed."""
    world = digit_world(SEED + seed)
    everything = rows_of(world, world.frame, world.pixels, seed)
    split = world.frame["split"].to_numpy()
    found = {}
    for name in ("calibration", "test"):
        keep = split == name
        z, y, copies, group = everything
        found[name] = Rows(z[keep], y[keep], copies[:, keep], group[keep])
    frame, pixels = shifted_scans(world, np.random.default_rng([SEED, seed]))
    found["shifted"] = rows_of(world, frame, pixels, seed + 1000)
    return found


def measured(log_p: FloatArray, rows: Rows, seed: int) -> Losses:
    """Return losses per row, and NLL, Brier score, ECE with its null, and AUROC."""
    p = np.exp(log_p)
    y, n = rows.labels, len(rows.labels)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    nll = -log_p[np.arange(n), y]
    brier = ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1)
    rng = np.random.default_rng(seed)
    null = [_ece(confidence, rng.random(n) < confidence) for _ in range(N_DRAWS)]
    numbers = {
        "nll": float(nll.mean()),
        "brier": float(brier.mean()),
        "gap": float(confidence.mean() - right.mean()),
        "ece": float(_ece(confidence, right)),
        "null": float(np.mean(null)),
        "auroc": float(roc_auc_score(right, confidence)),
        "accuracy": float(right.mean()),
    }
    return Losses(nll, brier, numbers)


def _ece(confidence: FloatArray, right: NDArray[np.bool_]) -> float:
    """ECE of the predicted class in 15 bins of equal widths, (lo, hi]."""
    place = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = np.bincount(place, confidence - right, minlength=15)
    return float(np.abs(gaps).sum() / len(confidence))


def everything() -> dict[str, dict[int, list[tuple[Losses, NDArray[Any]]]]]:
    """Return role -> number of the variant -> losses and groups of each seed."""
    found: dict[str, dict[int, list[tuple[Losses, NDArray[Any]]]]] = {
        role: {i: [] for i in range(len(VARIANTS))} for role in ("test", "shifted")
    }
    for seed in SEEDS:
        roles = roles_of(seed)
        fit = roles["calibration"]
        groups = np.unique(fit.group, return_inverse=True)[1]
        for number, item in enumerate(VARIANTS):
            calibrator = CALIBRATORS[item.method](**(item.options or {}))
            has_copies = item.options is not None
            more = {"copies": fit.copies} if has_copies else {}
            calibrator.fit(fit.logits, fit.labels, groups=groups, **more)
            for role, by_variant in found.items():
                rows = roles[role]
                more = {"copies": rows.copies} if has_copies else {}
                log_p = calibrator.transform(rows.logits, **more)
                by_variant[number].append((measured(log_p, rows, seed), rows.group))
        sys.stderr.write(f"seed {seed + 1} of {len(SEEDS)}\n")
    return found


def change(
    ours: list[tuple[Losses, NDArray[Any]]],
    base: list[tuple[Losses, NDArray[Any]]],
    name: str,
) -> str:
    """Return the mean difference with its 95 % interval, over sheets of all seeds."""
    sums, counts = [], []
    for (mine, group), (theirs, _) in zip(ours, base, strict=True):
        unit = np.unique(group, return_inverse=True)[1]
        sums.append(np.bincount(unit, getattr(mine, name) - getattr(theirs, name)))
        counts.append(np.bincount(unit))
    total, n = np.concatenate(sums), np.concatenate(counts)
    draws = np.random.default_rng(0).integers(0, n.size, (N_RESAMPLES, n.size))
    means = total[draws].sum(axis=1) / n[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{total.sum() / n.sum():+.4f} ({low:+.4f} to {high:+.4f})"


def table(found: dict[str, dict[int, list[tuple[Losses, NDArray[Any]]]]]) -> list[str]:
    """Return the lines of the table."""
    lines = []
    base = next(i for i, item in enumerate(VARIANTS) if item.method == BASELINE)
    for role, by_variant in found.items():
        accuracy = np.mean([losses.numbers["accuracy"] for losses, _ in by_variant[0]])
        lines += [
            "",
            f"**{role.capitalize()} rows**, accuracy {accuracy:.1%}:",
            "",
            "| calibrator | NLL | Brier | gap | ECE (null) | AUROC | NLL against "
            "temperature | Brier against temperature |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for number, item in enumerate(VARIANTS):
            name = f"`{item.method}`" + (f", {item.words}" if item.words else "")
            seeds = by_variant[number]
            mean = {
                key: np.mean([losses.numbers[key] for losses, _ in seeds])
                for key in seeds[0][0].numbers
            }
            cells = [
                f"{mean['nll']:.3f}",
                f"{mean['brier']:.3f}",
                f"{100 * mean['gap']:+.1f}",
                f"{100 * mean['ece']:.1f} ({100 * mean['null']:.1f})",
                f"{mean['auroc']:.3f}",
            ]
            moves = [change(seeds, by_variant[base], key) for key in ("nll", "brier")]
            cells += ["", ""] if number == base else moves
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Measure, and write the table between its marks."""
    with threadpool_limits(1):
        lines = table(everything())
    path = FOLDER / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    body = "\n".join(lines)
    path.write_text(f"{before}{START}\n{body}\n\n{END}{after}", encoding="utf-8")
    sys.stdout.write(body + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
