"""Configs that come from elsewhere: of the types of their defaults, and of sizes that can be built."""

import math
from collections.abc import Mapping

MAX_INTEGER = 1 << 20
"""Any whole number of a config is at most this large, its sign aside."""
MAX_COUNT = 100
"""Entries of a sequence."""
MAX_SEED = (1 << 32) - 1
COUNT_FIELDS = {"blocks", "layers", "parts", "heads", "steps"}
"""Fields of a model that say how often something is built: at most MAX_COUNT too."""


def reject_unknown_fields(fields: Mapping, defaults: Mapping, name: str) -> None:
    """Raises ValueError, naming the first field of `fields` that `defaults` does not have."""
    for key, value in fields.items():
        if key not in defaults:
            raise ValueError(f"{name}.{str(key)[:100]}: there is no such field")
        if isinstance(value, Mapping) and isinstance(defaults[key], Mapping):
            reject_unknown_fields(value, defaults[key], f"{name}.{key}")


def require_fields(fields: Mapping, defaults: Mapping, name: str) -> None:
    """Raises ValueError, naming the first field of `defaults` that `fields` lacks."""
    for key, default in defaults.items():
        if key not in fields:
            raise ValueError(f"{name}.{key}: this field is missing")
        if isinstance(fields[key], Mapping) and isinstance(default, Mapping):
            require_fields(fields[key], default, f"{name}.{key}")


def validate_fields(fields: Mapping, defaults: Mapping, name: str) -> None:
    """ValueError, naming the first field of `fields` that is not as in `defaults`.

    A field that `defaults` does not know is left alone, and one that `fields` lacks too.
    """
    for key, default in defaults.items():
        if key in fields:
            validate_value(fields[key], default, f"{name}.{key}")


def validate_value(value: object, default: object, name: str) -> None:
    """ValueError where a value is of another type than its default, not finite, or out of all bounds."""
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise _invalid_value_error(name, value, "fields")
        validate_fields(value, default, name)
    elif isinstance(default, list | tuple):
        _validate_sequence(value, default, name)
    elif isinstance(default, bool) or isinstance(value, bool):
        if type(value) is not type(default):
            raise _invalid_value_error(name, value, type(default).__name__)
    elif isinstance(default, int | float):
        _validate_number(value, default, name)
    elif default is not None and not isinstance(value, type(default)):
        raise _invalid_value_error(name, value, type(default).__name__)


def _validate_sequence(value: object, default: list | tuple, name: str) -> None:
    if isinstance(default, tuple) and default and isinstance(value, int) and not isinstance(value, bool):
        value = [value]  # a kernel of three equal sizes
    if not isinstance(value, list | tuple) or len(value) > MAX_COUNT:
        raise _invalid_value_error(name, value, f"a list of at most {MAX_COUNT}")
    for entry in value:
        if default:
            validate_value(entry, default[0], name)
        elif not isinstance(entry, int | float | str):
            raise _invalid_value_error(name, value, "a list of numbers or names")


def _validate_number(value: object, default: int | float, name: str) -> None:
    allowed_types = (int,) if isinstance(default, int) else (int, float)
    if not isinstance(value, allowed_types) or value != value or value in (math.inf, -math.inf):
        raise _invalid_value_error(
            name, value, "a whole number" if allowed_types == (int,) else "a finite number"
        )
    last_name = name.rpartition(".")[2]
    limit = MAX_COUNT if last_name in COUNT_FIELDS else MAX_SEED if last_name == "seed" else MAX_INTEGER
    if isinstance(value, int) and abs(value) > limit:
        raise _invalid_value_error(name, value, f"at most {limit}")


def _invalid_value_error(name: str, value: object, expected: str) -> ValueError:
    value_text = repr(value)
    return ValueError(f"{name}: {value_text[:60]}{'..' * (len(value_text) > 60)}, expected {expected}")
