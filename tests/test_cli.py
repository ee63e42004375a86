"""The command line: every command, every exit code, the same numbers as the core."""

from __future__ import annotations

import functools
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from app import cli, cli_flags, cli_text
from components import tables
from core.analysis import analyze
from core.calibrators import CALIBRATORS
from core.export import verification
from core.findings import find
from core.loading import READING_FIELDS, read_study
from core.messages import Answer
from core.metrics import METRICS
from core.report import report_document
from core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "sample_data" / "digits_noisy.csv"
BINARY = ROOT / "sample_data" / "breast_cancer_binary.csv"
FEW = ("--n-resamples", "100")  # speed; the numbers are compared, not judged
# Libraries that no evaluation of a text file needs; the first two take a second.
SLOW = (
    *("sklearn", "scipy.stats", "scipy.optimize", "joblib", "onnx", "onnxruntime"),
    *("plotly", "streamlit", "pyarrow.parquet"),
)


# What pandas 3.0 does by default is off by some last bits.
read_exactly = functools.partial(pd.read_csv, engine="pyarrow")


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


def process(argv: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(item) for item in argv)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def watched() -> subprocess.CompletedProcess[str]:
    """Evaluate a sample with output in ASCII; standard error lists the imports."""
    return process(
        ["-X", "importtime", "-m", "app", "evaluate", DIGITS, *FEW],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )


def small_csv(path: Path, n: int = 60, **columns: Any) -> Path:
    """Write two columns of logits whose labels are right two times of three."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 2)) * 3
    labels = np.where(rng.random(n) < 0.67, logits.argmax(1), 1 - logits.argmax(1))
    frame = pd.DataFrame(
        {"label": np.array(["a", "b"])[labels], "logit_a": logits[:, 0]}
        | {"logit_b": logits[:, 1]}
        | columns
    )
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that `calibrate` wrote for the binary sample, both methods."""
    folder = tmp_path_factory.mktemp("calibrated") / "new" / "folder"
    methods = ("--method", "temperature", "--calibrators", "isotonic")
    argv = ["calibrate", str(BINARY), "--out", str(folder), *methods, *FEW]
    assert cli.main(argv) == 0
    return folder


