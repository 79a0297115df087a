"""Tests of this folder start processes that search many frames with few programs."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _user_environment(users_environment):
    """Uses the fixture in every module."""
