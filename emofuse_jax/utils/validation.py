"""Validates untrusted configs: the fields and types of their defaults, and sizes that can be built."""

import math
from collections.abc import Mapping

MAX_INTEGER = 1 << 20
"""Largest absolute value of an integer in a config, except seeds and COUNT_FIELDS."""
MAX_COUNT = 100
"""Largest number of entries in a list, and largest value of COUNT_FIELDS."""
MAX_SEED = (1 << 32) - 1
"""Largest absolute value of a field named `seed`."""
COUNT_FIELDS = {"blocks", "layers", "parts", "heads", "steps"}
"""Fields of a model that say how often a part of it is built; at most MAX_COUNT."""


def reject_unknown_fields(fields: Mapping[str, object], defaults: Mapping[str, object], name: str) -> None:
    """Raises ValueError if `fields`, or a mapping in it, has a field that `defaults` does not have.

    `defaults` maps every known field to any value; those of a nested mapping are in a nested mapping. `name`
    is the config's name in the message, which names the first unknown field, e.g. `config.model.size`.
    """
    for key, value in fields.items():
        if key not in defaults:
            raise ValueError(
                f"{name}.{str(key)[:100]}: there is no such field, expected one of {', '.join(defaults)}"
            )
        default = defaults[key]
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            reject_unknown_fields(value, default, f"{name}.{key}")


def require_fields(fields: Mapping[str, object], defaults: Mapping[str, object], name: str) -> None:
    """Raises ValueError if `fields`, or a mapping in it, lacks a field of `defaults`.

    `defaults` maps every required field to any value; those of a nested mapping are in a nested mapping.
    `name` is the config's name in the message, which names the first missing field, e.g. `config.model.size`.
    """
    for key, default in defaults.items():
        if key not in fields:
            raise ValueError(
                f"{name}.{key}: this field is missing: the file is damaged, or another version of emofuse"
                " wrote it; use that version, or write the file again"
            )
        value = fields[key]
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            require_fields(value, default, f"{name}.{key}")


def validate_fields(fields: Mapping[str, object], defaults: Mapping[str, object], name: str) -> None:
    """Raises ValueError if a value in `fields` is not of the type of its default, not finite, or too large.

    Fields that are unknown to `defaults` and fields that are missing are not reported. The rules for one
    value: None as default accepts everything; an integer may stand for a float, but no bool for a number;
    numbers must be finite; lists and tuples have at most 100 entries, each valid like the first entry of the
    default (`validate_value`); and the absolute value of an integer is at most 100 for the fields `blocks`,
    `layers`, `parts`, `heads` and `steps`, 2**32 - 1 for `seed`, and 2**20 for others. Floats and texts may
    be of any size.

    Args:
      fields: The untrusted config.
      defaults: A valid value of each field.
      name: Name of the config in the message, which names the first field that is not valid.
    """
    for key, default in defaults.items():
        if key in fields:
            validate_value(fields[key], default, f"{name}.{key}")


def validate_value(value: object, default: object, name: str) -> None:
    """Raises ValueError if a value is not of the type of its default, not finite, or too large.

    A default of None accepts every value. A float field may be an integer; a bool is no number. The fields of
    a mapping are validated one by one; unknown and missing ones are not reported. A list may replace a tuple
    and a tuple a list; they have at most 100 entries (MAX_COUNT), each validated like the first entry of the
    default; an empty default accepts numbers and strings. One integer may replace a tuple that is not empty.
    The absolute value of an integer is at most 100 for the fields `blocks`, `layers`, `parts`, `heads` and
    `steps`, 2**32 - 1 for `seed`, and 2**20 for others. Floats and texts may be of any size.

    Args:
      value: The untrusted value.
      default: A valid value of the field.
      name: Dotted path of the field; it is in the message, and its last part selects the largest integer.
    """
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise _invalid_value_error(name, value, "an object with fields")
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


def _validate_sequence(value: object, default: list[object] | tuple[object, ...], name: str) -> None:
    if isinstance(default, tuple) and default and isinstance(value, int) and not isinstance(value, bool):
        value = [value]  # one number may replace a tuple of equal numbers, e.g. a kernel's size
    if not isinstance(value, list | tuple) or len(value) > MAX_COUNT:
        raise _invalid_value_error(name, value, f"a list of at most {MAX_COUNT} entries")
    for entry in value:
        if default:
            validate_value(entry, default[0], name)
        elif not isinstance(entry, int | float | str):
            raise _invalid_value_error(name, value, "a list of numbers or names")


def _validate_number(value: object, default: int | float, name: str) -> None:
    allowed_types = (int,) if isinstance(default, int) else (int, float)
    if not isinstance(value, allowed_types) or value != value or value in (math.inf, -math.inf):
        raise _invalid_value_error(
            name, value, "an integer" if allowed_types == (int,) else "a finite number"
        )
    last_name = name.rpartition(".")[2]
    limit = MAX_COUNT if last_name in COUNT_FIELDS else MAX_SEED if last_name == "seed" else MAX_INTEGER
    if isinstance(value, int) and abs(value) > limit:
        raise _invalid_value_error(name, value, f"an integer from -{limit} to {limit}")


def _invalid_value_error(name: str, value: object, expected: str) -> ValueError:
    """Returns the ValueError `<name>: <value>, expected <expected>` for a value of a field.

    The text of the value (its `repr`) is cut to 60 characters. `expected` is a phrase that says which values
    are valid. The caller raises the error.
    """
    value_text = repr(value)
    return ValueError(f"{name}: {value_text[:60]}{'..' * (len(value_text) > 60)}, expected {expected}")
