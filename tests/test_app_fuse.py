"""The calibrator behind a user's own model, on the Export page."""

from __future__ import annotations

import pytest
from onnx_models import classifier, two_outputs
from test_app import opened, settle, table, upload, words
from test_app_apply import give, go

from core.messages import DataError


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    import streamlit as st

    monkeypatch.delenv("PLUMBLINE_FILE", raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()


def downloads(at) -> list[str]:
    return [b.proto.id for b in at.get("download_button") if "get_fused" in b.proto.id]


def test_a_model_comes_back_with_the_calibrator_behind_it() -> None:
    at = go(upload(opened(), "mine.csv", table(600)), "export")
    assert not downloads(at)
    give(at, "upload_model", "net.onnx", classifier(3).SerializeToString())
    assert not at.error
    assert "`logits` of `net.onnx` is calibrated." in words(at)
    assert "over 33 rows of made-up inputs" in words(at)
    assert len(downloads(at)) == 1


def test_an_output_is_named_where_several_fit() -> None:
    at = go(upload(opened(), "mine.csv", table(600)), "export")
    give(at, "upload_model", "net.onnx", two_outputs(3))
    assert "Several outputs could hold the logits" in at.error[0].proto.title
    assert not downloads(at)
    at.text_input(key="fuse_output").set_value("aux").run()
    settle(at)
    assert not at.error
    assert "`aux` of `net.onnx` is calibrated." in words(at)
    assert len(downloads(at)) == 1


@pytest.mark.parametrize("content", [b"odd", classifier(7).SerializeToString()])
def test_what_is_refused_is_said(content: bytes) -> None:
    at = go(upload(opened(), "mine.csv", table(600)), "export")
    give(at, "upload_model", "net.onnx", content)
    assert "net" in at.error[0].value
    assert not downloads(at)


def test_a_large_model_is_refused_before_it_is_read(monkeypatch, tmp_path) -> None:
    from app.cli_export import UserModel
    from core.export import user_model

    monkeypatch.setattr(user_model, "MAX_BYTES", 100)
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(101))
    monkeypatch.setattr(type(path), "read_bytes", None)
    with pytest.raises(DataError, match="at most"):
        UserModel.read(path, None)
