"""Imports every module of ours; those that need a package that is not installed are told."""

import importlib
import pkgutil

from absl import flags

PACKAGES = ("emofuse_jax", "data_prep")


def main() -> None:
    """Prints how many were imported, and which could not be."""
    imported_count = 0
    for package in PACKAGES:
        package_module = importlib.import_module(package)
        for module in pkgutil.walk_packages(package_module.__path__, f"{package}."):
            if ".cli." in module.name:
                forget_flags()  # two verbs may have flags of one name
            try:
                importlib.import_module(module.name)
                imported_count += 1
            except ModuleNotFoundError as error:
                print("left out:", module.name, error.name)
    print("imported:", imported_count)


def forget_flags() -> None:
    """As at the start of a process."""
    for name in list(flags.FLAGS):
        delattr(flags.FLAGS, name)


if __name__ == "__main__":
    main()
