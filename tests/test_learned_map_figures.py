"""Learned maps and changes on the Calibrators page: figures, tables, words."""

from __future__ import annotations

import numpy as np
import pytest
from test_app_pages import FITTABLE, fit, page, table_with, words

from components import class_weights, learned_maps, theme
from core.calibrators import CALIBRATORS, OneVsRest
from core.learned_maps import (
    ClassWeights,
    class_changes,
    class_curves,
    confidence_map,
)
from core.softmax import row_statistics

LABELS = {name: method.label for name, method in CALIBRATORS.items()}
CLASSES = ("plain", "<b>bold</b> | `code` *star*", "x" * 200, "d")


def draw(n=600, k=4, seed=0):
    rng = np.random.default_rng(seed)
    z = 3 * rng.normal(size=(n, k))
    return z, (z / 2 + rng.gumbel(size=(n, k))).argmax(axis=1)


@pytest.fixture(scope="module")
def fitted():
    z, y = draw()
    alone = [m for m in FITTABLE if CALIBRATORS[m].requires == {"logits"}]
    return {name: CALIBRATORS[name]().fit(z, y) for name in alone}


@pytest.fixture(scope="module")
def maps(fitted):
    z, y = draw(seed=1)
    before = row_statistics(z, y)
    return {
        name: confidence_map(before, item.row_statistics(z, y))
        for name, item in fitted.items()
    }


def test_confidences_have_a_line_and_a_band_each(maps) -> None:
    fig = learned_maps.confidence_figure(maps, LABELS)
    lines = [trace for trace in fig.data if trace.name in LABELS.values()]
    assert [trace.name for trace in lines] == [LABELS[name] for name in maps]
    for trace, found in zip(lines, maps.values(), strict=True):
        np.testing.assert_array_equal(trace.y, found.after)
        (thin,) = (
            t
            for t in fig.data
            if t.mode == "markers" and t.legendgroup == trace.legendgroup
        )
        assert thin.marker.color == theme.THIN
        assert len(thin.x) == (found.count < 10).sum()
    assert not any(trace.fill for trace in fig.data)
    two = {name: maps[name] for name in ("temperature", "beta")}
    bands = [t for t in learned_maps.confidence_figure(two, LABELS).data if t.fill]
    assert [max(band.y) for band in bands] == [m.high.max() for m in two.values()]
    looks = {(t.line.color, t.line.dash, t.marker.symbol) for t in lines}
    assert len(looks) == len(maps)
    for color, *_ in looks:
        for background in (theme.LIGHT_BACKGROUND, theme.DARK_BACKGROUND):
            assert theme.contrast(color, background) >= 3
    table = learned_maps.confidence_table(maps, LABELS)
    assert len(table) == sum(item.count.size for item in maps.values())
    said = learned_maps.confidence_alt(maps, LABELS)
    assert "Temperature scaling: 0.97 becomes 0." in said


def test_curves_look_like_their_calibrators_and_names_are_text(fitted, maps) -> None:
    for column, name in enumerate(CLASSES):
        curves = {
            method: curve
            for method, item in fitted.items()
            for curve in class_curves(item, [column])
        }
        alone = {m for m, item in fitted.items() if isinstance(item, OneVsRest)}
        assert set(curves) == alone >= {"isotonic", "platt", "beta", "histogram"}
        fig = learned_maps.curves_figure(curves, LABELS, name)
        assert "<b>" not in fig.layout.xaxis.title.text
        assert len(fig.layout.xaxis.title.text) < 120
        known = learned_maps.confidence_figure(maps, LABELS)
        colors = {t.name: t.line.color for t in known.data if t.line.color}
        labels = {method: LABELS[method] for method in maps}
        fig = learned_maps.curves_figure(curves, labels, name)
        for trace in fig.data[1:]:
            assert trace.line.color == colors[trace.name]
        table = learned_maps.curves_table(curves, LABELS, name)
        assert set(table["class"]) == {name}
        assert "maps 0.5 to" in learned_maps.curves_alt(curves, LABELS, name)


