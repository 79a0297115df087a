"""Prints the wheels of a folder whose packages are not installed: python benchmarks/missing_wheels.py FOLDER.

It uses only the standard library, because it runs before anything is installed.
"""

import importlib.metadata
import pathlib
import sys


def missing_wheels(folder: str) -> list[pathlib.Path]:
    """Returns the wheels in `folder` whose package is not installed, in any version."""
    wheels = sorted(pathlib.Path(folder).glob("*.whl"))
    return [wheel for wheel in wheels if not is_installed(wheel.name.split("-")[0])]


def is_installed(name: str) -> bool:
    """Returns True if a package of this name is installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    for path in missing_wheels(sys.argv[1]):
        print(path)
