"""Named snapshots of the Settings, to come back to and to compare."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from app import compute, jobs, state
from components import display, tables
from core.analysis import UNCALIBRATED
from core.calibrators import CALIBRATORS
from core.fitting import unusable_reason
from core.messages import Progress, part_of
from core.predictions import Study
from core.settings import Settings
from core.uncertainty import Estimate

__all__ = ["draw"]

MOST = 8
METRICS = ("gap", "nll", "brier", "ece")


def kept() -> dict[str, Settings]:
    """Return the snapshots of this session, the oldest first."""
    found: dict[str, Settings] = st.session_state.setdefault("_snapshots", {})
    return found


def keep() -> None:
    """Keep the present Settings under the name in the text field."""
    field = state.key("snapshot_name")
    name = " ".join(str(st.session_state.get(field, "")).split())[:60]
    if not name:
        name = f"Snapshot {len(kept()) + 1}"
    kept()[name] = state.settings()
    for old in list(kept())[:-MOST]:
        del kept()[old]
    st.session_state[field] = ""


def drop(name: str) -> None:
    """Forget a snapshot."""
    kept().pop(name, None)


def draw(study: Study | None) -> None:
    """Draw the section: keep the choices, come back to them, compare their numbers."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input(
            "Keep the present choices as",
            key=state.key("snapshot_name"),
            placeholder="Name of the snapshot",
            max_chars=60,
            width=260,
        )
        st.button(
            "Keep",
            key=state.key("keep_snapshot"),
            icon=":material/bookmark_add:",
            on_click=keep,
        )
    if not kept():
        return
    if study is not None:
        _table(study)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox(
            "Snapshot", list(kept()), key=state.key("snapshot"), width=260
        )
        st.button(
            "Go back to it",
            key=state.key("open_snapshot"),
            icon=":material/history:",
            on_click=_open,
            args=(name,),
            disabled=kept().get(name) == state.settings(),
        )
        st.button(
            "Remove",
            key=state.key("drop_snapshot"),
            type="tertiary",
            on_click=drop,
            args=(name,),
        )


def _open(name: str) -> None:
    if name in kept():
        state.put(kept()[name])


def _table(study: Study) -> None:
    """Compare the numbers after the calibrator of each snapshot and of now."""
    chosen = {"Now": state.settings()} | kept()
    here = {n: s for n, s in chosen.items() if state.reads_alike(s)}

    def work(report: Progress) -> dict[str, dict[str, Estimate]]:
        found = {}
        for number, (name, wanted) in enumerate(here.items()):
            part = part_of(report, number / len(here), (number + 1) / len(here))
            found[name] = _numbers(study, wanted, part)
        return found

    key = " ".join(f"{name} {item.to_json()}" for name, item in here.items())
    made = jobs.run(
        f"snapshots {study.identity} {key}", "Comparing", work, slot="snapshots"
    )
    if made is None:
        return
    lines = []
    for name, wanted in chosen.items():
        line = {
            "Choices": f"**{display.escape_markdown(name)}**",
            "Calibrator": CALIBRATORS[wanted.method].label,
            "Split": wanted.split,
            "Bins": f"{wanted.n_bins} {wanted.strategy}",
            "Rows": rows_words(made.get(name, {}).get("gap")),
        }
        for metric in METRICS:
            item = made[name].get(metric) if name in made else None
            line[tables.metric_label(metric)] = tables.value_cell(metric, item)
        lines.append(line)
    display.table(
        pd.DataFrame(lines),
        alt="Numbers after the calibrator of each snapshot",
        data=partial(tables.estimates_frame, made),
        name="plumbline-snapshots",
        key=state.key("get_snapshots"),
    )
    if len(here) < len(chosen):
        st.caption("Snapshots that read the file in another way have no numbers here.")


def rows_words(item: Estimate | None) -> str:
    """Return how many rows a number comes from, and which."""
    if item is None:
        return ""
    return tables.rows_of(item.n, item.rows)


def _numbers(study: Study, wanted: Settings, report: Progress) -> dict[str, Estimate]:
    """Return the numbers of the test rows after the calibrator of some Settings."""
    method = CALIBRATORS[wanted.method].id
    # The scores as they are need a calibrator beside them to be measured on test rows.
    fitted = "temperature" if method == UNCALIBRATED else method
    calibrators = (fitted,) if unusable_reason(study, fitted) is None else ()
    found = compute.analysis(study, wanted.replace(calibrators=calibrators), report)
    if found.comparison is not None:
        results = found.comparison.views["top-label"]
        if method in results:
            return dict(results[method].estimates)
    if not found.overview.views:
        return {}
    return dict(found.overview.views["top-label"].estimates)
