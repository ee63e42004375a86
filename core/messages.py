"""What the core says to a person: notes beside numbers, and errors that help."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = [
    "Answer",
    "Cancelled",
    "DataError",
    "FitError",
    "Note",
    "Progress",
    "Severity",
    "no_progress",
    "part_of",
]

Progress = Callable[[float, str], None]

Severity = Literal["info", "question", "warning"]


@dataclass(frozen=True, slots=True)
class Note:
    """One remark that travels with a result and is shown beside it.

    Parameters
    ----------
    code : str
        Stable identifier in kebab case, such as ``"fit-at-bound"``.
    severity : {"info", "question", "warning"}
        ``"question"`` asks the user to confirm something; the result stands.
    text : str
        One or two plain sentences with the figures in them.
    """

    code: str
    severity: Severity
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return the three fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """One way to go on after a question: a setting and the value that answers it.

    Parameters
    ----------
    label : str
        Text of the button on the page.
    setting : str
        Name of the field of `core.settings.Settings` to change.
    value : str
        Value that the field takes; names of a list as a line of CSV.
    """

    label: str
    setting: str
    value: str

    @property
    def flag(self) -> str:
        """The same answer as a flag of the command line."""
        return f"--{self.setting.replace('_', '-')} {self.value}"

    @property
    def change(self) -> dict[str, Any]:
        """The same answer as a field of `Settings` and the value it takes."""
        is_list = self.setting.endswith("_columns")
        if not is_list:
            return {self.setting: self.value}
        return {self.setting: tuple(next(csv.reader([self.value]), ()))}


class _Helpful(ValueError):
    """An error that says what is wrong, where, and how to mend it."""

    def __init__(
        self,
        what: str,
        where: str = "",
        how_to_fix: str = "",
        *,
        answers: tuple[Answer, ...] = (),
    ) -> None:
        self.what = what
        self.where = where
        self.how_to_fix = how_to_fix
        self.answers = answers
        super().__init__(what, where, how_to_fix)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"Where: {self.where}")
        if self.how_to_fix:
            parts.append(f"How to fix: {self.how_to_fix}")
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the three texts and the possible answers as plain data."""
        return {
            "what": self.what,
            "where": self.where,
            "how_to_fix": self.how_to_fix,
            "answers": [asdict(answer) for answer in self.answers],
        }


class DataError(_Helpful):
    """Input that cannot be used: what was wrong, where, and how to fix it.

    Parameters
    ----------
    what : str
        What is wrong, with the value that was found.
    where : str, default=""
        File, column and row (rows are counted from 1, after the header).
    how_to_fix : str, default=""
        What the user can do about it.
    answers : tuple of Answer, default=()
        Settings that would let the same input through. With answers the error is
        a question: the page offers them as buttons, the command line as flags.
    """


class FitError(_Helpful):
    """A calibrator or score that cannot be fitted on these rows."""


class Cancelled(Exception):
    """Raised by a progress callback when the user asked to stop."""


def no_progress(fraction: float, message: str) -> None:
    """Accept a progress report and do nothing with it."""


def part_of(progress: Progress, start: float, stop: float) -> Progress:
    """Return the progress callback of work that is a part of a larger whole.

    Parameters
    ----------
    progress : callable
        Of the whole.
    start, stop : float
        Share of the whole that is done when the part begins and when it ends.
    """

    def report(fraction: float, message: str) -> None:
        progress(start + (stop - start) * min(max(fraction, 0.0), 1.0), message)

    return report
