"""Predictions kept: the nearest answer that does not change the predicted class."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from scipy import optimize

from core.calibrators import CALIBRATORS, Calibrator
from core.calibrators.keeping import LEAD, keep_predictions
from core.export import from_json, to_json, to_python, verify
from core.export.onnx import to_onnx
from core.softmax import log_softmax

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def naive(p, kept):
    """Raise the kept class step by step: share with the largest of the others."""
    q = list(p)
    pool = [kept]
    while True:
        level = sum(p[i] for i in pool) / len(pool)
        rest = [i for i in range(len(p)) if i not in pool]
        best = max(rest, key=lambda i: p[i], default=None)
        if best is None or p[best] <= level:
            break
        pool.append(best)
    for i in pool:
        q[i] = level
    q[kept] *= 1 + LEAD
    total = sum(q)
    return [value / total for value in q]


def kept_vector(k=4, n=300, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * 2
    shift = np.linspace(-1.5, 1.5, k)
    y = (z / 2 + shift + rng.gumbel(size=z.shape)).argmax(axis=1)
    made = CALIBRATORS["vector"]().fit(z, y)
    changed = made.predict(z) != z.argmax(axis=1)
    assert changed.mean() > 0.1
    made.keeps_predictions_ = True
    return made, z


@pytest.mark.parametrize("k", [2, 3, 6])
def test_changed_rows_share_and_others_stay(k):
    rng = np.random.default_rng(k)
    log_p = log_softmax(rng.normal(size=(80, k)))
    z = rng.normal(size=(80, k))
    before = log_p.copy()
    found = keep_predictions(log_p, z)
    kept = z.argmax(axis=1)
    assert (found.argmax(axis=1) == kept).all()
    changed = before.argmax(axis=1) != kept
    np.testing.assert_array_equal(found[~changed], before[~changed])
    for row in np.flatnonzero(changed):
        wanted = naive(np.exp(before[row]), kept[row])
        np.testing.assert_allclose(np.exp(found[row]), wanted, rtol=1e-12)


def test_it_is_the_nearest_distribution_that_keeps_the_class():
    p = np.array([0.1, 0.45, 0.15, 0.3])
    found = np.exp(keep_predictions(np.log(p)[None], np.array([[9.0, 1, 0, 2]])))[0]
    solved = optimize.minimize(
        lambda q: float(np.sum(p * np.log(p / q))),
        np.full(4, 0.25),
        bounds=[(1e-6, 1)] * 4,
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1},
            *({"type": "ineq", "fun": lambda q, i=i: q[0] - q[i]} for i in (1, 2, 3)),
        ],
    )
    np.testing.assert_allclose(found, solved.x, atol=2e-4)


def test_ties_masks_and_float32():
    tied = np.array([[0.4, 0.4, 0.2], [0.5, 0.5, 0.0]], np.float32)
    with np.errstate(divide="ignore"):
        tied = np.log(tied)
    z = np.array([[0, 1, 0], [0, 1, -np.inf]], np.float32)
    found = keep_predictions(tied, z)
    assert found.dtype == np.float32
    assert found.argmax(axis=1).tolist() == [1, 1]
    assert np.isneginf(found[1, 2])


def test_a_calibrator_that_keeps_is_written_and_read():
    made, z = kept_vector()
    assert made.keeps_predictions
    assert not made.is_accuracy_preserving
    assert (made.predict(z) == z.argmax(axis=1)).all()
    document = json.loads(json.dumps(made.to_dict()))
    assert document["parameters"]["keeps_predictions"] is True
    again = Calibrator.from_dict(document)
    np.testing.assert_array_equal(again.transform(z), made.transform(z))
    assert not CALIBRATORS["vector"]().fit(z, z.argmax(1)).keeps_predictions


@pytest.mark.parametrize("kind", ["json", "python"])
def test_exports_keep_too(kind):
    made, z = kept_vector()
    text = to_json(made, {}) if kind == "json" else to_python(made, {})
    found = verify(kind, text, made, z)
    assert found.ok, found.problem
    assert found.n_label_changes == 0
    if kind == "json":
        assert from_json(text)[0].keeps_predictions_


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_onnx_keeps_too(precision, k):
    made, z = kept_vector(k)
    session = onnxruntime.InferenceSession(to_onnx(made, {}, precision))
    scores = z.astype(precision)
    p, label = session.run(None, {"logits": scores})
    expected = made.predict_proba(scores.astype(np.float64))
    np.testing.assert_allclose(p, expected, rtol=0, atol=TOLERANCE[precision])
    assert (label == scores.argmax(axis=1)).all()
    assert (p.argmax(axis=1) == label).all()
