"""The sample files: present, small, as documented, and made by their script."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from core.loading.maps import read_maps
from core.map_evaluation import evaluate_maps
from core.settings import Settings

Scores = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]
FOLDER = Path(__file__).resolve().parents[1] / "sample_data"
DIGITS_CSV = "digits_noisy.csv"
DIGITS_NPZ = "digits_features.npz"
CANCER_CSV = "breast_cancer_binary.csv"
STRANGE_NPZ, REFERENCE_NPZ = "digits_ood.npz", "digits_reference.npz"
COPIES_NPZ, SHIFTED_NPZ = "digits_noisy_copies.npz", "digits_shifted.npz"
SCENES_NPZ = "digit_scenes.npz"
CLASSES = [
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
]
LOGIT_COLUMNS = [f"logit_{name}" for name in CLASSES]


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def digits() -> pd.DataFrame:
    return pd.read_csv(FOLDER / DIGITS_CSV)


@pytest.fixture(scope="module")
def arrays() -> dict[str, NDArray[Any]]:
    return read_npz(FOLDER / DIGITS_NPZ)


@pytest.fixture(scope="module")
def cancer() -> pd.DataFrame:
    return pd.read_csv(FOLDER / CANCER_CSV)


def digit_scores(digits: pd.DataFrame) -> Scores:
    labels = digits["label"].map({name: i for i, name in enumerate(CLASSES)})
    split = digits["split"].to_numpy().astype(str)
    return digits[LOGIT_COLUMNS].to_numpy(), labels.to_numpy(), split


def cancer_scores(cancer: pd.DataFrame) -> Scores:
    probability = cancer["prob_malignant"].to_numpy()
    with np.errstate(divide="ignore"):
        logits = np.column_stack([np.log1p(-probability), np.log(probability)])
    both = np.concatenate([probability, 1.0 - probability])
    floor = min(1e-12, both[both > 0].min())
    logits = np.where(np.isinf(logits), np.log(floor), logits)
    return logits, cancer["label"].to_numpy(), cancer["split"].to_numpy().astype(str)


def log_probabilities(
    logits: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    shifted = (logits - logits.max(axis=1, keepdims=True)) / temperature
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(total))


def naive_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Bisect the slope of the NLL in 1/T, which is convex in 1/T."""
    true_logit = logits[np.arange(len(labels)), labels]
    low, high = 1e-3, 1e2
    for _ in range(60):
        inverse = np.sqrt(low * high)
        weight = np.exp(log_probabilities(logits, 1.0 / inverse))
        slope = ((weight * logits).sum(axis=1) - true_logit).mean()
        low, high = (low, inverse) if slope > 0 else (inverse, high)
    return float(1.0 / np.sqrt(low * high))


def figures(
    logits: NDArray[np.float64], labels: NDArray[np.int64], split: NDArray[np.str_]
) -> dict[str, float]:
    fit, test = split == "calibration", split == "test"
    temperature = naive_temperature(logits[fit], labels[fit])
    logits, labels = logits[test], labels[test]
    rows = np.arange(len(labels))
    before = log_probabilities(logits, 1.0)
    after = log_probabilities(logits, temperature)
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    return {
        "n_fit": int(fit.sum()),
        "n_test": int(test.sum()),
        "accuracy": accuracy,
        "confidence": float(np.exp(before.max(axis=1)).mean()),
        "gap": float(np.exp(before.max(axis=1)).mean()) - accuracy,
        "nll": float(-before[rows, labels].mean()),
        "temperature": temperature,
        "nll_after": float(-after[rows, labels].mean()),
        "gap_after": float(np.exp(after.max(axis=1)).mean()) - accuracy,
    }


def readme_row(name: str, found: dict[str, float]) -> str:
    return (
        f"| {name} | {found['n_fit']:,} / {found['n_test']:,} "
        f"| {found['accuracy']:.1%} | {found['confidence']:.1%} "
        f"| {100 * found['gap']:+.1f} | {found['nll']:.3f} "
        f"| {found['temperature']:.2f} | {found['nll_after']:.3f} "
        f"| {100 * found['gap_after']:+.1f} |"
    )


