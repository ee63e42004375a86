"""What an interaction has computed: calls of kernels are counted, click by click."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_app import try_step
from test_app_pages import page, settle

STATISTICS, BINS = "_statistics_kernel", "_bin_kernel"
# Sums over rows that have their statistics already.
OF_ROWS = {BINS, "_sums_kernel", "_totals_kernel", "_ranking_kernel"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Return a context that counts which kernels `core` calls inside it."""
    calls: Counter[str] = Counter()

    def counting(name: str, kernel: Any) -> Callable[..., Any]:
        def count(*args: Any) -> Any:
            calls[name] += 1
            return kernel(*args)

        return count

    @contextmanager
    def count_calls() -> Iterator[Counter[str]]:
        found: Counter[str] = Counter()
        with monkeypatch.context() as patch:
            for name, module in sorted(sys.modules.items()):
                if name.startswith("core.kernels") or not name.startswith("core."):
                    continue
                for key, value in list(vars(module).items()):
                    if key.endswith("_kernel") and hasattr(value, "py_func"):
                        patch.setattr(module, key, counting(key, value))
            calls.clear()
            yield found
            found.update(calls)

    return count_calls


def test_a_temperature_that_is_let_go_of_costs_one_trip(counted) -> None:
    at = page("calibrators")
    with counted() as calls:
        try_step(at, 40)
        settle(at)
    assert calls.pop(STATISTICS) == 1
    # nothing is fitted, drawn from a grid or resampled again
    assert set(calls) <= OF_ROWS, calls
    assert calls[BINS] == 1
    with counted() as calls:
        try_step(at, 41)
        try_step(at, 40)
        at.button(key="use_fitted").click().run()
    assert calls[STATISTICS] == 1  # 40 is known


def test_what_only_draws_computes_nothing(counted) -> None:
    at = page("calibrators")
    with counted() as calls:
        names = at.get("button_group")
        shown = next(item for item in names if "shown" in (item.key or ""))
        shown.set_value(["temperature"]).run()
        settle(at)
        for name in ("overview", "reliability", "data", "methods", "calibrators"):
            at.switch_page(f"views/{name}.py").run()
            settle(at)
    assert not calls


def test_before_and_after_are_both_known(counted) -> None:
    at = page("reliability")
    with counted() as calls:
        scores = at.segmented_control(key="reliability_scores")
        scores.set_value("temperature").run()
        settle(at)
    assert not calls


def test_the_method_to_export_concerns_no_other_page(counted) -> None:
    at: AppTest = page("overview")
    with counted() as calls:
        at.selectbox(key="method").set_value("isotonic").run()
        settle(at)
    assert not calls


def test_another_number_of_bins_reads_and_resamples_nothing_again(counted) -> None:
    at = page("calibrators")
    with counted() as calls:
        at.number_input(key="bins").set_value(20).run()
        settle(at)
    assert calls[BINS]
    assert not calls.keys() & {STATISTICS, "_counting_kernel", "_weights_kernel"}, calls
