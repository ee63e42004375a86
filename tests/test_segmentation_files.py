"""Files of segmentation maps: read, refused, exported, and the command for them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from test_segmentation import maps

from app import cli
from core.export.maps import MAP_FILES, export_maps, maps_from_json, verify_maps
from core.loading import read_predictions
from core.loading.maps import read_maps
from core.map_evaluation import evaluate_maps
from core.messages import DataError
from core.settings import Settings

Z = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
Y = (np.arange(60) % 2).reshape(3, 4, 5)


def npz(**arrays) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def test_a_file_is_read_as_it_is():
    y = Y.astype(np.uint8)
    y[0, 0] = 255
    content = npz(
        logits=Z.astype(np.float16),
        labels=y,
        classes=np.array(["road", "sky"]),
        split=np.array(["Test", "calibration", "calibration"]),
    )
    found = read_maps(content, name="m.npz")
    assert found.logits.dtype == np.float32
    assert found.classes == ("road", "sky")
    assert (found.labels[0, 0] == -1).all()
    assert found.is_test.tolist() == [True, False, False]
    assert "5 of 60 pixels do not count" in found.notes[0].text
    assert read_maps(content, ignore_index=255).fingerprint == found.fingerprint
    last = npz(logits=np.moveaxis(Z, 1, -1), labels=Y[:, None].astype(float))
    moved = read_maps(last)
    np.testing.assert_array_equal(moved.logits, Z)
    assert moved.notes[0].code == "channels-last"
    one = read_maps(npz(scores=Z[0], masks=Y[0]))
    assert one.logits.shape == (1, 2, 4, 5)


@pytest.mark.parametrize(
    ("ignore", "given", "left"), [(None, None, 60), (0, None, 30), (None, 1, 30)]
)
def test_a_class_can_be_ignored(ignore, given, left):
    more = {} if given is None else {"ignore_index": np.array(given)}
    found = read_maps(npz(logits=Z, labels=Y, **more), ignore_index=ignore)
    assert (found.labels >= 0).sum() == left


P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"labels": Y}, "no array 'logits'"),
        ({"logits": Z}, "no array 'labels'"),
        ({"logits": Z, "labels": Y[:, :3]}, "not maps of the same pixels"),
        ({"logits": Z, "labels": np.where(Y, 7, 0)}, "one of the 2 classes 0 to 1: 7"),
        ({"logits": Z, "labels": Y + 0.5}, "labels have the type"),
        ({"logits": Z, "labels": np.full_like(Y, -1)}, "No pixel counts"),
        ({"logits": P, "labels": Y}, "are probabilities"),
        ({"logits": Z.astype(str), "labels": Y}, "scores have the type"),
        ({"logits": np.where(Y[:, None], np.nan, Z), "labels": Y}, "not finite"),
        ({"logits": Z, "labels": Y, "classes": np.array(["a"])}, "class names"),
        ({"logits": Z, "labels": Y, "split": np.array(["test"] * 3)}, "split does"),
        ({"logits": Z, "labels": Y, "ignore_index": np.ones(2)}, "ignore_index"),
    ],
)
def test_what_does_not_fit_is_said(arrays, said):
    with pytest.raises(DataError, match=said) as error:
        read_maps(npz(**arrays), name="m.npz")
    assert error.value.how_to_fix


def test_other_files_are_sent_where_they_belong():
    with pytest.raises(DataError, match="from an NPZ file"):
        read_maps(b"a,b\n1,2\n", name="m.csv")
    with pytest.raises(DataError, match="pickle"):
        read_maps(b"\x80\x04K\x01.", name="m.npz")
    with pytest.raises(DataError, match="segmentation maps") as error:
        read_predictions(npz(logits=Z, labels=Y), name="m.npz")
    assert "Segmentation page" in error.value.how_to_fix


@pytest.mark.parametrize("kind", MAP_FILES)
def test_what_is_exported_is_what_was_fitted(kind):
    given = maps(b=2, k=4, size=40, dtype=np.float32)
    found = evaluate_maps(given, Settings(n_resamples=100))
    made = export_maps(found, kind)
    assert made.verification.ok
    assert made.verification.max_difference <= 1e-12
    assert made.verification.n_pixels == 2 * 40 * 40
    if kind == "json":
        again, classes = maps_from_json(made.text)
        assert again.to_dict() == found.calibrator.to_dict()
        assert classes == given.classes
    other = made.text.replace(str(found.calibrator.temperature_), "1.5")
    wrong = verify_maps(kind, other, found.calibrator, given)
    assert not wrong.ok
    assert "failed" in wrong.sentence


def test_other_json_is_not_a_local_temperature():
    for text in ("", "[1]", "{}", '{"format": "x", "version": 1}'):
        with pytest.raises(DataError, match="not a file of local temperatures"):
            maps_from_json(text)


def test_the_command_writes_what_it_says(tmp_path, capsys):
    file = tmp_path / "m.npz"
    given = maps(b=3, size=16)
    np.savez(file, logits=given.logits, labels=given.labels)
    out = tmp_path / "out"
    argv = ["segment", str(file), "--out", str(out), "--n-resamples", "100", "--json"]
    assert cli.main(argv) == 0
    document = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == set(document["files"])
    assert document == json.loads((out / "report.json").read_text())
    found = evaluate_maps(read_maps(file), Settings(n_resamples=100))
    for name, result in found.results.items():
        for metric, item in result.estimates.items():
            assert document["methods"][name][metric]["value"] == item.value
    with np.load(out / "temperatures.npz") as archive:
        assert archive["temperature"].shape == (3, 16, 16)
    assert cli.main([*argv[:-1], "--ignore-index", "1"]) == 0
    said = capsys.readouterr().out
    assert "Local temperature" in said
    assert "largest difference" in said.replace("\n  ", " ")
    np.savez(file, logits=given.logits)
    assert cli.main(argv[:4]) == 2
    assert "no array 'labels'" in capsys.readouterr().err
