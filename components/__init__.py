"""Reusable parts of the front ends: figures, tables and thin widgets."""
