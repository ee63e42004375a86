"""From a file to a verdict: how far the confidence can be trusted, and the repair."""

import streamlit as st

from app import compute, jobs, state
from components import display

study = state.study()
if study is not None:
    wanted = compute.temperature_settings(state.settings())
    result = jobs.run(
        f"overview {study.fingerprint} {wanted.to_json()}",
        "Measuring",
        lambda report: compute.analysis(study, wanted, report),
        slot="overview",
    )
    if result is not None:
        st.header(result.overview.verdict.headline)
        st.markdown(display.escape_markdown(result.overview.verdict.sentence))
