"""Which out-of-distribution scores are computed: the choice, and the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from app import compute, jobs, relevant, state
from components import controls, display
from core.messages import Progress
from core.ood import DETECTORS, Detection, DetectorMethod, default_panel
from core.predictions import Study
from core.settings import Settings

TUNINGS = {
    "none": "Not at all",
    "validation": "Rows that are set aside, and in no number",
    "cross-fit": "Every row, for the others: it has met their kind before",
}
TUNED = (
    "Layers of Mahalanobis and the logistic combination have weights that OOD rows may "
    "tune. Without them they weigh what they are made of alike."
)

__all__ = ["choice", "effective", "results", "wanted"]


def wanted(chosen: Settings) -> tuple[str, ...]:
    """Return the scores that were chosen, by default the panel."""
    known = (DETECTORS[name].id for name in chosen.detectors if name in DETECTORS)
    return tuple(dict.fromkeys(known)) or default_panel()


def effective(study: Study, chosen: Settings) -> Settings:
    """Return settings whose threshold these rows allow: others need OOD rows."""
    if study.ood:
        return chosen
    return chosen.replace(
        threshold_rule="tpr",
        threshold_target=chosen.threshold_target
        if chosen.threshold_rule == "tpr"
        else 0.95,
        ood_tuning="none",
    )


def choice(study: Study, chosen: Settings, reasons: Mapping[str, str]) -> None:
    """Choose scores; those that the rows do not allow are greyed with the reason."""
    picked = [name for name in wanted(chosen) if name not in reasons]
    words = f"Scores: {len(picked)} of {len(DETECTORS)}"
    first = [DETECTORS[name] for name in default_panel()]
    more = [m for m in DETECTORS.values() if m.tier != "default"]
    box = st.expander(words, icon=":material/checklist:", key=state.key("ood_choice"))
    with box, st.form("ood_choice_form", border=False, enter_to_submit=False):
        _grid(first, chosen, reasons)
        with st.expander("More scores"):
            _grid(more, chosen, reasons)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.form_submit_button(
                "Compute",
                type="primary",
                icon=":material/play_arrow:",
                key=state.key("ood_compute"),
                on_click=_take_choice,
                args=(frozenset(reasons),),
            )
            st.form_submit_button(
                "Default scores",
                type="tertiary",
                key=state.key("ood_default"),
                on_click=state.change,
                kwargs={"detectors": ()},
            )
    with box:
        tuning(study, chosen)


def tuning(study: Study, chosen: Settings) -> None:
    """Choose whether OOD rows may tune what has weights to tune."""
    if not study.ood:
        return
    with st.container(width=420):
        controls.setting_choice(
            "OOD rows tune weights",
            state.key("ood_tuning", resets=True),
            list(TUNINGS),
            chosen.ood_tuning,
            lambda value: state.change(ood_tuning=value),
            names=TUNINGS,
            help=TUNED,
        )


def _grid(
    members: Sequence[DetectorMethod], chosen: Settings, reasons: Mapping[str, str]
) -> None:
    for start in range(0, len(members), 3):
        row = members[start : start + 3]
        for column, method in zip(st.columns(3, gap="medium"), row, strict=False):
            with column:
                _box(method, chosen, reasons.get(method.id))


def _box(method: DetectorMethod, chosen: Settings, reason: str | None) -> None:
    """Draw the box of one score with its summary, or why it is greyed."""
    widget = state.key(f"ood_pick_{method.id}")
    is_chosen = method.id in wanted(chosen) and reason is None
    if st.session_state.get(widget) != is_chosen:
        state.assign(f"ood_pick_{method.id}", is_chosen)
    with st.container(gap="xxsmall"):
        st.checkbox(
            method.label,
            key=widget,
            disabled=reason is not None,
            help=display.method_tip(method),
        )
        words = display.escape_markdown(reason or method.summary)
        st.caption(f"{':material/block: ' if reason else ''}{words}")
        if not method.params or reason is not None:
            return
        options = chosen.method_options(method.id)
        with st.popover(f"Options of {method.label}", type="tertiary"):
            for param in method.params:
                controls.param_widget(
                    param,
                    state.key(f"ood_option_{method.id}_{param.name}"),
                    options.get(param.name, param.default),
                )


def _take_choice(greyed: frozenset[str]) -> None:
    """Take the boxes and options into the Settings; the usable panel is no choice."""
    now = st.session_state
    picked = tuple(
        name for name in DETECTORS if now.get(state.key(f"ood_pick_{name}")) is True
    )
    options = tuple(
        item for item in state.settings().options if item[0] not in DETECTORS
    )
    options += tuple(
        (name, param.name, now[widget])
        for name in DETECTORS
        for param in DETECTORS[name].params
        for widget in [state.key(f"ood_option_{name}_{param.name}")]
        if widget in now and now[widget] != param.default
    )
    if set(picked) == set(default_panel()) - greyed:
        picked = ()
    state.change(detectors=picked, options=options)


def results(
    study: Study, chosen: Settings, methods: tuple[str, ...]
) -> tuple[Detection | None, bool]:
    """Compute scores as a job; return those that are there, and whether all are."""
    own = tuple(item for item in chosen.options if item[0] in DETECTORS)
    asked = chosen.replace(options=own)

    def work(report: Progress, publish: jobs.Publish) -> Detection:
        found = None
        for found in compute.detections(study, asked, methods, report):
            publish(found)
        assert found is not None  # noqa: S101 - there is at least one stage
        return found

    return jobs.follow(
        f"ood {study.identity} {relevant.to_detections(asked).to_json()} {methods}",
        "Fitting and scoring",
        work,
        slot="ood",
    )
