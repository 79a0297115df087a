"""Whole tasks in one call: what the commands and the public API run."""
