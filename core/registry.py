"""Registries: every method of a family as data, from one entry."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar, overload

__all__ = ["ADVICE", "Method", "Param", "Registry"]

ADVICE = ("when", "not_when", "cost")
"""Traits of a method that advise: when to use it, when not, what it costs."""

T = TypeVar("T", bound=Callable[..., Any])
M_co = TypeVar("M_co", bound="Method", covariant=True)


@dataclass(frozen=True, slots=True)
class Param:
    """One option of a method: its widget, its flag and its limits in one place.

    Parameters
    ----------
    name : str
        Keyword of the function or constructor.
    label : str
        Visible label of the widget.
    kind : {"int", "float", "bool", "choice"}
        Type of the value.
    default : object
        Value when nothing was chosen.
    minimum, maximum : float, optional
        Inclusive limits of numbers.
    choices : tuple of str, default=()
        Allowed values of a choice.
    help : str, default=""
        Tooltip.
    """

    name: str
    label: str
    kind: Literal["int", "float", "bool", "choice"]
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def validate(self, value: Any) -> Any:
        """Return `value` in the parameter's type, or raise ValueError."""
        if self.kind == "choice":
            if value not in self.choices:
                msg = f"{self.name} must be one of {self.choices}, got {value!r}"
                raise ValueError(msg)
            return value
        if self.kind == "bool":
            if isinstance(value, str):
                lowered = value.lower()
                if lowered in {"true", "yes", "1"}:
                    return True
                if lowered in {"false", "no", "0"}:
                    return False
            elif isinstance(value, (bool, int)) and value in (0, 1):
                return bool(value)
            msg = f"{self.name} must be true or false, got {value!r}"
            raise ValueError(msg)
        return self._number(value)

    def _number(self, value: Any) -> float | int:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        whole = self.kind == "float" or number.is_integer()  # not so for NaN and inf
        if not math.isfinite(number) or not low <= number <= high or not whole:
            kind = "a whole number" if self.kind == "int" else "a number"
            msg = f"{self.name} must be {kind} from {low:g} to {high:g}, got {value!r}"
            raise ValueError(msg)
        return int(number) if self.kind == "int" else number


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A registered method; calling it calls or constructs the thing itself.

    Parameters
    ----------
    id : str
        Public identifier (URL, JSON, command line); never renamed, only aliased.
    target : callable
        The function or class.
    label, reference, formula : str
        Shown on the Methods page; the formula is LaTeX without delimiters.
    params : tuple of Param
        The options a user may set.
    tier : {"default", "more"}
        Whether a page offers it at once or behind "more methods".
    aliases : tuple of str
        Other spellings that name the same method.
    traits : mapping
        What one family needs to know of its members (a metric's direction, say).
    """

    id: str
    target: Callable[..., Any]
    label: str
    reference: str
    formula: str = ""
    params: tuple[Param, ...] = ()
    tier: Literal["default", "more"] = "default"
    aliases: tuple[str, ...] = ()
    traits: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or construct the class."""
        return self.target(*args, **kwargs)

    @property
    def summary(self) -> str:
        """First line of the docstring: the tooltip."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    @property
    def advice(self) -> dict[str, str]:
        """What it says of when to use it, when not, and its cost; by trait."""
        return {name: self.traits[name] for name in ADVICE if name in self.traits}

    def validate(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options in their types; unknown names raise ValueError."""
        known = {param.name: param for param in self.params}
        unknown = sorted(set(options) - set(known))
        if unknown:
            msg = f"{self.id} has no option {unknown[0]!r}; it knows {sorted(known)}"
            raise ValueError(msg)
        return {name: known[name].validate(value) for name, value in options.items()}


class Registry(Mapping[str, M_co]):
    """A mapping from public id to `Method`; aliases find the same entry.

    Parameters
    ----------
    family : str
        What its members are, in the singular, such as ``"calibrator"``.
    kind : type, default=Method
        Class of its entries.
    """

    @overload
    def __init__(self: Registry[Method], family: str) -> None: ...

    @overload
    def __init__(self, family: str, kind: type[M_co]) -> None: ...

    def __init__(self, family: str, kind: type[Any] = Method) -> None:
        self.family = family
        self._kind = kind
        self._methods: dict[str, M_co] = {}
        self._aliases: dict[str, str] = {}

    def register(
        self,
        method_id: str,
        *,
        label: str,
        reference: str,
        formula: str = "",
        params: tuple[Param, ...] = (),
        tier: Literal["default", "more"] = "default",
        aliases: tuple[str, ...] = (),
        **traits: Any,
    ) -> Callable[[T], T]:
        """Return a decorator that enters a function or class under `method_id`."""

        def enter(target: T) -> T:
            for name in (method_id, *aliases):
                if name in self._methods or name in self._aliases:
                    msg = f"{self.family} {name!r} is registered twice"
                    raise ValueError(msg)
            self._methods[method_id] = self._kind(
                id=method_id,
                target=target,
                label=label,
                reference=reference,
                formula=formula,
                params=params,
                tier=tier,
                aliases=aliases,
                traits=MappingProxyType(traits),
            )
            self._aliases.update(dict.fromkeys(aliases, method_id))
            return target

        return enter

    def __getitem__(self, name: str) -> M_co:
        method_id = self._aliases.get(name, name)
        try:
            return self._methods[method_id]
        except KeyError:
            known = ", ".join(self._methods)
            msg = f"There is no {self.family} called {name!r}. There are: {known}."
            raise KeyError(msg) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)
