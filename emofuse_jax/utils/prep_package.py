"""Checks that `import data_prep` means the package of emofuse, not a user's folder of the same name."""

import importlib.util
import os


def check_prep_package() -> None:
    """Returns if `data_prep` is found beside `emofuse_jax`, as in every kind of installation.

    Nothing is imported. An editable install searches the working directory and PYTHONPATH before its own
    packages, so there even a folder without Python files hides ours.

    Raises:
      ValueError: `import data_prep` finds another package or nothing; one line that names the folder.
    """
    folder = os.path.dirname(os.path.dirname(os.path.realpath(os.path.dirname(__file__))))
    expected = os.path.join(folder, "data_prep")
    spec = importlib.util.find_spec("data_prep")
    if spec is None:
        raise ValueError(f"{expected}: this part of emofuse is missing; install emofuse again")
    location = [*(spec.submodule_search_locations or ()), spec.origin][0]
    if os.path.realpath(location) != os.path.realpath(expected):
        raise ValueError(
            f"{location}: hides emofuse's own package data_prep, which lies in {folder}; rename it, or remove"
            f" {os.path.dirname(location)} from PYTHONPATH and sys.path"
        )
