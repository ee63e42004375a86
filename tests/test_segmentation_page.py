"""The page of segmentation maps."""

from __future__ import annotations

import numpy as np
import pytest
from test_app import opened, widget, words
from test_app_apply import give, go
from test_segmentation_files import Y, Z, npz

from components import segmentation
from core.map_evaluation import evaluate_maps
from core.segmentation import SegmentationMaps
from core.settings import Settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def downloads(at) -> list[str]:
    return [b.proto.id for b in at.get("download_button") if "get_maps" in b.proto.id]


def test_the_sample_maps_are_measured_shown_and_given_away():
    at = go(opened(), "segmentation")
    assert "A class for every pixel?" in words(at)
    assert not at.get("plotly_chart")
    at.button(key="use_sample_maps").click()
    at = go(at.run(), "segmentation")
    said = words(at)
    assert "24 images" in said
    assert "lower the NLL by 0.0" in said
    assert "Mean T where wrong" in said
    assert len(at.get("plotly_chart")) == 3
    assert len(downloads(at)) == 2
    assert "digits_noisy" not in said
    widget(at.selectbox, "map_image").set_value(2).run()
    assert not at.exception


def test_a_file_is_refused_in_words_and_another_is_taken():
    at = go(opened(), "segmentation")
    give(at, "upload_maps", "m.npz", npz(logits=Z, labels=np.where(Y, 9, 0)))
    assert "one of the 2 classes" in at.error[0].proto.title
    assert not downloads(at)
    at.number_input(key="ignored_label").set_value(9).run()
    at = go(at, "segmentation")
    assert not at.error
    assert "30 pixels measured" in words(at)
    assert "Few images (3)" in words(at)


def test_words_follow_the_numbers():
    given = SegmentationMaps.from_arrays(Z, Y)
    found = evaluate_maps(given, Settings(n_resamples=100))
    frame = segmentation.measured_frame(found)
    assert list(frame.columns[1:4]) == list(segmentation.LABELS.values())
    shown = found.image(1)
    pixels = segmentation.pixels_table(shown, given.classes)
    assert len(pixels) == 20
    assert (pixels["state"] == "wrong").sum() == shown.is_wrong.sum()
    assert str(shown.is_wrong.sum()) in segmentation.errors_alt(shown)
    assert f"{shown.temperatures.min():.2f}" in segmentation.temperatures_alt(shown)
    wide = SegmentationMaps.from_arrays(np.tile(Z, (1, 1, 1, 200)), np.tile(Y, 200))
    figure = segmentation.temperatures_figure(
        evaluate_maps(wide, Settings(n_resamples=100)).image(0)
    )
    assert figure.data[0].z.shape == (2, 334)
