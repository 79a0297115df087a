"""Installed versions of packages."""

import importlib.metadata
from collections.abc import Iterable

NUMERICAL_PACKAGES = ("emofuse", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
"""Packages on which the numbers of a run depend."""


def package_versions(names: Iterable[str] = NUMERICAL_PACKAGES) -> dict[str, str]:
    """Returns the version of each installed package by name.

    Raises:
      PackageNotFoundError: one is not installed.
    """
    return {name: importlib.metadata.version(name) for name in names}
