"""Parameters of tests that belong to the short tests, and those that only `make test-long` runs."""

from collections.abc import Iterable

import pytest


def mark_others_long(values: Iterable[str], *short: str) -> list:
    """Returns the parameters `values`; those that are not among `short` are marked as long."""
    return [value if value in short else pytest.param(value, marks=pytest.mark.long) for value in values]
