"""Models that are refused: other files, other operators, other shapes, damage."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, INT64, WHOLE, K, classifier, ending, fitted, two_outputs

from core.export import user_model
from core.export.fuse import fuse
from core.messages import DataError


def outside() -> bytes:
    model = classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def outside_in_a_node() -> bytes:
    hidden = TensorProto(name="hidden", data_type=FLOAT, dims=[1])
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="weights.bin")

    def nodes(output: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Constant", [], ["c"], value=hidden),
            helper.make_node("Add", ["scores", "c"], [output]),
        ]

    return classifier(after=nodes).SerializeToString()


def hidden_custom() -> bytes:
    def nodes(output: str) -> list[onnx.NodeProto]:
        out = helper.make_tensor_value_info("o", FLOAT, ["batch", K])
        made = helper.make_node("Evil", ["scores"], ["o"], domain="evil")
        inner = helper.make_graph([made], "g", [], [out])
        yes = numpy_helper.from_array(np.array(True), "yes")
        return [
            helper.make_node("Constant", [], ["yes"], value=yes),
            helper.make_node(
                "If", ["yes"], [output], then_branch=inner, else_branch=inner
            ),
        ]

    return classifier(after=nodes).SerializeToString()


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return made.getvalue()


def labels_only() -> bytes:
    def nodes(output: str) -> list[onnx.NodeProto]:
        return [helper.make_node("ArgMax", ["scores"], [output], axis=1, keepdims=0)]

    model = classifier(after=nodes)
    info = helper.make_tensor_value_info("logits", INT64, ["batch"])
    model.graph.output[0].CopyFrom(info)
    return model.SerializeToString()


def zip_map() -> bytes:
    def nodes(output: str) -> list[onnx.NodeProto]:
        made = helper.make_node(
            "ZipMap",
            ["scores"],
            [output],
            domain="ai.onnx.ml",
            classlabels_int64s=range(K),
        )
        return [made]

    model = classifier(after=nodes, opsets=(helper.make_opsetid("ai.onnx.ml", 3),))
    values = helper.make_tensor_type_proto(FLOAT, [])
    row = helper.make_map_type_proto(INT64, values)
    kind = helper.make_sequence_type_proto(row)
    model.graph.output[0].CopyFrom(helper.make_value_info("logits", kind))
    return model.SerializeToString()


def edited(**values: Any) -> bytes:
    model = classifier()
    for key, value in values.items():
        if key == "opset":
            model.opset_import[0].version = value
        elif key == "input":
            for item in (model.graph.input[0], model.graph.node[0]):
                if isinstance(item, onnx.NodeProto):
                    item.input[0] = value
                else:
                    item.name = value
        else:
            setattr(model, key, value)
    return model.SerializeToString()


REFUSED = {
    "empty": (b"", "has no graph"),
    "text": (b"this is not a model", "not an ONNX model"),
    "cut off": (WHOLE[: len(WHOLE) // 2], "cut off|not valid ONNX"),
    "torch.save": (zipped(), "ZIP archive"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n", "Keras"),
    "weights elsewhere": (outside(), "lie in another file"),
    "weights elsewhere, in a node": (outside_in_a_node(), "'hidden' lie in another"),
    "custom operator": (ending("Evil", domain="evil"), "evil:Evil"),
    "custom operator in a branch": (hidden_custom(), "evil:Evil"),
    "context of another file": (
        ending("EPContext", domain="com.microsoft"),
        "EPContext",
    ),
    "unknown operator": (ending("NoSuchOperator"), "not valid ONNX"),
    "newer opset": (edited(opset=99), "opset 99"),
    "newer IR": (edited(ir_version=99), "IR version 99"),
    "too few columns": (classifier(3).SerializeToString(), "has 3 columns"),
    "too many columns": (classifier(7).SerializeToString(), "has 7 columns"),
    "three dimensions": (
        classifier(shape=["batch", 1, K]).SerializeToString(),
        "3 dimensions|not valid ONNX",
    ),
    "one column for four classes": (
        classifier(1).SerializeToString(),
        "has 1 columns",
    ),
    "labels only": (labels_only(), "is of type int64"),
    "maps": (zip_map(), "is not a tensor"),
    "several outputs": (two_outputs(), "Several outputs"),
    "softmax": (ending("Softmax", axis=1), "these are probabilities"),
    "sigmoid": (ending("Sigmoid"), "these are probabilities"),
    "input called label": (edited(input="label"), "input called 'label'"),
}


@pytest.mark.usefixtures("ready_interpreter")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    data, said = REFUSED[case]
    with pytest.raises(DataError, match=said) as caught:
        fuse(data, fitted("temperature"), {}, name="mine.onnx")
    assert caught.value.where == "mine.onnx"
    assert caught.value.how_to_fix


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))))
@settings(max_examples=300)
def test_any_damage_is_a_data_error(changes: list[tuple[int, int]]) -> None:
    """What is read in this process, before the clean interpreter sees it."""
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    with contextlib.suppress(DataError):
        user_model._check_contents(user_model._parsed(bytes(data), "x"), "x")


def test_a_pickled_model_is_not_opened() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit(99)",)

    for protocol in (2, 4, 5):
        with pytest.raises(DataError, match="pickle"):
            fuse(pickle.dumps(Evil(), protocol), fitted("temperature"), {})


def test_models_that_are_too_large_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_model, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="at most"):
        fuse(WHOLE, fitted("temperature"), {})


def test_an_output_is_chosen_by_name() -> None:
    assert fuse(two_outputs(), fitted("temperature"), {}, output="aux").scores == "aux"
    with pytest.raises(DataError, match="no output called 'nothing'"):
        fuse(two_outputs(), fitted("temperature"), {}, output="nothing")
    data = classifier(7).SerializeToString()
    with pytest.raises(DataError, match="The output logits has 7 columns"):
        fuse(data, fitted("temperature"), {}, output="logits")


def test_logits_where_probabilities_are_meant() -> None:
    with pytest.raises(DataError, match="made by Gemm: these are logits"):
        fuse(WHOLE, fitted("temperature"), {"input": "probabilities"})
