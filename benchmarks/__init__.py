"""Measures speed next to other libraries on the same machine; runs from a clone, not installed."""
