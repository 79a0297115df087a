"""Shapes are checked by the tests of units and contracts; here they would cost a fifth of the time.

The batch size of an exported bundle is a symbol, which the checks can't take.
"""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _unchecked_shapes(unchecked_shapes):
    """Uses the fixture in every module."""