def test_changes_in_words_and_cells(fitted) -> None:
    z, y = draw(seed=1)
    before = row_statistics(z, y)
    kept = class_changes(before, fitted["temperature"].row_statistics(z, y), 4)
    said = learned_maps.changes_sentence("T", kept)
    assert said == "T changed none of 600 predictions."
    changes = class_changes(before, fitted["histogram"].row_statistics(z, y), 4)
    said = learned_maps.changes_sentence("H", changes)
    assert said.startswith(f"H changed {changes.n_changed} of 600 predictions (")
    assert "are right after" in said
    frame = learned_maps.changes_frame(changes, CLASSES, limit=3)
    assert len(frame) == 3
    frame = learned_maps.changes_frame(changes, CLASSES)
    assert len(frame) == 4
    assert max(map(len, frame["Predicted class"])) < 100
    assert not any(name == CLASSES[1] for name in frame["Predicted class"])
    table = learned_maps.changes_table(changes, CLASSES)
    assert list(table["predicted_before"]) == list(CLASSES)
    assert table["left"].sum() == table["joined"].sum() == changes.n_changed


def test_without_labels_nothing_is_right_or_wrong(fitted) -> None:
    z, _ = draw(seed=1)
    after = fitted["histogram"].row_statistics(z)
    changes = class_changes(row_statistics(z), after, 4)
    assert "right" not in learned_maps.changes_sentence("H", changes)
    assert set(learned_maps.changes_frame(changes, CLASSES)["Right"]) == {"\u2013"}
    assert "right_after" not in learned_maps.changes_table(changes, CLASSES)


def test_a_class_that_is_only_joined_has_no_mean() -> None:
    before = row_statistics(np.array([[2.0, 0.0, 1.0]]))
    after = row_statistics(np.array([[0.0, 2.0, 1.0]]))
    frame = learned_maps.changes_frame(class_changes(before, after, 3), ["a", "b", "c"])
    assert list(frame["Predicted class"]) == ["a", "b"]
    assert frame["Mean confidence"][1] == "\u2013"


def test_the_page_draws_the_maps_of_what_was_fitted() -> None:
    at = fit(page("calibrators"), "temperature", "beta")
    assert "Learned maps" in words(at)
    specs = [chart.proto.spec for chart in at.get("plotly_chart")]
    (confidences,) = [spec for spec in specs if "Confidence after" in spec]
    assert CALIBRATORS["beta"].label in confidences
    assert CALIBRATORS["temperature"].label in confidences
    (curves,) = [spec for spec in specs if "After, on its own" in spec]
    assert CALIBRATORS["beta"].label in curves
    assert CALIBRATORS["temperature"].label not in curves
    at.selectbox(key="curve_class").set_value(3).run()
    assert not at.exception
    at.selectbox(key="changes_of_beta_temperature").set_value("temperature").run()
    assert "changed none of" in words(at)
    assert len(table_with(at, "Joined")) == 10


def test_the_page_says_where_no_class_has_a_curve() -> None:
    at = fit(page("calibrators"), "temperature")
    assert any("None of these calibrators" in item.value for item in at.info)


def test_slopes_and_matrices_are_drawn_with_their_offsets() -> None:
    names = ("a", "b", "c")
    slopes = ClassWeights(np.array([1.2, 0.8, 1.0]), np.array([0.3, 0.0, -0.5]))
    fig = class_weights.figure(slopes, names)
    assert list(fig.data[0].x) == [1.2, 0.8, 1.0]
    assert list(class_weights.table(slopes, names)["offset"]) == [0.3, 0.0, -0.5]
    matrix = np.eye(3) + np.diag([0.4, 0.0], k=1)
    mixed = ClassWeights(matrix, np.array([0.1, 0.0, 0.0]))
    heat = class_weights.figure(mixed, names).data[0]
    np.testing.assert_allclose(heat.z[0], [0.0, 0.4, 0.0, 0.1])
    assert f"from {names[1]} to {names[0]}" in class_weights.alt(mixed, names, "Matrix")
    assert class_weights.table(mixed, names).shape == (3, 5)
