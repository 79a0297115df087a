"""Checks a finished directory of records."""
