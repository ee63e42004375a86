"""The page of out-of-distribution detection, driven without a browser."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import streamlit as st
from strange_files import REFERENCE, STRANGE, packed, parts
from streamlit.testing.v1 import AppTest
from test_app import widget, words
from test_app_downloads import check, offered

import core.ood
from core.loading import add_reference, open_study
from core.ood import DETECTORS, default_panel, detect, in_turn
from core.settings import Settings

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
__all__ = ["offered"]  # a fixture of the other module
QUICK = Settings(n_resamples=100)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def page(path: Path | None = None, monkeypatch=None, **chosen) -> AppTest:
    """Open the page, on a file of this machine where one is given."""
    if path is not None:
        monkeypatch.setenv("PLUMBLINE_FILE", str(path))
    at = AppTest.from_file(MAIN, default_timeout=60).run()
    at.session_state["_settings"] = QUICK.replace(**chosen)
    at.switch_page("views/ood.py").run()
    return done(at)


def done(at: AppTest, seconds: float = 180) -> AppTest:
    """Run until no job is under way; seldom, for a page with figures takes a while."""
    end = time.monotonic() + seconds
    while any(b.key and b.key.startswith("cancel-") for b in at.button):
        assert time.monotonic() < end, "a job does not end"
        time.sleep(0.5)
        at.run()
    assert not at.exception
    return at


def strangers(**chosen) -> AppTest:
    """Return the page with the bundled sets."""
    at = page(**chosen)
    at.button(key="use_sample_ood").click().run()
    return done(at)


def give(at: AppTest, role: str, *files: tuple[str, bytes]) -> AppTest:
    """Put files into the uploader of a role."""
    box = widget(at.file_uploader, f"upload_{role}")
    if role == "head":
        box.upload(*files[0])
    else:
        box.set_value([(*file, "application/octet-stream") for file in files])
    at.run()
    return done(at)


def table_with(at: AppTest, column: str):
    return next(item.value for item in at.table if column in item.value.columns)


def test_without_sets_it_says_what_to_do_and_sets_a_threshold() -> None:
    at = page()
    said = words(at)
    assert "No out-of-distribution set yet" in said
    assert "not fit the score" in said
    assert "did not" in said
    assert "What each score catches" not in said
    (frame,) = [item.value for item in at.table]
    assert list(frame["Set"]) == ["In-distribution test rows"]
    for name in default_panel():
        box = at.checkbox(key=f"ood_pick_{name}")
        assert box.disabled == bool(DETECTORS[name].requires & {"features", "head"})
    assert "has no features" in said


def test_the_sample_is_one_click_and_its_numbers_are_those_of_the_core() -> None:
    at = strangers()
    settings = at.session_state["_settings"]
    study = add_reference(open_study(STRANGE, settings)[0], REFERENCE, settings)
    found = detect(study, settings)
    assert set(found.results) == set(default_panel())
    frame = table_with(at, "near\\_held\\_out (227)")
    assert len(frame) == len(found.results)
    for _, line in frame.iterrows():
        label = line["Score"].split("**")[1]
        name = next(n for n in found.results if DETECTORS[n].label == label)
        own = found.results[name].evaluation
        area = own.sets["near_held_out"].auroc
        assert f"{area.value:.3f}" in line["near\\_held\\_out (227)"]
        span = f"{area.low:.3f}\u00a0to\u00a0{area.high:.3f}"
        assert span in line["near\\_held\\_out (227)"]
        assert f"{own.means['far']['auroc'].value:.3f}" in line["Mean Far (4)"]
    said = words(at)
    assert "473 reference rows" in said
    assert "under 0.5" in said
    assert "Sample" in said
    assert all(chart.proto.alt for chart in at.get("plotly_chart"))


def test_files_of_their_own_play_their_roles(tmp_path, monkeypatch) -> None:
    found = parts()
    path = tmp_path / "digits.npz"
    path.write_bytes(found["digits"])
    at = page(path, monkeypatch)
    assert at.checkbox(key="ood_pick_vim").disabled
    give(at, "head", ("head.npz", found["head"]))
    assert not at.checkbox(key="ood_pick_vim").disabled
    give(at, "reference", ("train.npz", REFERENCE.read_bytes()))
    assert "473 reference rows (train.npz)" in words(at)
    give(
        at, "ood", ("near_a.npz", found["near_held_out"]), ("b.npz", found["far_noise"])
    )
    assert "near_a 227, b 227" in words(at)
    study = at.session_state["_study"]
    assert list(study.ood) == ["near_a", "b"]
    assert study.head is not None
    frame = table_with(at, "b (227)")
    assert "Mean Near (1)" in frame.columns
    assert len(frame) == len(default_panel())
    near = widget(at.multiselect, "ood_near_sets")
    assert near.value == ["near_a"]
    near.set_value(["near_a", "b"]).run()
    done(at)
    assert "Mean Near (2)" in table_with(at, "b (227)").columns
    number = at.session_state["_source"].ood[0].number
    at.button(key=f"drop_ood_{number}").click().run()
    done(at)
    assert list(at.session_state["_study"].ood) == ["b"]
    assert at.session_state["_study"].reference is not None


def test_a_threshold_moves_without_new_scores(monkeypatch) -> None:
    at = strangers(detectors=("energy", "max-softmax"))

    def never(*_, **__):
        pytest.fail("computed again")

    monkeypatch.setattr(in_turn, "results_of", never)
    widget(at.number_input, "ood_threshold_target").set_value(0.8).run()
    done(at)
    assert at.session_state["_settings"].threshold_target == 0.8
    assert "**80.2%** of new in-distribution rows" in words(at)
    widget(at.selectbox, "ood_detector").set_value("energy").run()
    done(at)
    assert at.session_state["_settings"].detector == "energy"
    at.button(key="undo").click().run()
    done(at)
    assert at.session_state["_settings"].detector == "max-softmax"


def test_a_cost_sets_rows_aside(monkeypatch) -> None:
    at = strangers(detectors=("energy",))

    def never(*_, **__):
        pytest.fail("in-distribution rows are copied again")

    monkeypatch.setattr(core.ood, "divide_inside", never)
    widget(at.segmented_control, "ood_rule").set_value("cost").run()
    done(at)
    said = words(at)
    assert "OOD rows set aside to tune on" in said
    assert "20% of each OOD set are set aside" in said
    assert "optimistic" in said
    widget(at.segmented_control, "ood_rule").set_value("fpr").run()
    done(at)
    assert at.session_state["_settings"].threshold_target == 0.05


def test_only_what_is_new_is_computed(monkeypatch) -> None:
    at, asked = strangers(detectors=("max-softmax",)), []
    computed = in_turn.results_of

    def spy(rows, settings, methods, skipped, progress):
        asked.extend(methods)
        return computed(rows, settings, methods, skipped, progress)

    monkeypatch.setattr(in_turn, "results_of", spy)
    at.checkbox(key="ood_pick_entropy").set_value(True)
    at.checkbox(key="ood_pick_energy").set_value(True)
    at.button(key="ood_compute").click().run()
    done(at)
    assert set(at.session_state["_settings"].detectors) == {
        *("max-softmax", "entropy", "energy")
    }
    assert asked == ["energy", "entropy"]
    assert len(table_with(at, "Mean All (6)")) == 3
    at.session_state["ood_numbers"] = "Differences"
    at.run()
    done(at)
    tests = table_with(at, "near\\_held\\_out")
    assert set(tests["Score"]) == {"**Energy**", "**Entropy**"}
    assert all("p " in cell for cell in tests.iloc[:, 1])
    at.session_state["ood_numbers"] = "Every number"
    at.run()
    assert "FPR95, OOD positive" in table_with(at, "AUPR-out").columns
    at.button(key="ood_default").click().run()
    done(at)
    assert at.session_state["_settings"].detectors == ()


def test_scores_come_one_by_one_and_stay_when_cancelled(monkeypatch) -> None:
    go, computed = threading.Event(), in_turn.results_of

    def slow(rows, settings, methods, skipped, progress):
        if "max-softmax" not in methods:
            while not go.wait(0.02):
                progress(0.5, "Waiting")
        return computed(rows, settings, methods, skipped, progress)

    monkeypatch.setattr(in_turn, "results_of", slow)
    at = page(detectors=("max-softmax", "knn"))
    at.button(key="use_sample_ood").click().run()
    for _ in range(100):
        if len(at.table):
            break
        at.run()
    assert not at.exception
    assert len(table_with(at, "Mean All (6)")) == 1
    (bar,) = at.get("progress")
    assert "nearest neighbours" in bar.proto.text
    at.button(key="cancel-ood").click().run()
    at.run()
    done(at)
    assert "was stopped" in words(at)
    assert len(table_with(at, "Mean All (6)")) == 1
    go.set()
    at.button(key="again-ood").click().run()
    done(at)
    assert len(table_with(at, "Mean All (6)")) == 2


def rows_of(n: int, width: int = 12, *, labels: bool = True, seed: int = 0) -> bytes:
    """Return a file of rows of three classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 3 * np.eye(3)[label]
    more = {"labels": label} if labels else {}
    return packed(logits=logits, features=np.abs(rng.normal(size=(n, width))), **more)


