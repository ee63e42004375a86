"""Proximity-aware calibration: slow twins, edges, and files that read features."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import streamlit as st
from scipy.special import logit
from test_app_pages import page, settle, words

from app import cli
from core.analysis import analyze
from core.calibrators import Calibrator, ProximityAware, TemperatureScaling
from core.calibrators.proximity import FORMS, N_BINS, N_CELLS
from core.export import apply_calibrator, export, export_metadata, from_json, to_json
from core.export.onnx import to_onnx
from core.export.torch_module import to_torch
from core.fitting import unusable_reason
from core.messages import DataError
from core.predictions import Predictions, Study
from core.settings import Settings
from core.softmax import softmax

every_form = pytest.mark.parametrize("form", FORMS)


def draw(n=500, seed=0, k=4, d=3):
    """Rows that are the more overconfident the farther out their features lie."""
    rng = np.random.default_rng(seed)
    h = rng.standard_t(3, size=(n, d))
    z = 2.0 * rng.normal(size=(n, k))
    hard = 0.5 + 0.5 * np.linalg.norm(h, axis=1, keepdims=True)
    return 1.5 * z, (z / hard + rng.gumbel(size=z.shape)).argmax(axis=1), h


# ------------------------------------------------------------------- slow twins


def slow_distance(row, others, count):
    far = sorted(math.dist(row, other) for other in others)
    return sum(far[:count]) / count


def slow_bandwidth(values):
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    return max(1e-3, 1.06 * spread * len(values) ** (-1 / 6))


def slow_ratio(q, proximity, right, at):
    """Log-odds of being right at a place, from two sums of kernels."""
    rows = list(zip(proximity, q, strict=True))
    wide = [slow_bandwidth(values) for values in (proximity, q)]
    peak = 1 / (2 * math.pi * wide[0] * wide[1])
    sums = {}
    for outcome in (1, 0):
        mine = [row for row, c in zip(rows, right, strict=True) if c == outcome]
        own = [slow_bandwidth(column) for column in zip(*mine, strict=True)]
        sums[outcome] = sum(
            math.prod(
                math.exp(-(((a - b) / w) ** 2) / 2) / (w * math.sqrt(2 * math.pi))
                for a, b, w in zip(at, row, own, strict=True)
            )
            for row in mine
        )
    return math.log(sums[1] + peak * at[1]) - math.log(sums[0] + peak * (1 - at[1]))


def parts_of(z, y, h, t, scale, count):
    """Return confidence at T, proximity without the row itself, and right or not."""
    p = softmax(z / t)
    near = [
        math.exp(-slow_distance(row, np.delete(h, i, axis=0), count) / scale)
        for i, row in enumerate(h)
    ]
    return p.max(axis=1), near, (z.argmax(axis=1) == y).astype(int)


def test_the_table_is_the_ratio_of_slow_densities():
    z, y, h = draw(60)
    made = ProximityAware(n_neighbours=4).fit(z, y, features=h)
    assert made.temperature_ == TemperatureScaling().fit(z, y).temperature_
    far = [slow_distance(row, np.delete(h, i, 0), 4) for i, row in enumerate(h)]
    assert made.scale_ == pytest.approx(np.mean(far))
    parts = parts_of(z, y, h, made.temperature_, made.scale_, 4)
    table = made.table_
    assert table["values"].shape == (17, 33)
    for row, column in ((0, 0), (3, 30), (16, 32), (9, 12)):
        at = table["proximity"][row], table["confidence"][column]
        slow = slow_ratio(*parts, at)
        assert table["values"][row, column] == pytest.approx(slow, rel=1e-8)


def test_new_rows_get_the_bilinear_value_of_the_table():
    z, y, h = draw(200)
    made = ProximityAware().fit(z, y, features=h)
    new, _, far = draw(20, seed=1)
    found = made.predict_proba(new, features=far)
    table, before = made.table_, softmax(new / made.temperature_)
    for i in range(20):
        d = math.exp(-slow_distance(far[i], h, 10) / made.scale_)
        q = before[i].max()
        rows = [np.interp(q, table["confidence"], line) for line in table["values"]]
        odds = np.interp(d, table["proximity"], rows)
        second = np.sort(before[i])[-2]
        rest = (1 - q) / second  # of the others, relative to the runner-up
        lowest = logit(1 / (1 + rest * math.exp(-1e-6)))
        expected = 1 / (1 + math.exp(-max(odds, lowest)))
        assert found[i].max() == pytest.approx(expected, abs=1e-9)
        others = np.delete(found[i], found[i].argmax())
        ratio = others / np.delete(before[i], before[i].argmax())
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_cells_are_moved_by_their_mean_gap():
    z, y, h = draw(400)
    made = ProximityAware(form="bin-mean-shift").fit(z, y, features=h)
    q, near, right = parts_of(z, y, h, made.temperature_, made.scale_, 10)
    order = np.argsort(near)
    for number, rows in enumerate(np.array_split(order, N_BINS)):
        inner = rows[np.argsort(q[rows])]
        for cell, some in enumerate(np.array_split(inner, N_CELLS)):
            gap = np.mean(right[some] - q[some])
            assert made.table_["values"][number, cell] == pytest.approx(gap, abs=1e-12)
    assert made.table_["least"] == pytest.approx(1 / 402)


# --------------------------------------------------------------------- behaviour


@every_form
def test_it_knows_what_the_temperature_cannot(form):
    z, y, h = draw(3000)
    new, labels, far = draw(5000, seed=1)
    made = ProximityAware(form=form).fit(z, y, features=h)
    common = TemperatureScaling().fit(z, y)
    here = np.arange(labels.size)
    own, plain = (
        -log_p[here, labels].mean()
        for log_p in (made.transform(new, features=far), common.transform(new))
    )
    assert own < plain - 0.004
    assert (made.predict(new, features=far) == new.argmax(axis=1)).all()


@every_form
def test_degenerate_rows_and_features(form):
    z, y, h = draw(60)
    masked = np.where(np.arange(60)[:, None] % 7 == 0, [[0.0] + [-np.inf] * 3], z)
    for scores, labels, features in (
        (z, y, np.ones((60, 2))),
        (z, z.argmax(axis=1), h),
        (z, z.argmin(axis=1), h),
        (masked, np.where(np.arange(60) % 7, y, 0), h),
        (z[:1], y[:1], h[:1]),
        (z[:2], y[:2], h[:2]),
    ):
        made = ProximityAware(form=form).fit(scores, labels, features=features)
        found = made.predict_proba(scores, features=1e6 * features)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-9)
        assert (found.argmax(axis=1) == scores.argmax(axis=1)).all()
        again = Calibrator.from_dict(json.loads(json.dumps(made.to_dict())))
        same = again.predict_proba(scores, features=1e6 * features)
        np.testing.assert_array_equal(same, found)


def test_many_fit_rows_are_thinned_and_it_says_so():
    z, y, _ = draw(900)
    wide = np.random.default_rng(0).normal(size=(900, 400)).astype(np.float32)
    made = ProximityAware().fit(z, y, features=wide)
    assert made.reference_.shape == (500, 400)
    note = next(note for note in made.notes_ if note.code == "reference-rows")
    assert "500 of 900 fit rows" in note.text


def test_wrong_features_options_and_files_are_refused():
    z, y, h = draw(60)
    with pytest.raises(DataError, match="needs features"):
        ProximityAware().fit(z, y)
    with pytest.raises(DataError, match="finite"):
        ProximityAware().fit(z, y, features=np.where(h > 1, np.inf, h))
    for options in ({"form": "kde"}, {"n_neighbours": 0}):
        with pytest.raises(ValueError, match="form must be"):
            ProximityAware(**options).fit(z, y, features=h)
    made = ProximityAware().fit(z, y, features=h)
    with pytest.raises(DataError, match="2 features"):
        made.transform(z, features=h[:, :2])
    for wrong in (
        {"scale": 0.0},
        {"n_neighbours": 61},
        {"n_features": 2},
        {"form": "bin-mean-shift"},
        {"table": made.to_dict()["parameters"]["table"] | {"values": [[1.0]]}},
    ):
        values = made.to_dict()
        values["parameters"] = values["parameters"] | wrong
        with pytest.raises(DataError):
            Calibrator.from_dict(values)


# ------------------------------------------------------------------------- files


def study_of(n=240):
    z, y, h = draw(n)
    own = Predictions.from_arrays(z, y, features={"early": h[:, :1], "last": h})
    return Study(own)


@every_form
def test_files_that_carry_features_are_verified_and_others_say_why_not(form):
    options = (("proximity", "form", form),)
    settings = Settings(
        calibrators=("proximity",), method="proximity", options=options, n_resamples=100
    )
    found = analyze(study_of(), settings)
    for kind in ("json", "python"):
        proof = export(found, "proximity", kind).verification
        assert proof.ok, proof.problem
        assert proof.n_rows == 240
    for kind in ("onnx", "onnx32", "torch"):
        made = export(found, "proximity", kind)
        assert made.files == {}
        assert not made.verification.is_offered
        assert made.verification.sentence.startswith("It reads the features")
        assert made.verification.sentence.endswith("takes scores only.")
    fitted = found.fitted["proximity"].calibrator
    for write in (lambda: to_onnx(fitted, {}, "float64"), lambda: to_torch(fitted, {})):
        with pytest.raises(DataError, match="reads the features"):
            write()
    again, known = from_json(
        to_json(fitted, export_metadata(found, "proximity")).encode()
    )
    assert len(known["example_features"]) == 5
    new, _, h = draw(30, seed=5)
    table = apply_calibrator(again, known, Predictions.from_arrays(new, features=h))
    expected = fitted.predict_proba(new, features=h)
    np.testing.assert_allclose(table.filter(like="prob_"), expected, rtol=1e-12)
    with pytest.raises(DataError, match="needs features"):
        apply_calibrator(again, known, Predictions.from_arrays(new))


def test_without_features_it_is_greyed_and_says_why():
    z, y, h = draw(60)
    bare = Study(Predictions.from_arrays(z, y))
    assert unusable_reason(bare, "proximity") == "The file has no features."
    own = Predictions.from_arrays(z, y, features=h)
    assert unusable_reason(Study(own), "proximity") is None
    half = Study(own, fit=Predictions.from_arrays(z, y))
    assert unusable_reason(half, "proximity") == "The calibration file has no features."


def test_the_command_line_calibrates_and_applies(tmp_path, capsys):
    z, y, h = draw(240)
    np.savez(tmp_path / "own.npz", logits=z, labels=y, features=h)
    np.savez(tmp_path / "new.npz", logits=z[:9], features=h[:9])
    out = tmp_path / "out"
    out.mkdir()
    (out / "calibrator_torch.py").write_text("of an earlier run")
    command = ["calibrate", str(tmp_path / "own.npz"), "--method", "proximity"]
    formats = ["--formats", "json,python,torch", "--out", str(out)]
    assert cli.main([*command, *formats]) == 0
    assert "It reads the features" in " ".join(capsys.readouterr().out.split())
    assert not (out / "calibrator_torch.py").exists()
    target = tmp_path / "new.csv"
    files = [str(out / "calibrator.json"), str(tmp_path / "new.npz")]
    assert cli.main(["apply", *files, "--out", str(target)]) == 0
    made = from_json((out / "calibrator.json").read_text("utf-8"))[0]
    expected = made.predict_proba(z[:9], features=h[:9])
    found = np.loadtxt(target, delimiter=",", skiprows=1, usecols=range(2, 6))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_pages_offer_it_with_features_and_say_why_not_without(
    tmp_path, monkeypatch
):
    st.cache_data.clear()
    st.cache_resource.clear()
    z, y, h = draw(200)
    np.savez(tmp_path / "bare.npz", logits=z, labels=y)
    np.savez(tmp_path / "rows.npz", logits=z, labels=y, features=h)
    monkeypatch.setenv("PLUMBLINE_FILE", str(tmp_path / "bare.npz"))
    at = page("calibrators")
    assert at.checkbox(key="pick_proximity").disabled
    assert "The file has no features." in words(at)
    monkeypatch.setenv("PLUMBLINE_FILE", str(tmp_path / "rows.npz"))
    at = page("calibrators")
    assert not at.checkbox(key="pick_proximity").disabled
    at.session_state["_settings"] = at.session_state["_settings"].replace(
        calibrators=("proximity",), method="proximity", n_resamples=100
    )
    at.switch_page("views/export.py").run()
    settle(at)
    at.button(key="prepare").click().run()
    settle(at)
    assert not at.exception
    said = words(at)
    assert said.count("It reads the features of each row") == 3
    offered = [item.proto.help for item in at.get("download_button")]
    assert {"calibrator.py", "calibrator.json"} <= set(offered)
    assert not any(name.endswith((".onnx", ".zip")) for name in offered)
    code = "\n".join(item.value for item in at.code)
    assert 'np.load("logits.npy"), np.load("features.npy")' in code