def test_files_are_there_and_small() -> None:
    sizes = [(FOLDER / name).stat().st_size for name in (DIGITS_CSV, CANCER_CSV)]
    sizes.append((FOLDER / DIGITS_NPZ).stat().st_size)
    assert min(sizes) > 0
    assert sum(p.stat().st_size for p in FOLDER.iterdir() if p.is_file()) < 5e6


def test_digit_columns(digits: pd.DataFrame) -> None:
    meta = ["id", "group", "split", "noise", "stroke", "label"]
    assert list(digits.columns) == meta + LOGIT_COLUMNS
    assert len(digits) == 2394
    assert set(digits["label"]) == set(CLASSES)
    assert set(digits["split"]) == {"calibration", "test"}
    assert set(digits["noise"]) == {"low", "medium", "high"}
    assert set(digits["stroke"]) == {"thin", "medium", "thick"}


def test_cancer_columns(cancer: pd.DataFrame) -> None:
    assert list(cancer.columns) == (
        ["id", "group", "split", "nucleus_size", "label", "prob_malignant"]
    )
    assert len(cancer) == 449
    assert set(cancer["label"]) == {0, 1}
    assert set(cancer["split"]) == {"calibration", "test"}
    assert set(cancer["nucleus_size"]) == {"small", "medium", "large"}
    assert cancer["prob_malignant"].between(0.0, 1.0).all()
    assert not (cancer["prob_malignant"] == 0.0).any()
    assert (cancer["prob_malignant"] == 1.0).sum() == 45


@pytest.mark.parametrize("name", [DIGITS_CSV, CANCER_CSV])
def test_rows_and_groups(name: str) -> None:
    table = pd.read_csv(FOLDER / name)
    assert table["id"].is_unique
    assert not table.isna().to_numpy().any()
    assert table.groupby("group")["split"].nunique().max() == 1
    assert (table["split"] == "test").mean() == pytest.approx(0.5, abs=0.02)


def test_no_row_was_trained_on(digits: pd.DataFrame, cancer: pd.DataFrame) -> None:
    scans = digits["id"].str.split("_").str[1]
    assert scans.nunique() == 1797 - 600
    assert (scans.value_counts() == 2).all()
    assert digits.groupby(scans)["group"].nunique().max() == 1
    assert len(cancer) == 569 - 120
    # Sheets and batches are whole: what trained the model is no part of any of them.
    assert digits.groupby("group").size().value_counts().to_dict() == {24: 99, 18: 1}
    assert cancer.groupby("group").size().value_counts().to_dict() == {10: 44, 9: 1}


def test_digit_figures(digits: pd.DataFrame) -> None:
    found = figures(*digit_scores(digits))
    assert 0.75 <= found["accuracy"] <= 0.85
    assert 0.08 <= found["gap"] <= 0.14
    assert found["temperature"] > 1.5
    assert found["nll_after"] < found["nll"] - 0.2
    assert abs(found["gap_after"]) < 0.02


def test_each_noise_level_wants_its_own_temperature(digits: pd.DataFrame) -> None:
    found = [
        figures(*digit_scores(digits[digits["noise"] == level]))["temperature"]
        for level in ("low", "medium", "high")
    ]
    assert found == sorted(found)
    assert found[-1] > 2 * found[0]


def test_cancer_figures(cancer: pd.DataFrame) -> None:
    found = figures(*cancer_scores(cancer))
    assert 0.90 <= found["accuracy"] <= 0.96
    assert 0.03 <= found["gap"] <= 0.09
    assert found["temperature"] > 2.0
    assert found["nll_after"] < found["nll"]


def test_readme_tells_the_figures(digits: pd.DataFrame, cancer: pd.DataFrame) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert readme_row(f"`{DIGITS_CSV}`", figures(*digit_scores(digits))) in text
    assert readme_row(f"`{CANCER_CSV}`", figures(*cancer_scores(cancer))) in text
    for level in ("low", "medium", "high"):
        part = figures(*digit_scores(digits[digits["noise"] == level]))
        assert readme_row(f"only `noise` = {level}", part) in text