BAD = {
    "a set of one row": ({"ood": rows_of(1, labels=False)}, "The set has one row"),
    "features of another width": (
        {"ood": rows_of(50, 9, labels=False)},
        "has 9 features, the detector was fitted on 12",
    ),
    "features that are not numbers": (
        {"ood": packed(logits=np.ones((3, 3)), features=np.full((3, 12), np.nan))},
        "not finite",
    ),
    "logits of other classes": (
        {"ood": packed(logits=np.ones((9, 5)), features=np.ones((9, 12)))},
        "classes",
    ),
    "fewer reference rows than features": ({"reference": rows_of(8)}, "rank"),
    "a last layer of another network": (
        {"head": packed(weight=np.ones((3, 7)), bias=np.ones(3))},
        "The last layer takes 7 features",
    ),
    "no weights": ({"head": packed(bias=np.ones(3))}, "No weights of a last layer"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_said(case: str, tmp_path, monkeypatch) -> None:
    files, expected = BAD[case]
    path = tmp_path / "mine.npz"
    path.write_bytes(rows_of(240))
    chosen = ("max-softmax", "mahalanobis", "knn")
    at = page(path, monkeypatch, detectors=chosen, detector="mahalanobis")
    for role, content in files.items():
        give(at, role, (f"{role}.npz", content))
    boxes = [f"{box.proto.title} {box.value}" for box in at.error]
    assert expected in " ".join([words(at), *boxes]).replace("\\", "")
    assert any("Score" in item.value or "Set" in item.value for item in at.table)


def test_features_alone_will_do(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "mine.npz"
    labels = rng.integers(0, 3, 240)
    centres = 3 * np.eye(3, 12)
    features = centres[labels] + rng.normal(size=(240, 12))
    path.write_bytes(packed(features=features, labels=labels))
    at = page(path, monkeypatch, detectors=("energy", "mahalanobis", "knn"))
    give(at, "ood", ("far.npz", packed(features=rng.normal(size=(50, 12)))))
    assert "features alone" in words(at)
    assert at.checkbox(key="ood_pick_energy").disabled
    assert "mine.npz has no scores of every class" in words(at)
    assert len(table_with(at, "far (50)")) == 2
    for view in ("overview", "export", "data"):
        at.switch_page(f"views/{view}.py").run()
        assert not at.exception
        is_told = "There is no confidence to measure" in words(at)
        assert is_told == (view != "data")
    assert "the features do for Out-of-distribution" in words(at)


def test_confidences_have_the_baseline_and_nothing_to_write(
    tmp_path, monkeypatch
) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "mine.csv"
    sure = rng.uniform(0.5, 1, 240)
    lines = [f"{c:.4f},{int(rng.random() < c)}" for c in sure]
    path.write_text("\n".join(["confidence,correct", *lines]))
    at = page(path, monkeypatch)
    lower = "\n".join(["confidence", *(f"{c:.4f}" for c in 0.6 * sure)])
    give(at, "ood", ("far.csv", lower.encode()))
    assert len(table_with(at, "far (240)")) == 1
    assert at.button(key="ood_prepare").disabled
    assert "one confidence per row; an export needs" in words(at)


def test_a_detector_is_taken_home_with_its_threshold(offered) -> None:
    at = strangers(detectors=("energy", "max-softmax"), detector="energy")
    assert check(at, offered) == 9
    widget(at.number_input, "ood_threshold_target").set_value(0.9).run()
    at.button(key="ood_prepare").click().run()
    done(at)
    said = words(at)
    assert said.count("0 decisions changed") == 4
    for file in ("detector.py", "detector.json", "detector_float32.onnx"):
        assert offered[f"energy_{file}"]
    text = offered["digits_ood-energy-rows.csv"]()
    frame = pd.read_csv(io.BytesIO(text))
    assert set(frame["set"]) >= {"in-distribution", "far_noise"}
    assert len(frame) == 486 + 6 * 227
    known = frame[frame["set"] == "in-distribution"]
    assert known["accepted"].mean() == pytest.approx(0.9, abs=0.05)
    model = onnxruntime.InferenceSession(offered["energy_detector.onnx"])
    with np.load(STRANGE, allow_pickle=False) as archive:
        logits = archive["logits"].astype(np.float64)
    score, accepted = model.run(None, {"logits": logits})
    mine = score[frame.loc[known.index, "row"] - 1]
    np.testing.assert_allclose(mine, known["ood_score"], rtol=1e-6)
    assert (accepted[frame.loc[known.index, "row"] - 1] == known["accepted"]).all()


def test_scores_of_another_library_are_measured() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([3, -1], 200)
    frame = pd.DataFrame(
        {"pred": 3, "conf": rng.normal(size=400) + 2 * (label >= 0), "label": label}
    )
    at = page(detectors=("max-softmax",))
    give(at, "given", ("near_a.csv", frame.to_csv(index=False).encode()))
    assert "turned round" in words(at)
    area = table_with(at, "near\\_a (200)").iloc[0, 1]
    assert 0.85 < float(area.split()[0]) < 0.97
    give(at, "given", ("rows.csv", b"a,b\n1,2\n"))
    assert "not scores of another library" in at.error[0].proto.title
    at.button(key="drop_given").click().run()
    done(at)
    assert not at.error
