"""The page "Export"."""

import streamlit as st

st.header("Export")
