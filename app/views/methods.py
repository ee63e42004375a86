"""The page "Methods"."""

import streamlit as st

st.header("Methods")