def test_readme_names_every_column(
    digits: pd.DataFrame, cancer: pd.DataFrame, arrays: dict[str, NDArray[Any]]
) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = {*digits.columns, *cancer.columns, *arrays} - set(LOGIT_COLUMNS[1:-1])
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_arrays(arrays: dict[str, NDArray[Any]]) -> None:
    found = {name: (a.shape, a.dtype.kind) for name, a in arrays.items()}
    assert found == {
        "logits": ((2394, 10), "f"),
        "labels": ((2394,), "i"),
        "features": ((2394, 64), "f"),
        "head_weight": ((10, 64), "f"),
        "head_bias": ((10,), "f"),
        "classes": ((10,), "U"),
        "split": ((2394,), "U"),
        "id": ((2394,), "U"),
        "group": ((2394,), "U"),
    }
    for name in ("logits", "features", "head_weight", "head_bias"):
        assert arrays[name].dtype == np.float32
        assert np.isfinite(arrays[name]).all()
    assert arrays["labels"].dtype == np.int64


def test_logits_are_the_last_layer_of_the_features(
    arrays: dict[str, NDArray[Any]],
) -> None:
    features, weight, bias = (
        arrays[name].astype(np.float64)
        for name in ("features", "head_weight", "head_bias")
    )
    assert np.abs(features @ weight.T + bias - arrays["logits"]).max() < 1e-5


def test_archive_holds_the_rows_of_the_csv(
    digits: pd.DataFrame, arrays: dict[str, NDArray[Any]]
) -> None:
    logits, labels, split = digit_scores(digits)
    assert arrays["classes"].tolist() == CLASSES
    np.testing.assert_array_equal(arrays["logits"], logits.astype(np.float32))
    np.testing.assert_array_equal(arrays["labels"], labels)
    np.testing.assert_array_equal(arrays["split"], split)
    for name in ("id", "group"):
        assert arrays[name].tolist() == digits[name].tolist()


SETS = {
    *("digits", "near_held_out", "near_turned", "far_inverted", "far_shuffled"),
    *("far_textures", "far_noise"),
}


def test_strangers_are_sets_of_one_network() -> None:
    strange, trained = (read_npz(FOLDER / n) for n in (STRANGE_NPZ, REFERENCE_NPZ))
    assert set(strange["dataset"]) == SETS
    counts = {name: int((strange["dataset"] == name).sum()) for name in SETS}
    assert counts.pop("digits") == 970
    assert set(counts.values()) == {227}
    np.testing.assert_array_equal(strange["is_ood"], strange["dataset"] != "digits")
    np.testing.assert_array_equal(strange["is_ood"], strange["labels"] == -1)
    assert set(strange["split"][~strange["is_ood"]]) == {"calibration", "test"}
    assert not set(strange["group"]) & set(trained["group"])
    assert len(set(strange["id"])) == len(strange["id"])
    for arrays in (strange, trained):
        features, weight = (
            arrays[k].astype(float) for k in ("features", "head_weight")
        )
        made = features @ weight.T + arrays["head_bias"]
        assert np.abs(made - arrays["logits"]).max() < 1e-4
        assert arrays["features_layer1"].shape == (len(features), 64)
        np.testing.assert_array_equal(arrays["head_weight"], strange["head_weight"])
    right = strange["logits"].argmax(axis=1) == strange["labels"]
    assert 0.96 <= right[~strange["is_ood"]].mean() <= 0.99
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert not [n for n in {*strange, *trained, *SETS} if f"`{n}`" not in text]


def test_readme_has_the_table_of_all_scores() -> None:
    from core.ood import DETECTORS

    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in DETECTORS:
        assert f"| `{name}` | " in text


