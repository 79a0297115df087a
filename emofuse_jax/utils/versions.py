"""Looks up the installed versions of packages."""

import importlib.metadata
from collections.abc import Iterable

NUMERICAL_PACKAGES = ("emofuse", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
"""Packages whose version may change the numerical results of a run."""


def package_versions(names: Iterable[str] = NUMERICAL_PACKAGES) -> dict[str, str]:
    """Returns the installed version of each package in `names`, by name.

    Raises:
      PackageNotFoundError: One of the packages is not installed.
    """
    return {name: importlib.metadata.version(name) for name in names}
