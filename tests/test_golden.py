"""Stored numbers: the analyses of the sample files.

`python tests/test_golden.py` writes them anew; a change of them belongs into the
changelog.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.analysis import analyze  # noqa: E402 - run as a script too
from core.loading import read_study  # noqa: E402
from core.settings import Settings  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
BOTH = ("temperature", "isotonic")
CASES = {
    "digits_noisy": ("digits_noisy.csv", {}),
    "digits_noisy_cross_fit": ("digits_noisy.csv", {"split": "cross-fit"}),
    "breast_cancer_binary": ("breast_cancer_binary.csv", {"strategy": "quantile"}),
    "digits_features": ("digits_features.npz", {"calibrators": ("temperature",)}),
}


def numbers(case: str) -> dict[str, Any]:
    """Return what is stored of one analysis."""
    file, changes = CASES[case]
    settings = Settings(n_resamples=200, calibrators=BOTH).replace(**changes)
    study = read_study(ROOT / "sample_data" / file, settings)
    document = analyze(study, settings).to_dict()
    kept = ("value", "low", "high", "null_low", "null_high", "p_value", "n", "rows")

    def short(estimates: dict[str, Any]) -> dict[str, Any]:
        return {
            view: {
                metric: {key: estimate[key] for key in kept}
                for metric, estimate in found.items()
            }
            for view, found in estimates.items()
        }

    calibrators = {}
    for row in document["calibrators"]:
        calibrators[row["method"]] = {
            "estimates": short(row["estimates"]),
            "changes": short(row.get("changes", {})),
            "parameters": row.get("parameters", {}),
            "cross_validated_nll": row["cross_validated_nll"]["value"],
        }
    return {
        "n_rows": document["n_rows"],
        "n_labelled": document["n_labelled"],
        "classes": document["classes"],
        "split": document["split"],
        "verdict": document["verdict"]["kind"],
        "uncalibrated": short(document["uncalibrated"]),
        "ranking": [row["method"] for row in document["calibrators"]],
        "calibrators": calibrators,
    }


def compare(found: Any, stored: Any, path: str, tolerance: float) -> None:
    """Assert that two documents agree, naming the place where they do not."""
    if isinstance(stored, dict):
        assert set(found) == set(stored), path
        for key in stored:
            compare(found[key], stored[key], f"{path}/{key}", tolerance)
    elif isinstance(stored, list):
        assert len(found) == len(stored), path
        for i, item in enumerate(stored):
            compare(found[i], item, f"{path}/{i}", tolerance)
    elif isinstance(stored, float):
        # A share of simulations changes by whole steps where a last digit does.
        loose = {"rel": 0.0, "abs": 0.006} if path.endswith("p_value") else {}
        expected = pytest.approx(stored, **({"rel": tolerance, "abs": 1e-12} | loose))
        assert found == expected, path
    else:
        assert found == stored, path


@pytest.mark.parametrize("case", list(CASES))
def test_the_analysis_of_a_sample_file_is_as_stored(case):
    stored = json.loads((GOLDEN / f"{case}.json").read_text())
    found = json.loads(json.dumps(numbers(case)))
    # float32 sums and isotonic knots feel the last digits of another processor.
    is_single = CASES[case][0].endswith(".npz")
    loose = {"calibrators": found.pop("calibrators")}
    loose_stored = {"calibrators": stored.pop("calibrators")}
    compare(found, stored, case, 1e-6 if is_single else 1e-9)
    compare(loose, loose_stored, case, 1e-6)


def test_the_same_rows_in_csv_and_npz_have_the_same_numbers():
    csv, npz = (
        json.loads((GOLDEN / f"{case}.json").read_text())["uncalibrated"]["top-label"]
        for case in ("digits_noisy", "digits_features")
    )
    for metric, estimate in csv.items():
        assert npz[metric]["value"] == pytest.approx(estimate["value"], rel=1e-5)


if __name__ == "__main__":
    for name in CASES:
        text = json.dumps(numbers(name), indent=1) + "\n"
        (GOLDEN / f"{name}.json").write_text(text)
