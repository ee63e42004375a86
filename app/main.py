"""The page of Plumbline: streamlit run app/main.py."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = str(HERE.parent)
# Only the root may be on the path: with "app/" too every module would exist twice.
sys.path[:] = [ROOT, *(p for p in sys.path if p not in (ROOT, str(HERE)))]

import streamlit as st

from app import ready

ahead = ready.draw_ahead()

from app import bar, jobs, opening
from components import theme

# The results carry their notes; Python's warnings name lines of code.
warnings.filterwarnings("ignore", category=UserWarning, module="core")

st.set_page_config(
    page_title="Plumbline",
    page_icon=theme.MARK,
    layout="wide",
    initial_sidebar_state="collapsed",
)
st.logo(theme.LOGO, size="large")
st.html(theme.STYLE)

page = st.navigation(
    [
        st.Page(
            "views/overview.py",
            title="Overview",
            icon=":material/balance:",
            default=True,
            help="How far the confidence of the model can be trusted, and the repair.",
        ),
        st.Page(
            "views/reliability.py",
            title="Reliability",
            icon=":material/show_chart:",
            help="Reliability of the predicted class and of each class, bin by bin.",
        ),
        st.Page(
            "views/calibrators.py",
            title="Calibrators",
            icon=":material/tune:",
            help="Fit calibrators, compare them on the same rows, try a temperature.",
        ),
        st.Page(
            "views/decisions.py",
            title="Decisions",
            icon=":material/rule:",
            help="Confusion matrix, recall and precision, thresholds and their cost.",
        ),
        st.Page(
            "views/ood.py",
            title="Out-of-distribution",
            url_path="out-of-distribution",
            icon=":material/travel_explore:",
            help="Scores that tell rows which the model should not trust itself with.",
        ),
        st.Page(
            "views/segmentation.py",
            title="Segmentation",
            icon=":material/grid_on:",
            help="Maps with a class for every pixel: one temperature, or local ones.",
        ),
        st.Page(
            "views/data.py",
            title="Data",
            icon=":material/table_view:",
            help="Upload a file, check what was understood, choose columns and split.",
        ),
        st.Page(
            "views/export.py",
            title="Export",
            icon=":material/ios_share:",
            help="Take the calibrator home as JSON or Python, verified on your rows.",
        ),
        st.Page(
            "views/methods.py",
            title="Methods",
            icon=":material/functions:",
            help="Every metric and calibrator with its formula and its paper.",
        ),
    ],
    position="top",
)
st.set_page_config(page_title=f"{page.title} \N{MIDDLE DOT} Plumbline")

opening.begin()
with (
    jobs.waiting(),
    st.container(horizontal_alignment="center"),
    st.container(width=1240, gap="medium"),
):
    if opening.ensure_study():
        bar.draw(page.url_path)
        if not bar.lacks_scores(page.url_path, page.title):
            page.run()
st.html(bar.QUIET_IN_FIELDS, unsafe_allow_javascript=True)
ahead.empty()