@pytest.fixture(scope="module")
def ood_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("table", FOLDER / "ood_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_some_lines_of_the_table_of_scores_are_current(ood_table: ModuleType) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    body = text.partition(ood_table.START)[2].partition(ood_table.END)[0]
    names = [line.split("`")[1] for line in body.splitlines() if line[:3] == "| `"]
    assert names == list(ood_table.DETECTORS)
    some = ("energy", "openmax", "mahalanobis")
    lines = ood_table.table(ood_table.measured(some))
    same = [line in text for line in lines]
    assert sum(same) >= len(lines) - 1  # a last digit may differ on another machine


@pytest.mark.slow
def test_the_table_of_scores_is_what_its_script_writes(ood_table: ModuleType) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    lines = ood_table.table(ood_table.measured())
    same = [line in text for line in lines]
    assert np.mean(same) > 0.8  # a last digit may differ on another machine


def test_copies_belong_to_their_rows() -> None:
    from core.loading import add_copies, open_study
    from core.settings import Settings

    study, _ = open_study(FOLDER / DIGITS_CSV, Settings())
    study = add_copies(study, [FOLDER / COPIES_NPZ], Settings())
    own = study.evaluation
    assert [item.name.rpartition("_")[2] for item in study.copies] == [
        *("rotated", "shifted", "noised", "contrast")
    ]
    for item in study.copies:
        assert item.logits is not None
        assert own.logits is not None
        same = item.logits.argmax(axis=1) == own.logits.argmax(axis=1)
        assert 0.5 < same.mean() < 0.97
    moved, _ = open_study(FOLDER / SHIFTED_NPZ, Settings())
    assert len(moved.copies) == 4
    assert moved.evaluation.classes == own.classes
    scores, labels = moved.evaluation.logits, moved.evaluation.labels
    assert scores is not None
    assert 0.15 < (scores.argmax(axis=1) == labels).mean() < 0.5


def test_readme_has_the_comparison_of_row_temperatures() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for line in ("`correctness-aware`, copies |", "`parameterised-temperature` |"):
        assert text.count(f"| {line}") == 2


def test_scenes_are_overconfident_pixels_that_local_temperatures_repair() -> None:
    given = read_maps(FOLDER / SCENES_NPZ)
    assert given.logits.shape == (24, 4, 36, 36)
    assert given.classes == ("paper", "zero", "four", "seven")
    found = evaluate_maps(given, Settings(n_resamples=200))
    gap = found.results["uncalibrated"].estimates["gap"]
    assert gap.low is not None
    assert gap.low > 0
    change = found.changes["temperature", "local-temperature"]["nll"]
    assert change.high is not None
    assert change.high < 0
    values = [f"{item.estimates['nll'].value:.3f}" for item in found.results.values()]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"NLL {values[0]}, {values[1]} and {values[2]}" in readme


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_sample_data", FOLDER / "generate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the module of their annotations.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_script_makes_the_same_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_script().main(["--out", str(tmp_path)]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 5
    assert set(table) <= set(readme)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(DIGITS_CSV, DIGITS_NPZ, CANCER_CSV, STRANGE_NPZ, REFERENCE_NPZ),
        *(COPIES_NPZ, SHIFTED_NPZ, SCENES_NPZ),
    }
    for name in (DIGITS_CSV, CANCER_CSV):
        pd.testing.assert_frame_equal(
            pd.read_csv(tmp_path / name),
            pd.read_csv(FOLDER / name),
            rtol=1e-5,
            atol=1e-5,
        )
    for file in (DIGITS_NPZ, STRANGE_NPZ, REFERENCE_NPZ, COPIES_NPZ, SHIFTED_NPZ):
        made, stored = read_npz(tmp_path / file), read_npz(FOLDER / file)
        assert list(made) == list(stored)
        for name, array in stored.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(made[name], array, rtol=1e-4, atol=1e-4)
            else:
                np.testing.assert_array_equal(made[name], array)
    made, stored = read_npz(tmp_path / SCENES_NPZ), read_npz(FOLDER / SCENES_NPZ)
    np.testing.assert_array_equal(made["labels"], stored["labels"])
    # The logits are rounded to tenths.
    np.testing.assert_allclose(made["logits"], stored["logits"], atol=0.11)
    again = tmp_path / "again"
    load_script().main(["--out", str(again)])
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
