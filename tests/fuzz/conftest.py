"""A bundle and a checkpoint for tests of what is refused."""

import pathlib
import shutil

import pytest

from tests.serving.conftest import _unchecked_shapes, bundle_path, trained  # noqa: F401


@pytest.fixture
def bundle_copy(bundle_path, tmp_path):  # noqa: F811
    """A bundle to alter."""
    return pathlib.Path(shutil.copytree(bundle_path, str(tmp_path / "bundle")))
