"""Imports optional packages where they are used."""

import importlib
import importlib.util
import types


def require_package(name: str, extra: str, purpose: str) -> types.ModuleType:
    """Imports a module of a package and returns the module.

    Args:
      name: name of the module, such as `pyarrow.parquet`.
      extra: extra of emofuse that contains the package.
      purpose: what needs the package, for the error message.

    Raises:
      ValueError: the package is not installed; one line that says how to install it.
      ImportError: the package is installed, but it has no such module or cannot be imported.
    """
    message = missing_package_message(name, extra, purpose)
    if message:
        raise ValueError(message)
    return importlib.import_module(name)


def is_installed(package: str) -> bool:
    """Returns True if a package can be imported, without importing it; otherwise False."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # hidden by an import hook or by None in sys.modules
        return False


def missing_package_message(name: str, extra: str, purpose: str) -> str:
    """Returns one line that says how to install a missing package; "" if the package is installed.

    Args:
      name: name of the package or of a module in it.
      extra: extra of emofuse that contains the package.
      purpose: what needs the package.
    """
    package = name.partition(".")[0]
    if is_installed(package):
        return ""
    hint = f"run pip install '.[{extra}]' in a clone of emofuse, or pip install {package}"
    return f"{purpose} needs {package}: {hint}"
