"""The version of emofuse, and the installed versions of other packages."""

import importlib.metadata
from collections.abc import Iterable

EMOFUSE_VERSION = "0.1.0"
"""Version of this code; pyproject.toml reads it from here, so that it is also known without installation."""
NUMERICAL_PACKAGES = ("emofuse", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
"""Packages whose version may change the numerical results of a run."""


def package_versions(names: Iterable[str] = NUMERICAL_PACKAGES) -> dict[str, str]:
    """Returns the version of each package in `names`, by name, such as `{"jax": "0.10.2"}`.

    The version of `emofuse` is that of this code, which need not be installed.

    Args:
      names: names of packages; by default `emofuse`, `jax`, `jaxlib`, `flax`, `optax`, `orbax-checkpoint`,
        `grain` and `numpy`, whose versions may change the results of a run.

    Raises:
      PackageNotFoundError: a package other than emofuse is not installed (a ModuleNotFoundError).
    """
    return {
        name: EMOFUSE_VERSION if name == "emofuse" else importlib.metadata.version(name) for name in names
    }
