"""Every calibrator in every format, on every kind of score, within its bounds.

In one process; that files run in a clean interpreter is tested beside their writers.
Torch modules run where torch is; what it said is stored in golden/torch.json.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from methods import ALONE
from onnx import TensorProto, helper

from core.calibrators import CALIBRATORS, Calibrator
from core.export import from_json, to_json
from core.export.curves import reach
from core.export.fuse import fuse
from core.export.onnx import to_onnx
from core.export.portable import to_python
from core.export.torch_module import to_torch
from core.export.verification import TOLERANCES, judge, row_differences, verify
from core.loading import read_predictions
from core.softmax import softmax

SIZES = ("digits_noisy", "breast_cancer_binary", 2, 3, 10, 100)
KINDS = ("given", "large", "masked", "ties")
every_size = pytest.mark.parametrize("size", SIZES)
every_method = pytest.mark.parametrize("method", ALONE)


@functools.cache
def fit_rows(size: int | str) -> tuple[Any, Any]:
    if isinstance(size, str):
        from conftest import ROOT

        own = read_predictions(ROOT / "sample_data" / f"{size}.csv")
        return own.logits, own.labels
    rng = np.random.default_rng(size)
    z = 3 * rng.normal(size=(400, size))
    return z, (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)


@functools.cache
def fitted(method: str, size: int | str) -> Calibrator:
    return CALIBRATORS[method]().fit(*fit_rows(size))  # type: ignore[no-any-return]


def scores_of(size: int | str, kind: str) -> Any:
    """Return up to 300 rows: of the fit, up to 100, with -inf, or with ties."""
    given = fit_rows(size)[0][:300].astype(np.float64)
    rng = np.random.default_rng(7)
    if kind == "given":
        return given
    shape = (300, given.shape[1])
    if kind == "large":
        return rng.uniform(-100, 100, shape)
    if kind == "masked":
        z = np.where(rng.random(shape) < 0.3, -np.inf, 5 * rng.normal(size=shape))
        z[np.isneginf(z).all(axis=1), 0] = 0.0
        return z
    return rng.choice([-2.0, 0.0, 0.5], shape)


def said(session: onnxruntime.InferenceSession, scores: Any) -> tuple[Any, Any]:
    given = session.get_inputs()[0]
    dtype = np.float32 if given.type == "tensor(float)" else np.float64
    outputs = {given.name: scores.astype(dtype)}
    found = session.run(["probabilities", "label"], outputs)
    return found[0], found[1]


def opened(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def bare_model(k: int, real: int) -> bytes:
    """Return a user's model whose logits are its features."""
    places = [
        helper.make_tensor_value_info(name, real, ["N", k])
        for name in ("features", "logits")
    ]
    node = helper.make_node("Identity", ["features"], ["logits"])
    graph = helper.make_graph([node], "model", places[:1], places[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@functools.lru_cache(maxsize=8)
def runner(method: str, size: int | str, kind: str) -> Any:
    """Return a function of scores that gives probabilities, and labels or None."""
    calibrator = fitted(method, size)
    if kind == "json":
        restored = from_json(to_json(calibrator, {}))[0]
        return lambda z: (restored.predict_proba(z), None)
    if kind == "python":
        names: dict[str, Any] = {"__name__": "exported"}
        exec(compile(to_python(calibrator, {}), "exported.py", "exec"), names)  # noqa: S102
        return lambda z: (names["calibrate"](z), None)
    precision: Any = "float32" if kind.endswith("32") else "float64"
    if kind.startswith("fused"):
        real = TensorProto.FLOAT if precision == "float32" else TensorProto.DOUBLE
        made = fuse(bare_model(fit_rows(size)[0].shape[1], real), calibrator, {})
        model = made.model
    else:
        model = to_onnx(calibrator, {}, precision)
    session = opened(model)
    return lambda z: said(session, z)


STEPS = ("histogram", "bbq", "scaling-binning", "i-max")
STEEP = ("isotonic", "centred-isotonic", "spline")


def n_at_edges(method: str, size: int | str, z: Any) -> int:
    """Return how many rows rounding may put on either side of the edge of a bin."""
    if method not in STEPS:
        return 0
    p = softmax(z)
    p = p[:, 1:] if p.shape[1] == 2 else p
    is_near = np.zeros(p.shape, bool)
    for column, (edges, _) in enumerate(fitted(method, size).maps_):
        inner = edges[1:-1]
        width = 2 * np.maximum(reach(inner), np.spacing(inner))
        is_near[:, column] = (np.abs(p[:, column, None] - inner) <= width).any(axis=1)
    return int((is_near & (p < 1)).any(axis=1).sum())


def n_steep(method: str, size: int | str, z: Any) -> int:
    """Return how many rows the rounding of a runtime may move notably, and 1 %."""
    predict = fitted(method, size).predict_proba
    found = predict(z)
    moved = [np.abs(predict(z * (1 + move)) - found) for move in (-8e-15, 8e-15)]
    return int((np.max(moved, axis=(0, 2)) > 1e-12).sum()) + len(z) // 100


FORMATS = {
    "json": TOLERANCES["json"],
    "python": TOLERANCES["python"],
    "onnx": 1e-12,
    "onnx32": 1e-5,
    "fused": 1e-12,
    "fused32": 1e-5,
}


def test_the_bounds_are_those_that_are_promised() -> None:
    assert {TOLERANCES[kind] for kind in ("json", "python", "onnx")} == {1e-12}
    assert TOLERANCES["onnx32"] == 1e-5


def _cases() -> Iterator[Any]:
    """Every method in every format and size, but not all of them together.

    Formats and sizes take turns, so that each meets the other with some method; the
    whole table is among the slow tests.
    """
    for number, method in enumerate(ALONE):
        for place, kind in enumerate(FORMATS):
            for step, size in enumerate(SIZES):
                is_turn = (number + place + step) % len(SIZES) == 0
                marks = [] if is_turn else [pytest.mark.slow]
                name = f"{kind}-{size}-{method}"
                yield pytest.param(method, size, kind, id=name, marks=marks)


@pytest.mark.usefixtures("ready_interpreter")
@pytest.mark.parametrize(("method", "size", "kind"), list(_cases()))
def test_every_file_says_what_the_calibrator_says(
    method: str, size: int | str, kind: str
) -> None:
    is_single = kind.endswith("32")
    for name in KINDS:
        z = scores_of(size, name)
        if is_single:
            z = z.astype(np.float32).astype(np.float64)
        expected = fitted(method, size).predict_proba(z)
        found, label = runner(method, size, kind)(z)
        assert found.shape == expected.shape
        arrays = {"out": found} | ({} if label is None else {"label": label})
        proof = judge(
            arrays,
            "",
            row_differences(found.astype(np.float64), expected),
            expected,
            tolerance=FORMATS[kind],
            bins=(15, "uniform"),
            may_differ=False,
            n_rows=len(z),
            n_total=len(z),
            seconds=0.0,
            interpreter="",
        )
        # A curve may be so steep that the last bit of an exponential decides a row.
        is_steep = method in STEEP and kind in ("onnx", "fused")
        few = n_steep(method, size, z) if is_steep else n_at_edges(method, size, z)
        assert proof.n_beyond <= few, (name, proof.problem)
        if method not in STEPS:
            bound = max(FORMATS[kind], 1e-10 * is_steep)
            assert proof.max_difference <= bound, name
        assert (found[np.isneginf(z)] == 0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
        # Rows that change label or bin are counted: only rounding may move them.
        top = np.sort(expected, axis=1)[:, -2:]
        n_close = int((top[:, 1] - top[:, 0] <= 2 * FORMATS[kind]).sum())
        assert proof.n_label_changes <= n_close, name
        edges = np.linspace(0, 1, 16)
        near = np.abs(top[:, 1, None] - edges).min(axis=1) <= FORMATS[kind]
        assert proof.n_bin_changes <= near.sum(), name


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@every_method
@every_size
def test_torch_says_what_the_calibrator_says(method: str, size: int | str) -> None:
    calibrator = fitted(method, size)
    source, parameters = to_torch(calibrator, {})
    z = np.vstack([scores_of(size, name) for name in KINDS])
    proof = verify("torch", source, calibrator, z, binary=parameters)
    # Rows that the last bit of an exponential decides are counted and warned of.
    is_decided = method in STEPS + STEEP and size == "breast_cancer_binary"
    assert proof.n_beyond <= (3 if is_decided else 0), proof.problem
    assert proof.is_offered
