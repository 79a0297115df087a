"""Checks that `import data_prep` imports the package of emofuse, not a user's folder of the same name."""

import importlib.util
import os


def check_prep_package() -> None:
    """Raises ValueError unless `import data_prep` would import the package next to `emofuse_jax`.

    Every kind of installation stores the two packages next to each other. The function imports nothing and
    returns nothing. With an editable install, Python searches the working directory and PYTHONPATH first, so
    that even a folder `data_prep` without Python files hides the package.

    Raises:
      ValueError: The import would find another package or none; the message names the folder.
    """
    folder = os.path.dirname(os.path.dirname(os.path.realpath(os.path.dirname(__file__))))
    expected = os.path.join(folder, "data_prep")
    spec = importlib.util.find_spec("data_prep")
    if spec is None:
        raise ValueError(f"{expected}: this package of emofuse is missing; install emofuse again")
    location = [*(spec.submodule_search_locations or ()), spec.origin][0]
    if os.path.realpath(location) != os.path.realpath(expected):
        raise ValueError(
            f"{location}: hides the package data_prep of emofuse, which is stored in {folder}; rename it, or"
            f" remove {os.path.dirname(location)} from PYTHONPATH and sys.path"
        )
