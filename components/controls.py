"""Widgets generated from what the registries and Settings say of a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from core.registry import Param, Registry

__all__ = [
    "choice",
    "method_choice",
    "number",
    "param_widget",
    "role_select",
    "setting_choice",
    "setting_number",
]

NOT_USED = "\N{EN DASH} none"


def number(
    label: str,
    key: str,
    default: float,
    low: float,
    high: float,
    *,
    step: float = 1,
    is_assigned: bool = False,
    help: str | None = None,
    on_change: Callable[[str], None] | None = None,
) -> Any:
    """Draw a number field that the URL may set; Settings validate it again.

    Parameters
    ----------
    is_assigned : bool, default=False
        Whether the session gave it a value in this run: then it has no default.
    on_change : callable, optional
        Told the key when somebody changes it; not when the address does.
    """
    whole = isinstance(step, int)
    start: dict[str, Any] = {} if is_assigned else {"value": default}
    return st.number_input(
        label,
        min_value=int(low) if whole else float(low),
        max_value=int(high) if whole else float(high),
        step=step,
        format=None if whole else "%g",
        key=key,
        help=help,
        bind="query-params",
        on_change=on_change,
        args=(key,),
        **start,
    )


def choice(
    label: str,
    key: str,
    options: Sequence[str],
    default: str,
    *,
    names: Mapping[str, str] | None = None,
    is_assigned: bool = False,
    help: str | None = None,
    on_change: Callable[[str], None] | None = None,
) -> Any:
    """Draw a choice that the URL may set."""
    shown = names or {}
    start: dict[str, Any] = {} if is_assigned else {"index": options.index(default)}
    return st.selectbox(
        label,
        options,
        format_func=lambda item: shown.get(item, item),
        key=key,
        help=help,
        bind="query-params",
        on_change=on_change,
        args=(key,),
        **start,
    )


def method_choice(
    label: str, key: str, registry: Registry, default: str, **options: Any
) -> Any:
    """Draw a choice among the members of a registry, the plain ones first."""
    ids = sorted(registry, key=lambda name: registry[name].tier != "default")
    names = {name: registry[name].label for name in ids}
    return choice(label, key, ids, default, names=names, **options)


def param_widget(param: Param, key: str, value: Any, **options: Any) -> Any:
    """Draw the widget of one option of a method, from its registry entry."""
    if param.kind == "bool":
        return st.checkbox(
            param.label, value=value, key=key, help=param.help or None, **options
        )
    if param.kind == "choice":
        return st.selectbox(
            param.label,
            param.choices,
            index=param.choices.index(value),
            key=key,
            help=param.help or None,
            **options,
        )
    kind = int if param.kind == "int" else float
    return st.number_input(
        param.label,
        value=kind(value),
        min_value=None if param.minimum is None else kind(param.minimum),
        max_value=None if param.maximum is None else kind(param.maximum),
        key=key,
        help=param.help or None,
        **options,
    )


def setting_number(
    label: str,
    key: str,
    value: float,
    low: float,
    high: float,
    on_change: Callable[[Any], None],
    *,
    step: float = 1,
    **options: Any,
) -> None:
    """Draw a number field that shows a setting and reports its changes.

    The value is part of the key: a widget in a closed popover does not hear of
    values that are assigned to it, a new one starts with its default.
    """
    kind = int if isinstance(step, int) else float
    key = f"{key}:{kind(value)}"
    st.number_input(
        label,
        value=kind(value),
        min_value=kind(low),
        max_value=kind(high),
        step=step,
        format=None if kind is int else "%g",
        key=key,
        on_change=lambda: on_change(st.session_state[key]),
        **options,
    )


def setting_choice(
    label: str,
    key: str,
    options: Sequence[str],
    value: str,
    on_change: Callable[[str], None],
    *,
    names: Mapping[str, str] | None = None,
    **more: Any,
) -> None:
    """Draw a choice that shows a setting and reports its changes."""
    shown = names or {}
    key = f"{key}:{value}"
    st.selectbox(
        label,
        options,
        index=options.index(value),
        format_func=lambda item: shown.get(item, item),
        key=key,
        on_change=lambda: on_change(st.session_state[key]),
        **more,
    )


def role_select(
    label: str,
    key: str,
    columns: Sequence[str],
    current: str | None,
    on_choice: Callable[[str, str], None],
    field: str,
) -> None:
    """Draw the choice of the column that plays a role, or of none."""
    setting_choice(
        label,
        key,
        ["", *columns],
        current or "",
        lambda value: on_choice(field, value),
        names={"": NOT_USED},
    )
