"""What is shown: notes, errors, progress, and figures with their table and text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, TypeAlias

import pandas as pd
import streamlit as st

from components import tables, theme
from core.messages import Answer, DataError, FitError, Note
from core.metrics import METRICS
from core.registry import Method
from core.uncertainty import Estimate

__all__ = [
    "NAME_WIDTH",
    "PICTURE",
    "Table",
    "chart",
    "code",
    "download_json",
    "download_table",
    "downloads",
    "error_box",
    "escape_markdown",
    "figure",
    "file_stem",
    "fit_error",
    "made_words",
    "method_tip",
    "notes",
    "progress",
    "provenance",
    "stopped",
    "table",
    "verdict",
]

Table: TypeAlias = pd.DataFrame | Callable[[], pd.DataFrame]
"""Numbers to download, or what makes them once somebody asks for them."""

NAME_WIDTH = 120
"""Pixels of a column of class names, however long: the numbers stay in sight."""

PICTURE = "picture"
"""Where the session keeps the format of saved pictures: "PNG" or "SVG"."""

_SPECIAL = re.compile(r"([\\`*_\[\]<>~$&|#])")
_LIST_MARK = re.compile(r"^(\d*)([-+=.)])")
_FIGURES = re.compile(r"(\d[\d,]*(?:\.\d+)?(?:\u00a0%)?)")
_ICONS = {
    "info": ":material/info:",
    "question": ":material/help:",
    "warning": ":material/warning:",
}
_COLORS = {"info": "gray", "question": "violet", "warning": "orange"}
_ORDER = ("warning", "question", "info")

MINIMAL_EXAMPLE = """\
id,label,logit_cat,logit_dog,logit_owl
1,cat,2.31,0.14,-1.02
2,dog,0.40,1.87,0.22
3,owl,-0.75,0.31,0.98
4,cat,1.12,1.25,-0.44
"""


def escape_markdown(text: Any) -> str:
    """Return a string from a file so that Markdown shows it as it is.

    Punctuation is escaped. A colon is followed by an invisible joiner, since icons
    and colours (``:material/home:``) are recognised after Markdown has been read.
    """
    flat = " ".join(str(text).split())
    flat = _SPECIAL.sub(r"\\\1", flat).replace(":", "\\:\N{WORD JOINER}")
    return _LIST_MARK.sub(r"\1\\\2", flat)


def code(text: Any) -> str:
    """Return the name of a column or a file as a code span."""
    flat = " ".join(str(text).split()) or " "
    # Icons (``:material/home:``) are recognised in code spans too.
    flat = re.sub(r":(?=\w)", ":\N{WORD JOINER}", flat)
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def file_stem(name: str) -> str:
    """Return a harmless start for names of downloads."""
    stem = PurePath(name).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "plumbline"


def downloads(
    table: Table,
    name: str,
    key: str,
    label: str = "CSV",
) -> Any:
    """Offer a table as CSV and as JSON, side by side.

    Parameters
    ----------
    table : DataFrame or callable that returns one
        In full: not the cells of Markdown that the page shows.
    name : str
        Of the files, without their ending.
    key : str
        Of the first button; the second one has ``_json`` behind it.
    label : str, default="CSV"
        Of the first button, where there is something to say.

    Returns
    -------
    streamlit.delta_generator.DeltaGenerator
        The row of buttons, to put others beside them.
    """
    row = st.container(horizontal=True, vertical_alignment="center", gap="small")
    with row:
        download_table(table, name, key, label)
        download_json(table, name, f"{key}_json")
    return row


def download_table(
    table: Table,
    name: str,
    key: str,
    label: str = "CSV",
) -> None:
    """Offer a table as CSV; made only when it is asked for."""
    st.download_button(
        label,
        data=lambda: _csv(table),
        file_name=f"{name}.csv",
        mime="text/csv",
        key=key,
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help=f"{name}.csv",
    )


def download_json(table: Table, name: str, key: str) -> None:
    """Offer a table as JSON, one object per line of the table."""
    st.download_button(
        "JSON",
        data=lambda: _json(table),
        file_name=f"{name}.json",
        mime="application/json",
        key=key,
        type="tertiary",
        on_click="ignore",
        help=f"{name}.json",
    )


def _csv(table: Table) -> bytes:
    # No page needs what writes files before the first download.
    from core.export import write_csv

    return write_csv(table() if callable(table) else table)


def _json(table: Table) -> bytes:
    from core.export import write_json

    return write_json(table() if callable(table) else table)


def chart(
    fig: Any, *, alt: str, name: str, key: str, on_bin: Callable[[], None] | None = None
) -> None:
    """Show a figure with its description and the name of its saved picture.

    Parameters
    ----------
    on_bin : callable, optional
        Called when somebody clicks a point; the selection is in the session state.
    """
    picture = st.session_state.get(PICTURE, "PNG").lower()
    st.plotly_chart(
        fig,
        key=key,
        alt=alt,
        config=theme.chart_config(name, picture),
        theme="streamlit",
        on_select=on_bin or "ignore",
        selection_mode="points",
    )


def figure(
    fig: Any,
    *,
    alt: str,
    name: str,
    key: str,
    table: Table,
    on_bin: Callable[[], None] | None = None,
) -> None:
    """Show a figure with its description, its saved name and its numbers."""
    chart(fig, alt=alt, name=name, key=key, on_bin=on_bin)
    downloads(table, name, f"get_{key}", "Numbers in this figure")


def table(
    frame: pd.DataFrame,
    alt: str,
    *,
    data: Table | None = None,
    name: str = "",
    key: str = "",
    label: str = "CSV",
) -> Any:
    """Show a small table whose cells are Markdown, and its numbers to download.

    Parameters
    ----------
    frame : DataFrame
        What is shown.
    alt : str
        What it is, for those who cannot see it.
    data : DataFrame or callable that returns one, optional
        The numbers behind it in full; None where the page offers them itself.
    name, key, label : str
        Of the downloads (see `downloads`).

    Returns
    -------
    streamlit.delta_generator.DeltaGenerator or None
        The row of buttons, where there is one.
    """
    st.table(frame, border="horizontal", hide_index=True, alt=alt)
    return None if data is None else downloads(data, name, key, label)


def notes(items: Iterable[Note], *, limit: int = 4) -> None:
    """Show remarks compactly, what matters most first; the rest on demand."""
    unique = list(dict.fromkeys(items))
    unique.sort(key=lambda note: _ORDER.index(note.severity))
    for note in unique[:limit]:
        _note(note)
    if unique[limit:]:
        with st.popover(
            tables.count_of(len(unique) - limit, "more remark"), type="tertiary"
        ):
            for note in unique[limit:]:
                _note(note)


def _note(note: Note) -> None:
    color, icon = _COLORS[note.severity], _ICONS[note.severity]
    st.markdown(f":{color}[{icon}] :small[{escape_markdown(note.text)}]")


def error_box(
    error: DataError | FitError,
    *,
    on_answer: Callable[[Answer], None] | None = None,
    on_dismiss: Callable[[], None] | None = None,
    example: bool = True,
    key: str = "problem",
) -> None:
    """Say what is wrong, where and how to fix it, with answers as buttons."""
    first, _, rest = error.how_to_fix.partition("\n")
    lines = []
    if error.where:
        lines.append(f"**Where**\u2002{escape_markdown(error.where)}")
    if first:
        lines.append(f"**How to fix**\u2002{escape_markdown(first)}")
    with st.container(key=f"{key}-box", gap="small"):
        st.error(
            "\n\n".join(lines) or " ",
            title=escape_markdown(error.what),
            icon=":material/error:",
        )
        if rest:
            st.code(rest, language="python")
        with st.container(horizontal=True, gap="small"):
            _answers(error.answers, on_answer, key)
            if example:
                st.download_button(
                    "A minimal valid file",
                    data=MINIMAL_EXAMPLE,
                    file_name="example.csv",
                    mime="text/csv",
                    icon=":material/download:",
                    key=f"{key}-example",
                    on_click="ignore",
                )
            if on_dismiss is not None:
                st.button(
                    "Dismiss",
                    key=f"{key}-dismiss",
                    type="tertiary",
                    on_click=on_dismiss,
                )


def _answers(
    answers: Sequence[Answer], on_answer: Callable[[Answer], None] | None, key: str
) -> None:
    if on_answer is None:
        return
    for number, item in enumerate(answers):
        st.button(
            escape_markdown(item.label),
            key=f"{key}-answer-{number}",
            type="primary" if number == 0 else "secondary",
            on_click=on_answer,
            args=(item,),
        )


def fit_error(error: FitError, key: str = "fit-problem") -> None:
    """Show why something could not be fitted."""
    error_box(error, example=False, key=key)


def progress(
    label: str,
    fraction: float,
    message: str,
    *,
    seconds: float,
    cancel: Callable[[], None],
    key: str,
) -> None:
    """Draw a progress bar with a button that cancels."""
    with st.container(border=True, gap="small"):
        st.markdown(f"**{escape_markdown(label)}** :small[:gray[{seconds:.0f} s]]")
        st.progress(fraction, text=escape_markdown(message) or " ")
        st.button("Cancel", key=key, icon=":material/close:", on_click=cancel)


def stopped(label: str, start: Callable[[], None], *, key: str) -> None:
    """Say that work was cancelled, and offer to start it again."""
    with st.container(border=True, gap="small"):
        st.markdown(f"**{escape_markdown(label)}** was stopped.")
        st.button("Start again", key=key, icon=":material/refresh:", on_click=start)


def verdict(headline: str, sentence: str, color: str) -> None:
    """Show the verdict in large words, its figures in bold."""
    st.title(f":{color}[{escape_markdown(headline)}]", anchor=False)
    together = escape_markdown(sentence).replace(" %", "\u00a0%")
    bold = _FIGURES.sub(r"**\1**", together)
    st.subheader(bold, anchor=False)


def provenance(
    columns: Mapping[str, Mapping[str, Estimate]],
    lines: Sequence[str],
    key: str,
    *,
    bins: str = "",
    more: Callable[[], None] | None = None,
) -> None:
    """Offer how each number was computed: formula, rows, interval, bins and seed.

    Parameters
    ----------
    columns : mapping of str to mapping of str to Estimate
        What the numbers are of ("Before", "After", ...) -> metric -> Estimate.
    lines : sequence of str
        Markdown about all of them.
    key : str
        Of the button that downloads them.
    bins : str, default=""
        How rows were sorted into bins, said beside the metrics that need bins.
    more : callable, optional
        Draws what goes below them.
    """
    # It never tells the server that it opens or closes: a message about closing can
    # overtake the one about the next page, and the old page would come back.
    box = st.popover(
        "Why this number?", icon=":material/receipt_long:", type="tertiary"
    )
    with box:
        for line in lines:
            st.markdown(line)
        metrics = dict.fromkeys(name for found in columns.values() for name in found)
        for metric in tables.in_order(metrics):
            st.markdown(made_words(metric, columns, bins))
        frame = partial(tables.estimates_frame, columns)
        downloads(frame, "plumbline-numbers", key, "Every number, as CSV")
        if more is not None:
            more()


def method_tip(method: Method) -> str:
    """Return the tooltip of a method: its docstring's first line, formula, source."""
    parts = [escape_markdown(method.summary)]
    if method.formula:
        parts.append(f"${method.formula}$")
    if method.reference.strip() not in ("", "-"):
        parts.append(escape_markdown(method.reference))
    return "\n\n".join(parts)


def made_words(
    metric: str, columns: Mapping[str, Mapping[str, Estimate]], bins: str = ""
) -> str:
    """Return how one metric was computed in each column, as Markdown."""
    known = METRICS[metric]
    names: dict[str, list[str]] = {}
    for name, found in columns.items():
        if metric in found:
            names.setdefault(_made(found[metric]), []).append(name)
    head = f"**{escape_markdown(tables.metric_label(metric))}**"
    if known.formula:
        head += f"\u2002 ${known.formula}$"
    if bins and known.traits["needs"] == "bins":
        head += f"\u2002 :small[:gray[{escape_markdown(bins)}]]"
    items = (
        f"- {escape_markdown(', '.join(of))}: :gray[{escape_markdown(words)}]"
        for words, of in names.items()
    )
    return "\n\n".join([head, "\n".join(items)])


def _made(item: Estimate) -> str:
    words = [item.method or "no interval"]
    if item.method and item.low is not None:
        words.append(f"level {item.level:g}")
    return ", ".join([*words, tables.rows_of(item.n, item.rows)])
