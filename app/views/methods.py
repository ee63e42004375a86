"""Every metric, curve, calibrator and score: formula, paper, options, our words."""

from functools import partial

import streamlit as st

from app import state
from components import display, methods
from core.calibrators import CALIBRATORS
from core.metrics import CURVES, METRICS
from core.ood import DETECTORS, DetectorMethod
from core.registry import Method, Registry
from core.segmentation import MAP_CALIBRATORS

FAMILIES: dict[str, Registry] = {
    "Calibrators": CALIBRATORS,
    "Metrics": METRICS,
    "Reliability curves": CURVES,
    "Segmentation maps": MAP_CALIBRATORS,
    "Out-of-distribution": DETECTORS,
}


def entry(method: Method) -> None:
    """Draw one method: its name and meaning, its formula beside it."""
    # A metric and a score may have the same id.
    prefix = "ood-" if isinstance(method, DetectorMethod) else ""
    with st.container(border=True, key=state.key(f"method_{prefix}{method.id}")):
        left, right = st.columns([6, 7], gap="medium", vertical_alignment="center")
        with left:
            more = " :gray-badge[more methods]" if method.tier != "default" else ""
            st.markdown(
                f"**{display.escape_markdown(method.label)}**{more}  \n"
                f"{display.escape_markdown(method.summary)}  \n"
                f":small[:gray[{small_print(method)}]]"
            )
            advice = methods.advice_markdown(method)
            if advice:
                st.markdown(advice)
            if isinstance(method, DetectorMethod) and method.assumes:
                st.caption(f"Assumes: {display.escape_markdown(method.assumes)}")
            if method.params:
                words = ", ".join(methods.option_words(item) for item in method.params)
                helps = "  \n".join(
                    f"{display.code(item.name)} {item.help}" for item in method.params
                )
                st.caption(
                    f":material/tune: {display.escape_markdown(words)}", help=helps
                )
        with right:
            if method.formula:
                st.latex(methods.formula_lines(method.formula))


def small_print(method: Method) -> str:
    """Return ids and paper in one line of Markdown."""
    names = [display.code(method.id), *method.aliases]
    parts = [", ".join(names)]
    reference = methods.reference_markdown(method.reference)
    if reference:
        parts.append(reference)
    return " \u00b7 ".join(parts)


st.header("Methods", anchor=False)
with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    with st.container(width=360):
        words = st.text_input(
            "Search",
            key=state.key("search"),
            placeholder="Name, id or paper",
            icon=":material/search:",
            label_visibility="collapsed",
        )
    family = st.segmented_control(
        "Family",
        [*FAMILIES, "All"],
        default="Calibrators",
        required=True,
        key=state.key("family"),
        label_visibility="collapsed",
    )

    slot = st.container(width="content")

shown = [FAMILIES[family]] if family in FAMILIES else list(FAMILIES.values())
found = methods.found_methods(shown, words or "")
elsewhere = [] if found else methods.found_methods(FAMILIES.values(), words or "")
if elsewhere:
    st.markdown(f"**Nothing in {family}.** Found elsewhere:")
found = found or elsewhere
with slot:
    display.downloads(
        partial(methods.methods_frame, found),
        "plumbline-methods",
        state.key("get_methods"),
    )
for title, registry in FAMILIES.items():
    own = [method for name, method in found if name == registry.family]
    own.sort(key=methods.reading_order)
    if own:
        st.subheader(title, anchor=False)
        with st.container(gap="small"):
            for method in own:
                entry(method)
if not found:
    st.markdown("**Nothing found.** Try a shorter word.")

st.subheader("Words", anchor=False)
with st.container(gap="xsmall"):
    for word, meaning in methods.GLOSSARY.items():
        left, right = st.columns([1, 6], gap="small")
        left.markdown(f"**{word}**")
        right.markdown(meaning)
