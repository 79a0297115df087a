"""Finds folders of data files that are installed as packages: shipped configs and cluster templates."""

import importlib.resources
import pathlib


def package_data_folder(package: str, clone_folder: str) -> pathlib.Path:
    """Returns the absolute path of the data folder that is installed as `emofuse_jax.<package>`.

    pyproject.toml maps the folder `clone_folder` of the repository to that package. A bare clone on
    PYTHONPATH has no such mapping; there, the function returns `clone_folder` next to the library. It does
    not check that this folder exists.
    """
    try:
        return pathlib.Path(str(importlib.resources.files(f"emofuse_jax.{package}")))
    except ModuleNotFoundError:
        return pathlib.Path(__file__).parents[2] / clone_folder
