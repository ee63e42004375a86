"""What losses do to wrong rows and T per row: numbers, figures, the page."""

from __future__ import annotations

import numpy as np
import pytest
from test_app import opened, settle
from test_copies import QUICK, draw

from components import correctness
from core.analysis import analyze
from core.correctness import (
    COMMON,
    GROUPS,
    OURS,
    PAPER,
    compare_losses,
    pulls,
    row_temperatures,
)
from core.predictions import Predictions, Study
from core.settings import Settings


@pytest.fixture(scope="module")
def study():
    z, y, copies = draw(500)
    return Study(
        Predictions.from_arrays(z, y),
        copies=tuple(Predictions.from_arrays(copy) for copy in copies),
    )


@pytest.fixture(scope="module")
def settings():
    chosen = ("temperature", "correctness-aware")
    return Settings(
        calibrators=chosen, options=QUICK, n_resamples=100, n_folds=3, split="holdout"
    )


def test_pulls_are_the_derivatives_of_the_definitions():
    q = np.array([0.5, 0.6, 0.9, 0.99])
    lead = np.log(q / (1 - q))
    found = pulls(q)
    np.testing.assert_allclose(found["cross-entropy"], lead * q, atol=1e-12)
    expected = 2 * q**2 * (1 - q) * lead
    np.testing.assert_allclose(found["correctness-aware"], expected, atol=1e-12)
    curves = correctness.pulls_table()
    tops = curves.set_index("confidence").idxmax()
    assert tops["correctness-aware"] < 0.9 < tops["cross-entropy"]
    assert "0.9" in correctness.pulls_alt() or "0.8" in correctness.pulls_alt()


def test_losses_side_by_side(study, settings):
    found = compare_losses(study, settings)
    assert found.has_copies
    assert found.rows == "test"
    assert sum(found.n.values()) == 250
    assert set(found.numbers) == set(found.confidence) == set(correctness.LOSS_LABELS)
    for numbers in found.numbers.values():
        assert set(numbers) == {*OURS, *PAPER}
        assert np.isfinite(list(numbers.values())).all()
    aware, common = (found.numbers[k] for k in ("correctness-aware", COMMON))
    assert aware["top-brier"] <= common["top-brier"] + 0.02
    frame = correctness.effects_frame(found)
    assert list(frame["Fitted by"]) == [
        f"**{label}**" for label in correctness.LOSS_LABELS.values()
    ]
    assert len(frame.columns) == 1 + len(GROUPS)
    shown = correctness.numbers_frame(found, PAPER)
    assert (shown.map(lambda cell: cell.startswith("**")).sum() >= 1).all()
    assert len(correctness.effects_data(found)) == 5


def test_temperatures_of_rows(study, settings):
    analysis = analyze(study, settings)
    split = analysis.overview.split
    fitted = analysis.fitted["correctness-aware"]
    found = row_temperatures(study, split, fitted)
    assert found.temperature.shape == split.test.shape
    own = study.evaluation.logits[split.test]
    q = fitted.rows.confidence
    z = (own - own.max(axis=1, keepdims=True)) / found.temperature[:, None]
    np.testing.assert_allclose(1 / np.exp(z).sum(axis=1), q, rtol=1e-9)
    fig = correctness.temperatures_figure(found)
    assert sum(len(trace.x) for trace in fig.data) <= correctness.MOST_POINTS + 2
    assert len(correctness.temperatures_table(found)) == split.test.size
    assert "Median temperature" in correctness.temperatures_alt(found)


def test_the_section_is_on_the_page(tmp_path, monkeypatch):
    z, y, copies = draw(200)
    np.savez(tmp_path / "rows.npz", logits=z, labels=y, copies=copies)
    monkeypatch.setenv("PLUMBLINE_FILE", str(tmp_path / "rows.npz"))
    at = settle(opened())
    at.session_state["_settings"] = at.session_state["_settings"].replace(
        calibrators=("temperature", "correctness-aware"),
        options=QUICK,
        n_resamples=100,
        n_folds=2,
    )
    at.switch_page("views/calibrators.py").run()
    settle(at)
    assert not at.exception
    assert "A temperature for each row" in [item.value for item in at.subheader]
    assert any("right and wrong rows" in item.value for item in at.markdown)
    settle(at.switch_page("views/data.py").run())
    assert not at.exception
    assert "Transformed copies" in [item.value for item in at.subheader]
