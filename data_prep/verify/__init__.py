"""Checks a complete directory of records."""
