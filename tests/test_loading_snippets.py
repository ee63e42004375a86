"""The snippets that save logits compile; those that can run here are read back."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from core.loading import read_predictions
from core.loading.snippets import SNIPPETS
from core.softmax import softmax


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_are_short_and_compile(name: str) -> None:
    snippet = SNIPPETS[name]
    code = compile(snippet.code, name, "exec")
    lines = [line for line in snippet.code.splitlines() if line]
    assert len(lines) <= 6
    assert max(map(len, lines)) <= 79
    assert set(snippet.needs) <= set(code.co_names)


def run(name: str, folder: Path, monkeypatch: Any, **names: Any) -> Any:
    monkeypatch.chdir(folder)
    exec(SNIPPETS[name].code, dict(names))  # noqa: S102 - our own lines
    return read_predictions(folder / "predictions.npz")


def test_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_iris()
    names = data.target_names[data.target]
    model = LogisticRegression(max_iter=500).fit(data.data[::2], names[::2])
    rows = run(
        "sklearn",
        tmp_path,
        monkeypatch,
        model=model,
        X_test=data.data[1::2],
        y_test=names[1::2],
    )
    assert rows.classes == tuple(model.classes_)
    np.testing.assert_array_equal(rows.labels, data.target[1::2])
    found = softmax(rows.logits)
    np.testing.assert_allclose(found, model.predict_proba(data.data[1::2]), rtol=1e-9)


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = np.eye(3, dtype=np.float32) * 4 - 1, np.array([0, 2, -100])
    output = types.SimpleNamespace(predictions=(logits, None), label_ids=labels)
    config = types.SimpleNamespace(id2label={0: "no", 1: "maybe", 2: "yes"})
    trainer = types.SimpleNamespace(
        predict=lambda _: output, model=types.SimpleNamespace(config=config)
    )
    rows = run("huggingface", tmp_path, monkeypatch, trainer=trainer, dataset=None)
    np.testing.assert_array_equal(rows.logits, logits)
    assert rows.classes == ("no", "maybe", "yes")
    np.testing.assert_array_equal(rows.labels, [0, 2, -1])


def test_keras_lines_without_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, kernel = np.ones((4, 2)), np.arange(6.0).reshape(2, 3)
    last = types.SimpleNamespace(input=None, get_weights=lambda: (kernel, np.ones(3)))
    fake = types.ModuleType("keras")
    fake.Model = lambda *_: types.SimpleNamespace(predict=lambda _: hidden)
    monkeypatch.setitem(__import__("sys").modules, "keras", fake)
    model = types.SimpleNamespace(layers=[last], inputs=None)
    rows = run(
        "keras", tmp_path, monkeypatch, model=model, x_test=None, y_test=[0, 1, 2, 0]
    )
    np.testing.assert_array_equal(rows.logits, hidden @ kernel + 1)


def test_the_readme_shows_every_snippet(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    assert all(snippet.code in text + "\n" for snippet in SNIPPETS.values())
