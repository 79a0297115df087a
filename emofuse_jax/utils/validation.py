"""Configs that come from elsewhere: of the types of their defaults, and of sizes that can be built."""

import math
from collections.abc import Mapping

MOST = 1 << 20
"""Any whole number of a config is at most this large, its sign aside."""
LONGEST = 100
"""Entries of a sequence."""
COUNTS = {"blocks", "layers", "parts", "heads", "steps"}
"""Fields of a model that say how often something is built: at most LONGEST too."""


def check_fields(found: Mapping, defaults: Mapping, name: str) -> None:
    """ValueError, naming the first field of `found` that is not as in `defaults`.

    A field that `defaults` does not know is left alone, and one that `found` lacks too.
    """
    for key, default in defaults.items():
        if key in found:
            check_value(found[key], default, f"{name}.{key}")


def check_value(found: object, default: object, name: str) -> None:
    """ValueError where a value is of another type than its default, not finite, or out of all bounds."""
    if isinstance(default, Mapping):
        if not isinstance(found, Mapping):
            raise _wrong(name, found, "fields")
        check_fields(found, default, name)
    elif isinstance(default, list | tuple):
        _check_sequence(found, default, name)
    elif isinstance(default, bool) or isinstance(found, bool):
        if type(found) is not type(default):
            raise _wrong(name, found, type(default).__name__)
    elif isinstance(default, int | float):
        _check_number(found, default, name)
    elif default is not None and not isinstance(found, type(default)):
        raise _wrong(name, found, type(default).__name__)


def _check_sequence(found: object, default: list | tuple, name: str) -> None:
    if isinstance(default, tuple) and default and isinstance(found, int) and not isinstance(found, bool):
        found = [found]  # a kernel of three equal sizes
    if not isinstance(found, list | tuple) or len(found) > LONGEST:
        raise _wrong(name, found, f"a list of at most {LONGEST}")
    for one in found:
        if default:
            check_value(one, default[0], name)
        elif not isinstance(one, int | float | str):
            raise _wrong(name, found, "a list of numbers or names")


def _check_number(found: object, default: int | float, name: str) -> None:
    kinds = (int,) if isinstance(default, int) else (int, float)
    if not isinstance(found, kinds) or found != found or found in (math.inf, -math.inf):
        raise _wrong(name, found, "a whole number" if kinds == (int,) else "a finite number")
    most = LONGEST if name.rpartition(".")[2] in COUNTS else MOST
    if isinstance(found, int) and abs(found) > most:
        raise _wrong(name, found, f"at most {most}")


def _wrong(name: str, found: object, expected: str) -> ValueError:
    told = repr(found)
    return ValueError(f"{name}: {told[:60]}{'..' * (len(told) > 60)}, expected {expected}")
