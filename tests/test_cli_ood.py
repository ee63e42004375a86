"""The commands of out-of-distribution detection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from app import cli
from core.loading import add_reference, open_study
from core.ood import DETECTORS, Detector, default_panel, detect
from core.ood.storage import read_detector
from core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
STRANGE = ROOT / "sample_data" / "digits_ood.npz"
REFERENCE = ROOT / "sample_data" / "digits_reference.npz"
FEW = ("--n-resamples", "100")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=pytest.fail)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*argv: object) -> Result:
        code = cli.main([str(item) for item in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(code, out, err)

    return call


def parts(tmp_path: Path) -> dict[str, Path]:
    """Write the sample as files of their own: rows, two sets and the last layer."""
    with np.load(STRANGE, allow_pickle=False) as archive:
        arrays = dict(archive)
    rows = ("logits", "features", "features_layer1")
    paths = {}
    for name in ("digits", "near_held_out", "far_noise"):
        keep = arrays["dataset"] == name
        paths[name] = tmp_path / f"{name}.npz"
        more = ("labels", "split", "classes") if name == "digits" else ()
        given = {k: arrays[k][keep] for k in rows}
        given |= {k: arrays[k] if k == "classes" else arrays[k][keep] for k in more}
        np.savez(paths[name], **given)
    paths["head"] = tmp_path / "head.npz"
    head = {"fc.weight": arrays["head_weight"], "fc.bias": arrays["head_bias"]}
    np.savez(paths["head"], **head)
    return paths


def test_json_is_what_core_says(run: Any) -> None:
    result = run(
        *("ood", "evaluate", STRANGE, "--reference", REFERENCE, "--json", *FEW),
        *("--detectors", "msp,mahalanobis", "--option", "mahalanobis.layers=all"),
    )
    assert result.code == 0
    assert result.err == ""
    options = (("mahalanobis", "layers", "all"),)
    settings = Settings(n_resamples=100, options=options)
    study = open_study(STRANGE, settings)[0]
    study = add_reference(study, REFERENCE, settings)
    found = detect(study, settings, methods=("max-softmax", "mahalanobis"))
    expected = json.loads(json.dumps(found.to_dict()))
    assert {k: result.json[k] for k in expected} == expected
    assert result.json["baseline"] == "max-softmax"
    differences = result.json["auroc_differences"]["mahalanobis"]
    assert differences["far_noise"]["p_value"] < 0.01
    notes = [note["code"] for note in result.json["results"]["mahalanobis"]["notes"]]
    assert "not-tuned-on-ood" in notes


def test_text_says_what_matters(run: Any) -> None:
    result = run("ood", "evaluate", STRANGE, "--reference", REFERENCE, *FEW)
    assert result.code == 0
    for text in (
        "473 reference rows (digits_reference.npz), 242 threshold rows",
        "near_held_out, 227 rows",
        "Mean of near: near_held_out, near_turned",
        "* under 0.5: OOD rows have the lower scores; not turned round.",
        "in-distribution positive",
    ):
        assert text in " ".join(result.out.split()) or text in result.out
    for name in default_panel():
        assert f"\n{name} " in result.out


def test_files_of_their_own_give_the_same_numbers(run: Any, tmp_path: Path) -> None:
    paths = parts(tmp_path)
    apart = run(
        *("ood", "evaluate", paths["digits"], "--reference", REFERENCE, "--json"),
        *("--head", paths["head"], "--ood", f"near={paths['near_held_out']}"),
        *("--ood", paths["far_noise"], "--detectors", "knn,vim,energy", *FEW),
    ).json
    whole = run(
        *("ood", "evaluate", STRANGE, "--reference", REFERENCE, "--json"),
        *("--detectors", "knn,vim,energy", "--group-column=", *FEW),
    ).json
    assert set(apart["n_ood"]) == {"near", "far_noise"}
    for method in ("knn", "vim", "energy"):
        one, two = (d["results"][method]["evaluation"]["sets"] for d in (apart, whole))
        for mine, theirs in (("near", "near_held_out"), ("far_noise", "far_noise")):
            assert one[mine]["fpr95"]["value"] == two[theirs]["fpr95"]["value"]
            area = two[theirs]["auroc"]["value"]
            assert one[mine]["auroc"]["value"] == pytest.approx(area, abs=1e-3)


def test_a_detector_is_fitted_written_and_applied(run: Any, tmp_path: Path) -> None:
    made, scored = tmp_path / "new" / "detector.json", tmp_path / "scores.csv"
    session = tmp_path / "session.json"
    result = run(
        *("ood", "fit", STRANGE, "--reference", REFERENCE, "--detector", "vim"),
        *("--out", made, "--threshold-target", "0.9", "--save-session", session, *FEW),
    )
    assert result.code == 0
    assert "242 threshold rows for 0.901 of new in-distribution rows" in " ".join(
        result.out.split()
    )
    detector, threshold, metadata = read_detector(made.read_text(encoding="utf-8"))
    assert isinstance(detector, Detector)
    assert detector.method_id == "vim"
    assert metadata["classes"][0] == "zero"
    wanted = Settings.from_json(session.read_text(encoding="utf-8"))
    assert (wanted.detector, wanted.threshold_target) == ("vim", 0.9)
    result = run("ood", "score", made, STRANGE, "--out", scored, "--json")
    assert result.code == 0
    frame = pd.read_csv(scored)
    assert list(frame)[:2] == ["row", "id"]
    assert len(frame) == result.json["n_rows"] == 970 + 6 * 227
    with np.load(STRANGE, allow_pickle=False) as archive:
        is_digit = archive["dataset"] == "digits"
    assert 0.85 <= frame["accepted"][is_digit].mean() <= 0.95
    assert frame["accepted"][~is_digit].mean() < 0.35
    np.testing.assert_array_equal(
        frame["accepted"], frame["ood_score"] <= threshold.value
    )
    assert result.json["n_rejected"] == int((~frame["accepted"]).sum())
    again = run(
        *("ood", "fit", STRANGE, "--session", session, "--reference", REFERENCE),
        *("--out", tmp_path / "same.json", *FEW),
    )
    assert again.code == 0
    assert (tmp_path / "same.json").read_bytes() == made.read_bytes()


@pytest.mark.usefixtures("ready_interpreter")
def test_a_detector_is_exported_and_verified(run: Any, tmp_path: Path) -> None:
    made, folder = tmp_path / "detector.json", tmp_path / "out"
    fit = ("ood", "fit", STRANGE, "--reference", REFERENCE, "--detector", "energy")
    assert run(*fit, "--out", made, *FEW).code == 0
    result = run("ood", "export", made, STRANGE, "--out", folder, "--formats", "all")
    assert result.code == 0
    assert result.err == ""
    said = " ".join(result.out.split())
    assert "detector.onnx: Run on 2,332 rows in a clean interpreter" in said
    assert said.count("0 rows change between accepted and rejected") == 4
    names = ["detector.json", "detector.onnx", "detector.py", "detector_float32.onnx"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "detector.json").read_bytes() == made.read_bytes()
    document = run("ood", "export", made, STRANGE, "--out", folder, "--json").json
    assert document["files"] == ["detector.json", "detector.py"]
    assert document["verification"]["detector.json"]["max_difference"] <= 1e-12
    assert document["problems"] == []
    refused(
        run("ood", "export", made, STRANGE, "--out", tmp_path), "would be written over"
    )
    for formats in ("torch", ","):
        out = ("--out", folder, "--formats", formats)
        refused(run("ood", "export", made, STRANGE, *out), "Choose among: json")
    refused(run("ood", "export", STRANGE, STRANGE, "--out", folder), "detector file")


@pytest.mark.usefixtures("ready_interpreter")
def test_a_model_gets_detector_and_calibrator(run: Any, tmp_path: Path) -> None:
    from test_export_detectors_fused import file_of, inputs_of, mine

    own, folder = file_of(200, 0), tmp_path / "out"
    rows, model = tmp_path / "rows.npz", tmp_path / "net.onnx"
    labels = np.asarray(own.labels)
    np.savez(rows, logits=own.logits, features=own.features, labels=labels)
    model.write_bytes(mine({"hidden": [12]}))
    np.save(tmp_path / "x.npy", inputs_of(200, 0))
    detector = tmp_path / "d.json"
    fit = ("ood", "fit", rows, "--detector", "mahalanobis", "--out", detector)
    assert run(*fit, *FEW).code == 0
    assert run("calibrate", rows, "--out", tmp_path / "c", *FEW).code == 0
    calibrator = ("--calibrator", tmp_path / "c" / "calibrator.json")
    export = ("ood", "export", detector, rows, "--out", folder, "--formats", "onnx")
    result = run(
        *(*export, "--model", model, *calibrator, "--inputs", tmp_path / "x.npy"),
        *("--fuse-features", "hidden", "--fuse-output", "logits"),
    )
    assert result.code == 0, result.err
    said = " ".join(result.out.split())
    assert "net_with_detector.onnx: Run on 200 rows in a clean" in said
    assert "probabilities differ by at most" in said
    assert (folder / "net_with_detector.onnx").is_file()
    wrong = run(*export, "--model", model, "--fuse-features", "nothing")
    refused(wrong, "no value called 'nothing'")
    refused(run(*export, *calibrator), "Give your model with --fuse")
    refused(run(*export, "--model", rows), "This is not an ONNX model")
    other = run(*export, "--model", model, "--inputs", rows)
    refused(other, "inputs cannot be read")
    np.save(tmp_path / "x.npy", inputs_of(200, 3))
    other = run(*export, "--model", model, "--inputs", tmp_path / "x.npy", "--json")
    assert other.code == 1
    assert "net_with_detector.onnx was not written" in " ".join(other.err.split())
    assert other.json["files"] == ["detector.onnx"]
    assert not (folder / "net_with_detector.onnx").exists()


def test_details_list_rows_and_mixtures(run: Any) -> None:
    evaluate = ("ood", "evaluate", STRANGE, "--reference", REFERENCE, *FEW)
    result = run(*evaluate, "--detectors", "energy", "--details")
    assert "energy: OOD rows that look most familiar" in result.out
    assert "energy, far_noise: what its rows do to calibration" in result.out
    found = run(*evaluate, "--detectors", "energy", "--details", "--json").json
    details = found["details"]["energy"]
    scores = [row["score"] for row in details["hardest"]]
    assert scores == sorted(scores)
    assert len(scores) == len(details["rejected"]) == 10
    points = details["mixtures"]["near_held_out"]
    assert [point["is_rejecting"] for point in points] == [False] * 6 + [True] * 6
    assert points[5]["accuracy"] < points[0]["accuracy"] / 1.5
    assert points[11]["accuracy"] > points[5]["accuracy"]


def test_a_class_is_added_from_its_rows_alone(run: Any, tmp_path: Path) -> None:
    with np.load(STRANGE, allow_pickle=False) as archive:
        arrays = dict(archive)
    is_new = arrays["dataset"] == "near_held_out"
    is_held = arrays["split"] == "calibration"
    rows = {k: arrays[k] for k in ("logits", "features", "features_layer1")}
    paths = {}
    for name, keep in (
        ("new", is_new & ~is_held),
        ("held", is_held & (is_new | (arrays["dataset"] == "digits"))),
    ):
        paths[name] = tmp_path / f"{name}.npz"
        np.savez(paths[name], **{k: v[keep] for k, v in rows.items()})
    made, more = tmp_path / "d.json", tmp_path / "more.json"
    fit = ("ood", "fit", STRANGE, "--reference", REFERENCE, "--detector", "mds")
    assert run(*fit, "--out", made, *FEW).code == 0
    add = ("ood", "add-class", made, paths["new"], "--out", more)
    held = ("--threshold-rows", paths["held"])
    result = run(*add, "--name", "eight", *held, "--rule", "weighted")
    assert result.code == 0, result.err
    assert "Class 8 was added" in " ".join(result.out.split())
    table = tmp_path / "scores.csv"
    assert run("ood", "score", more, paths["new"], "--out", table).code == 0
    frame = pd.read_csv(table)
    assert (frame["nearest_class"] == "eight").mean() > 0.5
    assert frame["accepted"].mean() > 0.8
    document = run(*add, "--name", "nine", *held, "--json").json
    assert document["classes"][-1] == "nine"
    refused(run(*add, "--name", "zero", *held), "knows a class 'zero' already")
    assert run(*fit[:-1], "energy", "--out", made, *FEW).code == 0
    refused(run(*add, "--name", "x", *held), "energy keeps no class means")


def test_scores_of_openood_are_measured(run: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = {}
    for name, n, shift in (("cifar10", 400, 2.0), ("svhn", 150, 0.0)):
        label = rng.integers(0, 10, n) if name == "cifar10" else np.full(n, -1)
        paths[name] = tmp_path / f"{name}.npz"
        conf = rng.normal(shift, 1, n)
        np.savez(paths[name], pred=rng.integers(0, 10, n), conf=conf, label=label)
    result = run("ood", "evaluate", paths["cifar10"], "--ood", paths["svhn"], *FEW)
    assert result.code == 0
    assert "svhn, 150 rows" in result.out
    assert "larger = in-distribution: they were turned round" in " ".join(
        result.out.split()
    )
    document = run(
        *("ood", "evaluate", paths["cifar10"], "--ood", f"x={paths['svhn']}"),
        *("--json", *FEW),
    ).json
    assert 0.85 <= document["evaluation"]["sets"]["x"]["auroc"]["value"] <= 0.97
    assert document["n"] == {"in-distribution": 200, "x": 150}
    alone = run("ood", "evaluate", paths["cifar10"], *FEW)
    assert alone.code == 2


def test_thresholds_by_cost_and_by_misses(run: Any) -> None:
    for rule in ("fpr", "cost"):
        result = run(
            *("ood", "evaluate", STRANGE, "--reference", REFERENCE, "--json", *FEW),
            *("--detectors", "mahalanobis", "--threshold-rule", rule),
            *("--threshold-target", "0.05"),
        )
        found = result.json["results"]["mahalanobis"]["threshold"]
        assert found["rule"] == rule
        assert found["miss"]["n"] == 6 * 45
        if rule == "fpr":
            assert found["miss"]["value"] <= 0.05


def refused(result: Result, text: str) -> None:
    assert result.code == 2
    assert text in " ".join(result.err.split())


def test_what_cannot_be_done_is_said(run: Any, tmp_path: Path) -> None:
    paths = parts(tmp_path)
    evaluate = ("ood", "evaluate")
    refused(run(*evaluate, paths["digits"]), "There is no out-of-distribution set")
    refused(run(*evaluate, STRANGE, "--detectors", "x"), "no detector called 'x'")
    refused(run(*evaluate, STRANGE, "--ood", "a=no.npz"), "There is no such file")
    refused(
        run(*evaluate, STRANGE, "--head", REFERENCE, "--option", "knn.x=1"), "knn.x"
    )
    refused(
        run("ood", "fit", STRANGE, "--detector", "vim", "--out", STRANGE),
        "would be written over",
    )
    bare = tmp_path / "bare.csv"
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)))
    frame.columns = ["logit_a", "logit_b", "logit_c"]
    frame.to_csv(bare, index=False)
    out = tmp_path / "d.json"
    refused(
        run("ood", "fit", bare, "--detector", "knn", "--out", out), "has no features"
    )
    assert not out.exists()
    none = run("ood", "evaluate", bare, "--ood", bare, "--detectors", "knn")
    refused(none, "None of these detectors can be used. knn: bare.csv has no features")
    refused(
        run("ood", "score", bare, STRANGE, "--out", out), "This is not a detector file"
    )
    assert run("ood").code == 2
    assert run("ood", "evaluate", "--help").code == 0


def test_methods_lists_detectors(run: Any) -> None:
    found = run("methods", "--json").json["detectors"]
    assert [item["id"] for item in found] == list(DETECTORS)
    assert all(item["assumes"].endswith(".") for item in found)
    react = next(item for item in found if item["id"] == "react")
    assert react["requires"] == ["features", "head"]
    assert "Needs features, head. Features are at least 0" in run("methods").out
    assert "Detectors" in run("methods").out
