"""The page "Calibrators"."""

import streamlit as st

st.header("Calibrators")
