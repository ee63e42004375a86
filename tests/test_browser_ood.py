"""From uploads to a model with a detector and a calibrator behind it, in a browser."""

from __future__ import annotations

import io

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from browser_server import Server, Visitor, visit
from playwright.sync_api import Browser, expect
from strange_files import REFERENCE, STRANGE, model, parts
from test_browser_pages import pick

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]


def give(v: Visitor, role: str, *files: tuple[str, bytes]) -> None:
    """Open the box of a role and put files into it."""
    v.click(v.key(f"ood_add_{role}").get_by_role("button").first)
    v.upload(*files[0], *files[1:], to=role)
    v.page.keyboard.press("Escape")
    v.settle()


def test_from_uploads_to_a_model_that_knows_what_it_does_not_know(
    browser: Browser, server: Server
) -> None:
    files = parts()
    with visit(browser, server) as v:
        v.upload("digits.npz", files["digits"])
        v.go("Out-of-distribution")
        assert "No out-of-distribution set yet" in v.words()
        give(v, "reference", ("train.npz", REFERENCE.read_bytes()))
        give(v, "head", ("head.npz", files["head"]))
        sets = {"near_a.npz": "near_held_out", "far_b.npz": "far_noise"}
        give(v, "ood", *((name, files[of]) for name, of in sets.items()))
        words = v.words()
        assert "473 reference rows (train.npz)" in words
        assert "near_a 227, far_b 227" in words
        v.charts(4)
        pick(v, "Score", "Virtual-logit matching (ViM)")
        v.settle()
        v.upload("mine.onnx", model(), to="model_ood")
        expect(v.key("get_detector_fused")).to_be_visible()
        assert "features from x" in v.words()
        name, data = v.download(v.key("get_detector_fused").get_by_role("button"))
        assert name == "mine_with_detector.onnx"
        _, text = v.download(v.key("get_ood_rows").get_by_role("button"))
        v.no_complaints()
    rows = pd.read_csv(io.BytesIO(text))
    known = rows[rows["set"] == "in-distribution"]
    with np.load(STRANGE, allow_pickle=False) as archive:
        x = archive["features"][archive["dataset"] == "digits"]
    session = onnxruntime.InferenceSession(data)
    names = [item.name for item in session.get_outputs()]
    assert names == ["probabilities", "label", "ood_score", "accepted", "logits"]
    p, _, score, accepted, logits = session.run(None, {"x": x[known["row"] - 1]})
    assert (accepted == known["accepted"]).all()
    np.testing.assert_allclose(score, known["ood_score"], rtol=1e-4, atol=1e-4)
    assert (p.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert p.max() < 1