class TestEvaluate:
    def test_json_is_what_core_says(self, run: Any) -> None:
        result = run("evaluate", DIGITS, "--json", *FEW)
        settings = Settings(n_resamples=100)
        study = read_study(DIGITS, settings)
        analysis = analyze(study, settings)
        found = find(study, settings, analysis.overview)
        expected = analysis.to_dict() | {"findings": found.to_dict()}
        assert result.code == 0
        assert result.err == ""
        assert result.json == json.loads(json.dumps(expected))

    def test_text_says_what_matters(self, run: Any) -> None:
        result = run("evaluate", DIGITS, *FEW)
        assert result.code == 0
        assert result.err == ""
        for part in (
            "2,394 rows, 10 classes, logits",
            "1,200 fit rows, 1,194 test rows, 0 rows left out",
            "Overconfident.",
            "Gap, points",
            "If calibrated",
            "95 % interval",
            "After Temperature scaling (temperature 2.1",
            "Dividing the logits by T = 2.10",
            "bootstrap of groups, 100 resamples, seed 0",
        ):
            assert part in " ".join(result.out.split()) or part in result.out
        assert max(map(len, result.out.splitlines())) <= cli_text.WIDTH
        assert "\033" not in result.out

    def test_numbers_look_as_on_the_page(self, run: Any) -> None:
        flags = ("--no-calibrators", *FEW)
        found = run("evaluate", BINARY, "--json", *flags).json["uncalibrated"]
        lines = run("evaluate", BINARY, *flags).out.splitlines()
        for name, item in found["top-label"].items():
            label = tables.metric_label(name, 2)
            line = next(line for line in lines if line.startswith(label + "  "))
            shown = tables.format_value(name, item["value"])
            assert line.split()[len(label.split())] == shown.replace("\u2212", "-")

    def test_two_classes_show_both_views(self, run: Any) -> None:
        result = run("evaluate", BINARY, "--no-calibrators", *FEW)
        assert "Top label: " in result.out
        assert "Positive class `malignant`: " in result.out
        assert "After" not in result.out

    def test_methods_can_be_named_in_three_ways(self, run: Any) -> None:
        # Aliases, repetition and a list; the numbers must not depend on the way.
        ways = (
            ("--method", "ts", "--method", "ir"),
            ("--calibrators", "temperature,isotonic"),
            ("--method", "temperature", "--calibrators", "isotonic"),
        )
        found = [run("evaluate", BINARY, "--json", *way, *FEW).json for way in ways]
        assert found[0] == found[1] == found[2]
        methods = {row["method"] for row in found[0]["calibrators"]}
        assert methods == {"uncalibrated", "temperature", "isotonic"}

    def test_rows_without_labels(self, run: Any, tmp_path: Path) -> None:
        file = small_csv(tmp_path / "rows.csv")
        pd.read_csv(file).drop(columns="label").to_csv(file, index=False)
        result = run("evaluate", file)
        assert result.code == 0
        assert "No labels, no verdict." in result.out

    def test_confidences_only(self, run: Any, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        rng = np.random.default_rng(1)
        frame = pd.DataFrame({"confidence": rng.uniform(0.5, 1, 300)})
        frame["correct"] = (rng.random(300) < frame["confidence"]).astype(int)
        frame.to_csv(file, index=False)
        result = run("evaluate", file, *FEW)
        assert result.code == 0
        assert "this calibrator needs the scores" in " ".join(result.out.split())

    def test_all_right_is_a_question_not_an_error(
        self, run: Any, tmp_path: Path
    ) -> None:
        file = small_csv(tmp_path / "rows.csv")
        frame = pd.read_csv(file)
        frame["label"] = np.where(frame["logit_a"] > frame["logit_b"], "a", "b")
        frame.to_csv(file, index=False)
        result = run("evaluate", file, *FEW)
        assert result.code == 0
        said = " ".join(result.out.split())
        assert "Were these rows used to train the model?" in said
        assert "T is at its bound 0.001: all fit rows are right" in said


class TestFlags:
    def test_every_field_has_a_flag(self) -> None:
        groups = cli_flags.flag_groups()
        plain = {name for names in groups.values() for name in names}
        own = {"calibrators", "baseline", "method", "options", "temperature"}
        own |= {"detectors", "detector"}
        assert plain | own == {item.name for item in fields(Settings)}
        assert groups["reading"] == READING_FIELDS

    def test_every_flag_has_help(self, run: Any) -> None:
        text = run("evaluate", "--help").out
        groups = cli_flags.flag_groups()
        assert groups.pop("detection")
        for names in groups.values():
            for name in names:
                assert f"--{name.replace('_', '-')} " in text
                assert name.endswith("_column") or cli_flags._descriptions()[name]

    def test_flags_become_settings(self) -> None:
        flags = [
            "--input-kind",
            "logits",
            "--label-column",
            "y",
            "--group-column=",
            "--split",
            "holdout",
            "--n-folds",
            "4",
            "--fit-fraction",
            "0.4",
            "--n-bins",
            "20",
            "--level",
            "0.9",
            "--seed",
            "7",
            "--norm",
            "l2",
            "--strategy",
            "quantile",
            "--score-columns",
        ]
        names = 'a,"b,c" '
        args = cli.build_parser().parse_args(
            ["evaluate", "rows.csv", *flags, names, "--slice-columns", ""]
        )
        assert cli_flags.chosen_settings(args) == Settings(
            input_kind="logits",
            label_column="y",
            group_column="",
            split="holdout",
            n_folds=4,
            fit_fraction=0.4,
            n_bins=20,
            level=0.9,
            seed=7,
            norm="l2",
            strategy="quantile",
            score_columns=("a", "b,c"),
            slice_columns=(),
        )

    @pytest.mark.parametrize(
        ("flags", "part"),
        [
            (("--n-bins", "0"), "n_bins must be a number from 1 to 1000, got 0"),
            (("--n-bins", "many"), "got 'many'"),
            (("--level", "nan"), "level"),
            (("--seed", "inf"), "seed"),
            (("--strategy", "equal"), "one of uniform, quantile"),
            (("--method", "platt-ish"), "no calibrator called 'platt-ish'"),
            (("--option", "temperature"), "METHOD.NAME=VALUE"),
            (("--option", "temperature.speed=9"), "speed"),
            (("--label-column", "nowhere"), "nowhere"),
        ],
    )
    def test_wrong_values_are_refused(
        self, run: Any, flags: tuple[str, ...], part: str
    ) -> None:
        result = run("evaluate", DIGITS, *flags)
        assert result.code == 2
        assert result.err.startswith("Error: ")
        assert part in " ".join(result.err.split())
        assert "How to fix: " in result.err

    @pytest.mark.parametrize(
        "argv",
        [(), ("evaluate",), ("sing",), ("evaluate", "a", "--n-bin", "3"), ("apply",)],
    )
    def test_wrong_commands_are_refused(self, run: Any, argv: tuple[str, ...]) -> None:
        result = run(*argv)
        assert result.code == 2
        assert "usage: python -m app" in result.err

    def test_answers_survive_a_shell(self) -> None:
        plain = Answer("Leave such rows out", "invalid_rows", "leave-out")
        assert cli_flags.answer_flag(plain) == plain.flag
        for value in ("", "two words", "-minus", "it's"):
            flag = cli_flags.answer_flag(Answer("", "label_column", value))
            words = subprocess.run(
                ["sh", "-c", f'printf "%s\\n" {flag}'],
                capture_output=True,
                check=True,
                text=True,
            )
            assert words.stdout == f"--label-column={value}\n"


class TestSession:
    def test_round_trip(self, run: Any, tmp_path: Path) -> None:
        session, again = tmp_path / "session.json", tmp_path / "again.json"
        flags = ("--n-bins", "8", "--seed", "3", "--label-column", "label", *FEW)
        first = run("evaluate", DIGITS, "--json", *flags, "--save-session", session)
        second = run(
            *("evaluate", DIGITS, "--json"),
            *("--session", session, "--save-session", again),
        )
        assert first.code == second.code == 0
        assert first.json == second.json
        assert session.read_text() == again.read_text()
        assert Settings.from_json(session.read_text()).n_bins == 8

    def test_flags_override_the_session(self, run: Any, tmp_path: Path) -> None:
        session = tmp_path / "session.json"
        settings = Settings(n_bins=8, n_resamples=100, calibrators=())
        session.write_text(settings.to_json())
        result = run("evaluate", DIGITS, "--json", "--session", session, "--n-bins", 9)
        assert result.json["settings"] == settings.replace(n_bins=9).to_dict()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            '{"format": "plumbline-session", "settings": {"n_bins": "many"}}',
            '{"format": "plumbline-session", "settings": {"n_bins": Infinity}}',
            '{"format": "plumbline-session", "settings": {"score_columns": 5}}',
            '{"format": "plumbline-session", "settings": {"calibrators": "ts"}}',
            '{"format": "plumbline-session", "settings": {"colour": "red"}}',
        ],
    )
    def test_bad_sessions_are_refused(
        self, run: Any, tmp_path: Path, text: str
    ) -> None:
        session = tmp_path / "session.json"
        session.write_text(text)
        result = run("evaluate", DIGITS, "--session", session)
        assert result.code == 2
        assert "session" in result.err

    def test_missing_and_binary_sessions_are_refused(
        self, run: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        for name in ("missing", "binary", ""):
            result = run("evaluate", DIGITS, "--session", tmp_path / name)
            assert result.code == 2
            assert str(tmp_path) in result.err


HEADER = "label,logit_a,logit_b\n"
ROWS = "a,1.5,0.5\nb,0.25,2\na,0.5,1\n" * 20


def damaged_npz() -> bytes:
    whole = (ROOT / "sample_data" / "digits_features.npz").read_bytes()
    return whole[: len(whole) // 2]


BAD = {
    # name: file, bytes, part of what, part of where, part of the fix
    "empty": ("rows.csv", b"", "empty", "rows.csv", "header"),
    "header only": ("rows.csv", HEADER.encode(), "no rows", "rows.csv", "one row"),
    "NaN": (
        "rows.csv",
        (HEADER + ROWS + "a,nan,1\n").encode(),
        "empty or NaN",
        "column logit_a, row 61",
        "--invalid-rows leave-out",
    ),
    "text": (
        "rows.csv",
        (HEADER + ROWS + "a,1,high\n").encode(),
        "'high' is not a number",
        "column logit_b, row 61",
        "--invalid-rows leave-out",
    ),
    "labels": (
        "rows.csv",
        (HEADER + ROWS + "z,1,2\n").encode(),
        "'z' is not one of the 2 classes",
        "column label, row 61",
        "class names",
    ),
    "duplicate columns": (
        "rows.csv",
        (HEADER.replace("_b", "_a") + ROWS).encode(),
        "Two columns are called 'logit_a'",
        "rows.csv",
        "a name of its own",
    ),
    "truncated": ("rows.npz", damaged_npz(), "damaged", "rows.npz", "again"),
    "pickle": (
        "rows.pkl",
        pickle.dumps({"logits": [1.0]}),
        "was not opened",
        "rows.pkl",
        "np.savez",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    @pytest.mark.parametrize("command", ["evaluate", "check"])
    def test_refused_with_what_where_and_fix(
        self, run: Any, tmp_path: Path, name: str, command: str
    ) -> None:
        file, content, what, where, fix = BAD[name]
        (tmp_path / file).write_bytes(content)
        result = run(command, tmp_path / file)
        assert result.code == 2
        said, _, rest = " ".join(result.err.split()).partition(" Where: ")
        place, _, advice = rest.partition(" How to fix: ")
        assert said.startswith("Error: ")
        assert what in said
        assert where in place
        assert fix in advice

    def test_torch_files_are_not_opened(self, run: Any, tmp_path: Path) -> None:
        file = tmp_path / "model.pt"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", b"cposix\nsystem\n(S'exit'\ntR.")
        result = run("evaluate", file)
        assert result.code == 2
        assert "weights_only=True" in result.err

    def test_one_class_loads_with_a_note(self, run: Any, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        file.write_text(HEADER + ROWS.replace("b,", "a,"))
        result = run("evaluate", file, *FEW)
        assert result.code == 0
        assert result.out.count("Every label is") == 1
        assert "No temperature fits these rows" in result.out

    def test_an_answer_lets_the_file_in(self, run: Any, tmp_path: Path) -> None:
        file, content, *_ = BAD["text"]
        (tmp_path / file).write_bytes(content)
        answer = ("--invalid-rows", "leave-out")
        result = run("evaluate", tmp_path / file, *answer, *FEW)
        assert result.code == 0
        assert "1 row left out" in " ".join(result.out.split())
        assert "1 row" in run("check", tmp_path / file, *answer).out

    def test_json_carries_the_error_too(self, run: Any, tmp_path: Path) -> None:
        file, content, *_ = BAD["text"]
        (tmp_path / file).write_bytes(content)
        result = run("evaluate", tmp_path / file, "--json")
        assert result.code == 2
        assert result.json["error"]["flags"] == ["--invalid-rows leave-out"]
        assert "'high'" in result.err

    def test_missing_files_and_folders(self, run: Any, tmp_path: Path) -> None:
        for path in (tmp_path / "missing.csv", tmp_path):
            result = run("evaluate", path)
            assert result.code == 2
            assert str(path.name) in result.err

    def test_codes_of_a_process(self, tmp_path: Path) -> None:
        result = process(["-m", "app", "evaluate", tmp_path / "missing.csv"])
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: There is no such file.")


class TestCalibrate:
    def test_files(self, calibrated: Path) -> None:
        names = {path.name for path in calibrated.iterdir()}
        assert names == {
            "calibrator.json",
            "calibrator.py",
            "calibrated.csv",
            "report.json",
        }

    def test_report(self, calibrated: Path) -> None:
        report = json.loads((calibrated / "report.json").read_text())
        settings = Settings(
            n_resamples=100, calibrators=("temperature", "isotonic"), n_bins=15
        )
        analysis = analyze(read_study(BINARY, settings), settings)
        expected = report_document(analysis, "temperature")
        checked = report.pop("verification")
        assert report.pop("exported") == "temperature"
        assert set(report.pop("files")) == {p.name for p in calibrated.iterdir()}
        assert report == json.loads(json.dumps(expected))
        assert set(checked) == {p.name for p in calibrated.iterdir()} - {"report.json"}
        for item in checked.values():
            assert item["ok"]
            assert item["max_difference"] <= 1e-12
            assert item["n_rows"] == 449

    def test_python_file_alone_equals_the_rows(
        self, calibrated: Path, tmp_path: Path
    ) -> None:
        given = read_exactly(BINARY)["prob_malignant"].to_numpy()
        np.save(tmp_path / "in.npy", given)
        program = (calibrated / "calibrator.py").resolve()
        done = subprocess.run(
            [sys.executable, "-I", program, "in.npy", "out.npy"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        rows = read_exactly(calibrated / "calibrated.csv")
        shown = rows[["prob_not malignant", "prob_malignant"]].to_numpy()
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), shown, atol=1e-12)
        assert set(rows["flag"]) == {"in-sample", "test"}

    def test_text(self, run: Any, tmp_path: Path) -> None:
        file = small_csv(tmp_path / "rows.csv")
        result = run("calibrate", file, "--out", tmp_path / "out", *FEW)
        assert result.code == 0
        for part in ("Ranking", "Change", "Written to", "largest difference is"):
            assert part in " ".join(result.out.split())

    def test_json_is_the_report(self, run: Any, tmp_path: Path) -> None:
        file = small_csv(tmp_path / "rows.csv")
        result = run("calibrate", file, "--out", tmp_path / "out", "--json", *FEW)
        assert result.json == json.loads((tmp_path / "out/report.json").read_text())

    def test_failed_verification_leaves_no_file(
        self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = verification.to_python

        def spoiled(*args: Any) -> str:
            return wrong(*args).replace("TEMPERATURE = ", "TEMPERATURE = 2 * ")

        monkeypatch.setattr(verification, "to_python", spoiled)
        file = small_csv(tmp_path / "rows.csv")
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "calibrator.py").write_text("# of an earlier run")
        result = run("calibrate", file, "--out", folder, *FEW)
        assert result.code == 1
        assert "calibrator.py was not written" in result.err
        names = {path.name for path in folder.iterdir()}
        assert names == {"calibrator.json", "calibrated.csv", "report.json"}
        report = json.loads((folder / "report.json").read_text())
        assert not report["verification"]["calibrator.py"]["ok"]
        assert "calibrator.py" not in report["files"]

    def test_nothing_to_fit_on(self, run: Any, tmp_path: Path) -> None:
        file = small_csv(tmp_path / "rows.csv")
        out = tmp_path / "out"
        result = run("calibrate", file, "--label-column", "", "--out", out)
        assert result.code == 2
        assert "No row has a label" in result.err
        assert not out.exists()

    def test_places_that_cannot_be_written(self, run: Any, tmp_path: Path) -> None:
        file = small_csv(tmp_path / "calibrated.csv")
        for out in (file, tmp_path):
            result = run("calibrate", file, "--out", out)
            assert result.code == 2
            assert "flag --out" in result.err


class TestApply:
    def test_unlabelled_rows(self, run: Any, calibrated: Path, tmp_path: Path) -> None:
        rows = read_exactly(BINARY)
        rows[["id", "prob_malignant"]].to_csv(tmp_path / "new.csv", index=False)
        out = tmp_path / "deeper" / "out.csv"
        source = calibrated / "calibrator.json"
        result = run("apply", source, tmp_path / "new.csv", "--out", out)
        assert result.code == 0
        assert "449 rows" in result.out
        found = read_exactly(out)
        expected = read_exactly(calibrated / "calibrated.csv")
        assert found["id"].tolist() == rows["id"].tolist()
        np.testing.assert_allclose(
            found["prob_malignant"], expected["prob_malignant"], atol=1e-12
        )

    def test_json(self, run: Any, calibrated: Path, tmp_path: Path) -> None:
        source = calibrated / "calibrator.json"
        out = tmp_path / "out.csv"
        result = run("apply", source, BINARY, "--out", out, "--json")
        assert result.json["n_rows"] == 449
        assert result.json["method"] == "temperature"
        assert result.json["file"] == str(out)

    def test_refusals(self, run: Any, calibrated: Path, tmp_path: Path) -> None:
        source = calibrated / "calibrator.json"
        new, out = tmp_path / "new.csv", tmp_path / "out.csv"
        new.write_bytes(BINARY.read_bytes())
        for argv, part in (
            ((BINARY, new, "--out", out), "not a calibrator"),
            ((tmp_path / "missing.json", new, "--out", out), "missing.json"),
            ((source, DIGITS, "--out", out), "10 classes"),
            ((source, new, "--out", new), "written over"),
            ((source, new, "--out", tmp_path), "is a folder"),
            ((source, tmp_path / "missing.csv", "--out", out), "no such file"),
        ):
            result = run("apply", *argv)
            assert result.code == 2
            assert part in " ".join(result.err.split())
        assert not out.exists()
        assert new.read_bytes() == BINARY.read_bytes()


class TestOtherCommands:
    def test_check(self, run: Any) -> None:
        result = run("check", DIGITS)
        assert result.code == 0
        assert result == run("inspect", DIGITS)
        lines = [line.split() for line in result.out.splitlines() if line]
        assert ["label", "label"] in [line[:2] for line in lines]
        assert ["logit_zero", "score"] in [line[:2] for line in lines]

    def test_check_json(self, run: Any) -> None:
        found = run("check", DIGITS, "--json").json
        roles = {item["name"]: item["role"] for item in found["columns"]}
        assert roles["group"] == "group"
        assert found["n_left_out"] == 0
        assert found["classes"][3] == "three"

    def test_check_folds_many_scores(self, run: Any, tmp_path: Path) -> None:
        file = tmp_path / "wide.csv"
        names = [f"logit_{i}" for i in range(100)]
        pd.DataFrame(np.ones((3, 100)), columns=names).to_csv(file, index=False)
        assert "and 97 more columns of scores" in run("check", file).out

    def test_methods(self, run: Any) -> None:
        text = run("methods").out
        found = run("methods", "--json").json
        assert [item["id"] for item in found["calibrators"]] == list(CALIBRATORS)
        assert [item["id"] for item in found["metrics"]] == list(METRICS)
        for item in (*found["calibrators"], *found["metrics"]):
            assert f"  {item['id']} " in text
            assert item["label"] in text
            assert item["summary"]

    def test_warm_up(self, run: Any) -> None:
        assert run("warm-up").out.startswith("The kernels are ready after ")
        assert run("warm-up", "--json").json["seconds"] >= 0

    def test_help_imports_nothing_heavy(self) -> None:
        code = (
            "import sys\nfrom app import cli\ncli.main(['--help'])\n"
            "heavy = {'numpy', 'pandas', 'numba', 'scipy', 'sklearn', 'pyarrow', "
            "'streamlit', 'plotly'}\nprint(sorted(heavy & set(sys.modules)))"
        )
        result = process(["-c", code])
        assert result.returncode == 0
        assert result.stdout.splitlines()[-1] == "[]"


class TestTerminal:
    def test_interrupt(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("core.loading.open_study", stop)
        result = run("evaluate", DIGITS)
        assert result.code == 130
        assert result.out == ""

    def test_a_reader_that_goes_away(self) -> None:
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "app", "methods"],
            cwd=ROOT,
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
        os.close(write)
        assert done.returncode == 141
        assert done.stderr == ""

    def test_output_that_lacks_characters(self, watched: Any) -> None:
        assert watched.returncode == 0
        assert "Overconfident." in watched.stdout

    def test_what_is_slow_to_import_waits_until_it_is_needed(
        self, watched: Any
    ) -> None:
        names = {line.rpartition("|")[2].strip() for line in watched.stderr.split("\n")}
        assert {"numba", "pandas", "core.analysis", "core.findings"} <= names
        for slow in SLOW:
            found = sorted(n for n in names if n == slow or n.startswith(f"{slow}."))
            assert not found, f"{found[0]} is imported by an evaluation"

    def test_names_from_files_cannot_steer_it(self, run: Any, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        text = HEADER.replace("_a", "_a\033[2J") + ROWS.replace("a,", "a\033[2J,")
        file.write_text(text)
        for command in ("evaluate", "check"):
            result = run(command, file, "--label-column", "label")
            assert result.code == 0
            assert "\033" not in result.out + result.err
        file.write_text(text.replace("b,", "\033[2J,", 1))
        assert "\033" not in run("evaluate", file).err

    def test_a_bar_on_terminals_only(
        self, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        argv = ("evaluate", DIGITS, "--no-calibrators", *FEW)
        assert run(*argv).err == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        shown = run(*argv).err
        assert "%" in shown
        assert shown.endswith("\r")
