"""Scenes export bundles: shapes are not checked there, as in tests/serving."""

from tests.serving.conftest import _unchecked_shapes  # noqa: F401
