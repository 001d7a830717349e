"""Readers: whatever holds CT slices -> ``CtSlice``."""
