"""Transformed copies: from files, matched to their rows, through study and commands."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from app import cli
from core.analysis import analyze
from core.calibrators import CALIBRATORS
from core.companions import companions_of, copies_problem
from core.export import annotate, apply_calibrator, export, export_metadata
from core.fitting import unusable_reason
from core.loading import add_copies, open_study, read_copies
from core.messages import DataError
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings

QUICK = (("correctness-aware", "restarts", 1),)


def draw(n=240, k=4, seed=0):
    rng = np.random.default_rng(seed)
    z = 2.0 * rng.normal(size=(n, k))
    hard = rng.gamma(1.0, size=(n, 1)) * 2
    y = (z / (0.3 + hard) + rng.gumbel(size=(n, k))).argmax(axis=1)
    return 3 * z, y, 3 * (z + hard * rng.normal(size=(2, n, k)))


@pytest.fixture
def files(tmp_path):
    z, y, copies = draw()
    ids = np.array([f"r{i:03d}" for i in range(len(y))])
    np.savez(tmp_path / "rows.npz", logits=z, labels=y, id=ids)
    turn = np.random.default_rng(1).permutation(len(y))
    np.savez(tmp_path / "rot.npz", logits=copies[0][turn], id=ids[turn])
    table = pd.DataFrame(copies[1], columns=[f"logit_{i}" for i in range(4)])
    table.assign(id=ids).to_csv(tmp_path / "noise.csv", index=False)
    np.savez(tmp_path / "both.npz", logits=z, labels=y, copies=copies)
    return tmp_path


def arrays_of(study):
    beside = companions_of(study, study.evaluation, CALIBRATORS["correctness-aware"])
    return beside.take(slice(None))["copies"]


def test_files_match_by_id_and_one_file_may_hold_all(files):
    _, _, copies = draw()
    settings = Settings()
    study, _ = open_study(files / "rows.npz", settings)
    before = study.identity
    study = add_copies(study, [files / "rot.npz", files / "noise.csv"], settings)
    assert len(study.copies) == 2
    assert study.identity != before
    np.testing.assert_allclose(arrays_of(study), copies)
    both, _ = open_study(files / "both.npz", settings)
    np.testing.assert_allclose(arrays_of(both), copies)
    assert "copies-beside" in [note.code for note in both.evaluation.notes]
    assert copies_problem(both) is None


def test_copies_that_do_not_match_are_refused(files, tmp_path):
    settings = Settings()
    study, _ = open_study(files / "rows.npz", settings)
    bad = {
        "short": {"logits": np.zeros((9, 4))},
        "classes": {"logits": np.zeros((240, 3))},
        "nothing": {"labels": np.zeros(240, dtype=int)},
    }
    for name, arrays in bad.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(DataError):
            add_copies(study, [tmp_path / f"{name}.npz"], settings)
    with pytest.raises(DataError, match="no calibration file"):
        add_copies(study, [files / "rot.npz"], settings, role="fit")


def test_rows_that_were_left_out_are_left_out_of_copies_too(tmp_path):
    z, y, copies = draw()
    z[7, 1] = np.nan
    np.savez(tmp_path / "rows.npz", logits=z, labels=y, logits_rot=copies[0])
    settings = Settings(invalid_rows="leave-out")
    study, _ = open_study(tmp_path / "rows.npz", settings)
    assert len(study.evaluation) == len(y) - 1
    np.testing.assert_allclose(arrays_of(study)[0], np.delete(copies[0], 7, axis=0))


def test_a_calibration_file_needs_copies_of_its_own():
    z, y, copies = draw()
    rows = Predictions.from_arrays(z, y)
    fit = Predictions.from_arrays(z[:100], y[:100])
    made = tuple(Predictions.from_arrays(copy) for copy in copies)
    of_fit = tuple(Predictions.from_arrays(copy[:100]) for copy in copies)
    name = "correctness-aware-released"
    assert "No transformed copies" in unusable_reason(Study(rows), name)
    half = Study(rows, fit=fit, copies=made)
    assert "calibration rows" in unusable_reason(half, name)
    uneven = Study(rows, fit=fit, copies=made, fit_copies=of_fit[:1])
    assert "2 copies" in unusable_reason(uneven, name)
    whole = Study(rows, fit=fit, copies=made, fit_copies=of_fit)
    assert unusable_reason(whole, name) is None
    # Those that can do without fall back, on both sides.
    found = analyze(
        half, Settings(calibrators=("correctness-aware",), options=QUICK)
    ).fitted["correctness-aware"]
    assert found.calibrator.n_copies_ == 0
    assert "without-copies" in [note.code for note in found.notes]


def test_every_row_and_every_export_gets_its_copies():
    z, y, copies = draw(400)
    own = Predictions.from_arrays(z, y, classes=("a", "b", "c", "d"), name="rows")
    made = tuple(Predictions.from_arrays(copy, classes=own.classes) for copy in copies)
    study = Study(own, copies=made)
    settings = Settings(
        calibrators=("correctness-aware",), options=QUICK, n_resamples=100
    )
    found = analyze(study, settings)
    fitted = found.fitted["correctness-aware"].calibrator
    assert fitted.n_copies_ == 2
    frame = annotate(found, "correctness-aware")
    assert frame.filter(like="prob_").to_numpy().sum() == pytest.approx(400)
    artefact = export(found, "correctness-aware", "json")
    assert artefact.verification.ok, artefact.verification.problem
    metadata = export_metadata(found, "correctness-aware")
    assert np.shape(metadata["example_copies"])[0] == 2
    turned = own.take(np.arange(50))
    part = [item.take(np.arange(50)) for item in made]
    applied = apply_calibrator(fitted, metadata, turned, part)
    expected = fitted.predict_proba(z[:50], copies=copies[:, :50])
    shown = applied.filter(like="prob_").to_numpy()
    np.testing.assert_allclose(shown, expected, rtol=1e-12)
    order = ("d", "c", "b", "a")
    others = [
        Predictions.from_arrays(copy[:50, ::-1], classes=order) for copy in copies
    ]
    again = apply_calibrator(fitted, metadata, turned, others)
    np.testing.assert_allclose(again.filter(like="prob_").to_numpy(), expected)
    with pytest.raises(DataError, match="fitted with 2 transformed copies"):
        apply_calibrator(fitted, metadata, turned, part[:1])


def test_commands_take_copies(files, capsys):
    out = files / "out"
    flags = ["--method", "correctness-aware", "--split", "holdout", "--json"]
    flags += ["--option", "correctness-aware.restarts=1", "--n-resamples", "100"]
    rows, copies = str(files / "rows.npz"), [str(files / "rot.npz")]
    copies.append(str(files / "noise.csv"))
    code = cli.main(["calibrate", rows, "--out", str(out), *flags, "--copies", *copies])
    assert code == 0
    document = json.loads((out / "calibrator.json").read_text())
    assert document["n_copies"] == 2
    capsys.readouterr()
    target = str(files / "new.csv")
    apply = ["apply", str(out / "calibrator.json"), rows, "--out", target]
    assert cli.main([*apply, "--copies", *copies]) == 0
    assert cli.main(apply) == 2
    assert "2 transformed copies" in capsys.readouterr().err
    both = ["apply", apply[1], str(files / "both.npz"), "--out", target]
    assert cli.main(both) == 0
    lost = cli.main(["evaluate", rows, "--copies", str(files / "no.npz")])
    assert lost == 2


def test_names_of_the_same_file():
    z, _, copies = draw(20)
    own = Predictions.from_arrays(
        z, metadata=pd.DataFrame({"id": range(20)}), roles=ColumnRoles(id="id")
    )
    assert read_copies(own, [], Settings()) == ()
    with pytest.raises(DataError, match="scores of every class"):
        read_copies(
            Predictions.from_arrays(
                input_kind="confidence",
                confidence=np.full(3, 0.5),
                correct=np.ones(3, bool),
            ),
            [b""],
            Settings(),
        )
    assert copies.shape == (2, 20, 4)
