"""A bundle and a checkpoint for tests of what is refused."""

import pathlib
import shutil

import pytest


@pytest.fixture(scope="module", autouse=True)
def _unchecked_shapes(unchecked_shapes):
    """An export's batch size is a symbol."""


@pytest.fixture
def bundle_copy(bundle_path, tmp_path):
    """A bundle to alter."""
    return pathlib.Path(shutil.copytree(bundle_path, str(tmp_path / "bundle")))
