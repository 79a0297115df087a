"""Finds and loads the shipped configs: configs/*.py, installed as `emofuse_jax.shipped`."""

import importlib.util
import pathlib

import ml_collections

from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.settings.experiment import base
from emofuse_jax.utils.data_folders import package_data_folder

NON_EXPERIMENT_CONFIGS = ("demo", "gan")
"""Shipped configs that are not experiments: one makes an experiment small, one is for `emofuse gan`."""


def shipped_path(name: str) -> pathlib.Path | None:
    """Returns the absolute path of a shipped config file, or None if no shipped config has that name.

    `name` is the name of the file without `.py`.
    """
    path = package_data_folder("shipped", "configs") / f"{name}.py"
    return path if name.isidentifier() and path.is_file() else None


def shipped_names() -> list[str]:
    """Returns the sorted names of all shipped configs, including the non-experiments `demo` and `gan`."""
    paths = package_data_folder("shipped", "configs").glob("[a-z]*.py")
    return sorted(path.stem for path in paths)


def load_shipped(name: str, *argument: str) -> ml_collections.ConfigDict:
    """Returns a shipped config, for example `load_shipped("am_fbp")` or `load_shipped("demo", "am_fbp")`.

    Args:
      name: Name of the config file without `.py`.
      *argument: Passed to the file's `get_config`; `demo` and `features` take the name of an experiment.

    Raises:
      LookupError: No shipped config has that name, or `argument` names no experiment.
      TypeError: The file's `get_config` does not take these arguments.
      ValueError: `argument` is a fusion of an installed package that cannot be imported or used.
    """
    path = shipped_path(name)
    if path is None:
        raise LookupError(f"config {name!r}: expected one of {', '.join(shipped_names())}")
    spec = importlib.util.spec_from_file_location(f"emofuse_jax.shipped.{name}", path)
    assert spec is not None  # the path ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*argument)


def experiment_names() -> list[str]:
    """Returns the names of the shipped experiments and of the registered fusions, sorted, without duplicates.

    The shipped configs `demo` and `gan` are not experiments and are left out; `features` is one.
    """
    return sorted({*FUSIONS} | ({*shipped_names()} - {*NON_EXPERIMENT_CONFIGS}))


def load_experiment(name: str) -> ml_collections.ConfigDict:
    """Returns the config of a shipped experiment (also `features`), else the default config of a fusion.

    `name` is one of `experiment_names()`. The shipped experiment comes first if a fusion has the same name.

    Raises:
      LookupError: there is neither a shipped experiment nor a fusion of that name.
      ValueError: an installed package provides the fusion, but it cannot be imported or used.
    """
    if name not in NON_EXPERIMENT_CONFIGS and shipped_path(name):
        return load_shipped(name)
    if name not in FUSIONS:
        raise LookupError(f"experiment {name!r}: expected one of {', '.join(experiment_names())}")
    return base(name)
