"""Write the table of every out-of-distribution score into README.md.

Run ``python sample_data/ood_table.py``; it takes a few seconds. The detectors are
fitted on ``digits_reference.npz``, those that need rows the network has not seen on
half of the calibration rows of ``digits_ood.npz``, and measured on its test rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))

from core.loading import add_reference, open_study  # noqa: E402
from core.ood import DETECTORS, Detection, detect  # noqa: E402
from core.settings import Settings  # noqa: E402

START, END = "<!-- scores: start -->", "<!-- scores: end -->"


def measured(methods: tuple[str, ...] = ()) -> Detection:
    """Fit and measure detectors, by default all, with default options, untuned."""
    settings = Settings(n_resamples=100)
    study, _ = open_study(FOLDER / "digits_ood.npz", settings)
    study = add_reference(study, FOLDER / "digits_reference.npz", settings)
    return detect(study, settings, methods=methods or tuple(DETECTORS))


def table(found: Detection) -> list[str]:
    """Return the lines of the table: AUROC / FPR95 in per cent."""
    first = next(iter(found.results.values())).evaluation
    if first is None:
        msg = "there is no OOD set"
        raise RuntimeError(msg)
    sets, means = list(first.sets), list(first.members)
    names = [f"`{name}`" for name in sets] + [f"mean of {name}" for name in means]
    lines = ["| score | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for method, item in found.results.items():
        if item.evaluation is None:
            continue
        groups = [item.evaluation.sets[name].estimates for name in sets]
        groups += [item.evaluation.means[name] for name in means]
        cells = [
            f"{100 * group['auroc'].value:.1f} / {100 * group['fpr95'].value:.1f}"
            for group in groups
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Put the table between its marks in README.md."""
    path = FOLDER / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    body = "\n".join([START, *table(measured()), END])
    path.write_text(before + body + after, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
