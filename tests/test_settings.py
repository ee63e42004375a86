"""Settings: one frozen value for widgets, session file, cache key and flags."""

from __future__ import annotations

import json

import numpy as np
import pytest

from core.messages import DataError
from core.settings import SESSION_FORMAT, Settings


def test_the_session_file_is_exact():
    settings = Settings(
        label_column="y",
        id_column="",
        score_columns=("a", "b"),
        slice_columns=(),
        n_bins=20,
        level=0.9,
        calibrators=("isotonic", "temperature"),
        options=(("temperature", "x", 1.5), ("isotonic", "y", True)),
        temperature=2.5,
    )
    assert Settings.from_json(settings.to_json()) == settings
    assert hash(Settings.from_json(settings.to_json())) == hash(settings)
    assert Settings.from_dict(settings.to_dict()) == settings
    document = json.loads(settings.to_json())
    assert document["format"] == SESSION_FORMAT
    assert document["version"] == 1


def test_equal_values_are_one_cache_key():
    assert Settings(n_bins=15.0) == Settings()
    assert hash(Settings(n_bins=np.int64(15))) == hash(Settings())
    assert type(Settings(n_bins=15.0).n_bins) is int
    assert type(Settings(level=np.float32(0.5)).level) is float
    assert Settings(calibrators=["temperature"]) == Settings()
    assert Settings().replace(seed=3) != Settings()


def test_options_belong_to_their_method():
    settings = Settings(options=(("a", "x", 1), ("b", "y", 2), ("a", "z", 3)))
    assert settings.method_options("a") == {"x": 1, "z": 3}
    assert settings.method_options("c") == {}


@pytest.mark.parametrize(
    "change",
    [
        {"split": "random"},
        {"strategy": "kmeans"},
        {"n_bins": 0},
        {"n_bins": 1001},
        {"n_bins": 1.5},
        {"n_bins": True},
        {"n_bins": "15"},
        {"n_bins": None},
        {"n_bins": float("inf")},
        {"n_bins": float("nan")},
        {"level": 1.0},
        {"level": float("nan")},
        {"seed": -1},
        {"seed": 2**32},
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"fit_fraction": 0.8, "threshold_fraction": 0.3},
        {"calibrators": "temperature"},
        {"calibrators": None},
        {"calibrators": 5},
        {"score_columns": None},
        {"label_column": 3},
        {"label_column": ["y"]},
        {"options": (("a", "b"),)},
        {"options": (("a", "b", [1]),)},
        {"options": 3},
    ],
)
def test_values_outside_the_limits_are_refused(change):
    with pytest.raises(DataError, match="The setting"):
        Settings(**change)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"format": "other", "settings": {}}',
        f'{{"format": "{SESSION_FORMAT}", "settings": []}}',
        f'{{"format": "{SESSION_FORMAT}"}}',
    ],
)
def test_other_files_are_refused(text):
    with pytest.raises(DataError, match="not a session file"):
        Settings.from_json(text)


def test_a_setting_of_another_version_is_named():
    with pytest.raises(DataError, match="'magic'"):
        Settings.from_dict({"magic": 1})
    assert Settings.from_dict({}) == Settings()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": "plumbline-session", "version": 1, "settings": {"n_bins": 1'
        + "0" * 400
        + "}}",
        '{"format": "plumbline-session", "version": 99, "settings": {}}',
        '["format"]',
    ],
    ids=["deep", "huge number", "version", "list"],
)
def test_strange_session_files_are_refused(text):
    with pytest.raises(DataError):
        Settings.from_json(text)
