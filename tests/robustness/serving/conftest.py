"""Tests of this folder export or load bundles, whose batch size is a symbol: shapes are not checked."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _unchecked_shapes(unchecked_shapes):
    """Uses the fixture in every module."""
