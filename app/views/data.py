"""Which file, which columns, which rows."""

import streamlit as st

from app import state

st.header("Data")
st.file_uploader(
    "Predictions",
    key=state.key("upload"),
    on_change=state.open_upload,
    args=(state.key("upload"),),
)
