"""Finds folders of files that are installed as packages: the shipped configs and the cluster templates."""

import importlib.resources
import pathlib


def package_data_folder(package: str, clone_folder: str) -> pathlib.Path:
    """Returns the folder of `emofuse_jax.<package>`.

    pyproject.toml maps `clone_folder` of the repository to that package. A bare clone on PYTHONPATH has no
    such mapping: there the folder stands beside the library.
    """
    try:
        return pathlib.Path(str(importlib.resources.files(f"emofuse_jax.{package}")))
    except ModuleNotFoundError:
        return pathlib.Path(__file__).parents[2] / clone_folder
