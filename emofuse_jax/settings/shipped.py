"""The shipped experiments: configs/*.py, installed as `emofuse_jax.shipped`."""

import importlib.util
import pathlib

import ml_collections

from emofuse_jax.utils.data_folders import package_data_folder

NON_EXPERIMENT_CONFIGS = ("demo", "features", "gan")
"""Shipped configs that are not experiments: two change the experiment they are given, one is for `emofuse
gan`."""


def shipped_path(name: str) -> pathlib.Path | None:
    """Returns the file of a shipped config, or None if there is no config of that name."""
    path = package_data_folder("shipped", "configs") / f"{name}.py"
    return path if name.isidentifier() and path.is_file() else None


def shipped_names() -> list[str]:
    """Returns the names of all shipped configs."""
    paths = package_data_folder("shipped", "configs").glob("[a-z]*.py")
    return sorted(path.stem for path in paths)


def load_shipped(name: str, *argument: str) -> ml_collections.ConfigDict:
    """Returns the config of a shipped experiment: `load_shipped("am_fbp")`, `load_shipped("demo", "am_fbp")`.

    Raises:
      LookupError: no shipped config has that name.
    """
    path = shipped_path(name)
    if path is None:
        raise LookupError(f"config {name!r}: expected one of {', '.join(shipped_names())}")
    spec = importlib.util.spec_from_file_location(f"emofuse_jax.shipped.{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*argument)
