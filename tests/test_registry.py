"""Registries, their parameters, notes and errors."""

from __future__ import annotations

import numpy as np
import pytest

from core.calibrators import CALIBRATORS, CalibratorMethod, TemperatureScaling
from core.messages import Answer, Cancelled, DataError, FitError, Note, no_progress
from core.metrics import METRICS, accuracy
from core.registry import Param, Registry


def test_an_entry_calls_the_thing_itself_and_aliases_find_it():
    assert isinstance(CALIBRATORS["temperature"](), TemperatureScaling)
    assert CALIBRATORS["ts"] is CALIBRATORS["temperature"]
    assert CALIBRATORS["temp-scaling"].id == "temperature"
    assert METRICS["accuracy"]([0], [[0.9, 0.1]]) == accuracy([0], [[0.9, 0.1]]) == 1
    known = ["ece", "l2", "accuracy", "gap", "nll", "brier", "auroc", "aurc"]
    assert [name for name in METRICS if METRICS[name].tier == "default"] == known
    assert len(METRICS) == len(list(METRICS)) == 32
    assert "log-loss" in METRICS
    assert "no-such" not in METRICS


def test_a_calibrators_entry_says_what_its_class_says():
    for name, method in CALIBRATORS.items():
        assert isinstance(method, CalibratorMethod), name
        assert method.requires == method.target.requires
        assert method.is_accuracy_preserving is method.target.is_accuracy_preserving
        assert method.n_parameters(7) == method().n_parameters(7)
    assert CALIBRATORS["ts"].n_parameters(10) == 1
    assert not isinstance(METRICS["ece"], CalibratorMethod)


def test_unknown_names_list_what_there_is():
    with pytest.raises(KeyError, match=r"There are:.*temperature"):
        CALIBRATORS["no-such"]


def test_nothing_is_registered_twice():
    registry = Registry("thing")
    register = registry.register("a", label="A", reference="-", aliases=("b",))
    assert register(max) is max
    for name, aliases in (("a", ()), ("b", ()), ("c", ("a",)), ("d", ("b",))):
        enter = registry.register(name, label="", reference="", aliases=aliases)
        with pytest.raises(ValueError, match="registered twice"):
            enter(min)
    assert list(registry) == ["a"]
    assert registry["b"].summary.endswith("value")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("int", "7", 7),
        ("int", 7.0, 7),
        ("int", np.int64(7), 7),
        ("float", "0.5", 0.5),
        ("float", 3, 3.0),
        ("bool", "yes", True),
        ("bool", "FALSE", False),
        ("bool", 1, True),
        ("bool", False, False),
        ("choice", "a", "a"),
    ],
)
def test_values_take_the_type_of_the_parameter(kind, value, expected):
    found = Param("x", "X", kind, None, 0, 10, choices=("a", "b")).validate(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", 7.5),
        ("int", "nan"),
        ("int", "inf"),
        ("int", 11),
        ("int", None),
        ("float", -0.1),
        ("float", float("nan")),
        ("float", "-inf"),
        ("float", "x"),
        ("bool", "perhaps"),
        ("bool", 2),
        ("choice", "c"),
    ],
)
def test_other_values_are_refused(kind, value):
    with pytest.raises(ValueError, match="x must be"):
        Param("x", "X", kind, None, 0, 10, choices=("a", "b")).validate(value)


def test_numbers_without_limits():
    assert Param("x", "X", "float", 0.0).validate(-1e300) == -1e300
    with pytest.raises(ValueError, match="from -inf to inf"):
        Param("x", "X", "float", 0.0).validate("inf")


def test_options_of_a_method_are_checked_by_name():
    assert METRICS["ece"].validate({"n_bins": "20"}) == {"n_bins": 20}
    with pytest.raises(ValueError, match="no option 'bins'"):
        METRICS["ece"].validate({"bins": 20})


def test_errors_say_what_where_and_how():
    answer = Answer("Leave out", "invalid_rows", "leave-out")
    error = DataError("It is bad.", "file, row 3", "Mend it.", answers=(answer,))
    assert str(error) == "It is bad.\nWhere: file, row 3\nHow to fix: Mend it."
    assert error.to_dict()["answers"] == [
        {"label": "Leave out", "setting": "invalid_rows", "value": "leave-out"}
    ]
    assert answer.flag == "--invalid-rows leave-out"
    assert str(FitError("Alone.")) == "Alone."
    assert isinstance(error, ValueError)
    assert not issubclass(Cancelled, ValueError)
    assert Note("a", "info", "b").to_dict() == {
        "code": "a",
        "severity": "info",
        "text": "b",
    }
    assert no_progress(0.5, "half") is None
