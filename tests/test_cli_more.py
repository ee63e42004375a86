"""`evaluate --metrics` and `--peers`; folders and calibrators of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import cli, cli_export, cli_text
from core.analysis import measure
from core.loading import open_study
from core.metrics import METRICS
from core.on_demand import MORE_METRICS, measure_metrics, peers
from core.settings import Settings

SAMPLES = Path(__file__).parents[1] / "sample_data"
DIGITS = SAMPLES / "digits_noisy.csv"
BINARY = SAMPLES / "breast_cancer_binary.csv"
FEW = ("--n-resamples", "100", "--no-calibrators")


@pytest.fixture
def run(capsys):
    def call(*argv):
        code = cli.main([str(item) for item in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def known(path):
    settings = Settings(n_resamples=100, calibrators=())
    study, _ = open_study(path, settings)
    return study, settings, measure(study, settings)


@pytest.mark.parametrize("path", [DIGITS, BINARY])
def test_json_holds_what_core_says(run, path):
    code, out, _ = run(
        "evaluate", path, "--json", "--peers", "--metrics", "ks,smece", *FEW
    )
    assert code == 0
    document = json.loads(out)
    given = known(path)
    expected = [item.to_dict() for item in peers(*given)]
    assert document["peers"] == json.loads(json.dumps(expected))
    found = measure_metrics(*given, ("ks", "smooth-ece"))
    more = document["more"]["uncalibrated"]
    assert set(more) == set(found)
    for view, columns in found.items():
        for name, item in columns["uncalibrated"].items():
            expected = json.loads(json.dumps(item.to_dict()))
            assert more[view][name] == expected


def test_text_names_every_metric_and_library(run):
    code, out, err = run("evaluate", BINARY, "--peers", "--metrics", "all", *FEW)
    assert (code, err) == (0, "")
    for name in MORE_METRICS:
        assert METRICS[name].label in out
    for library in ("scikit-learn: ", "netcal: ", "torchmetrics: ", "MAPIE: "):
        assert library in out
    assert "The same number on these rows." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= cli_text.WIDTH


def test_calibrators_are_measured_too(run):
    code, out, _ = run(
        "evaluate", DIGITS, "--json", "--metrics", "ks", "--n-resamples", "100"
    )
    assert code == 0
    more = json.loads(out)["more"]
    assert set(more) == {"uncalibrated", "temperature"}
    after = more["temperature"]["top-label"]["ks"]
    assert after["value"] < more["uncalibrated"]["top-label"]["ks"]["value"]
    assert after["rows"] == "test"


def test_nothing_is_added_unasked_and_unknown_metrics_are_refused(run):
    _, out, _ = run("evaluate", BINARY, "--json", *FEW)
    assert not {"more", "peers"} & set(json.loads(out))
    code, _, err = run("evaluate", BINARY, "--metrics", "nope", *FEW)
    assert code == 2
    assert "There is no metric called 'nope'." in err


def test_a_folder_never_holds_two_calibrators(run, tmp_path):
    few = ("--n-resamples", "100")
    first = ("calibrate", BINARY, "--out", tmp_path, *few)
    assert run(*first, "--formats", "json,onnx")[0] == 0
    before = (tmp_path / "calibrator.onnx").read_bytes()
    code, _, err = run(*first, "--formats", "json", "--method", "isotonic")
    assert code == 2
    assert "calibrator.onnx of an earlier run" in " ".join(err.split())
    assert "--force" in err
    assert (tmp_path / "calibrator.onnx").read_bytes() == before
    assert json.loads((tmp_path / "report.json").read_text())["exported"] == (
        "temperature"
    )
    assert run(*first, "--formats", "onnx,json")[0] == 0  # the same files again
    (tmp_path / "notes.txt").write_text("mine")
    assert run(*first, "--formats", "json", "--force")[0] == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"calibrator.json", "calibrated.csv", "report.json", "notes.txt"}


def test_files_that_an_older_report_names_stay_in_their_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "out" / "mine_calibrated.onnx").write_text("x")
    names = {"files": ["../secret", str(tmp_path / "secret"), "mine_calibrated.onnx"]}
    (tmp_path / "out" / "report.json").write_text(json.dumps(names))
    found = cli_export.files_of_older_runs(tmp_path / "out", ("json",))
    assert [path.name for path in found] == ["mine_calibrated.onnx"]


@pytest.mark.parametrize(
    "name", ["calibrator.onnx", "calibrator.py", "calibrator_torch.safetensors"]
)
def test_apply_names_the_json_beside_another_format(run, name, tmp_path):
    (tmp_path / name).write_bytes(bytes(range(256)))
    out = tmp_path / "out.csv"
    code, _, err = run("apply", tmp_path / name, BINARY, "--out", out)
    assert code == 2
    assert "the calibrator.json of the same run" in " ".join(err.split())
    (tmp_path / "calibrator.json").write_text("{}")
    code, _, err = run("apply", tmp_path / name, BINARY, "--out", out)
    assert f"Give {tmp_path / 'calibrator.json'}" in " ".join(err.split())
    assert not out.exists()
