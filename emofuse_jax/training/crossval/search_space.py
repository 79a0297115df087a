"""Creates the trials of a sweep: drawn from ranges of config fields, or read from a file."""

import json
import math
from collections.abc import Callable, Sequence

import ml_collections
import numpy as np

from emofuse_jax.utils.files import JsonValue, load_json

SEARCH_METHODS = ("sobol", "random")
"""Methods of `draw_trials`."""

Trial = dict[str, object]
"""Values of config fields, by dotted name."""
ToValue = Callable[[float], object]
"""Function from [0, 1) to values of a range."""


def draw_trials(space: Sequence[str], count: int, *, method: str, seed: int) -> list[Trial]:
    """Draws `count` trials from ranges of config fields.

    `sobol` covers the ranges evenly (scrambled with `seed`; best if `count` is a power of two), `random`
    draws independently. A linear range of two integers gives integers, both ends included.

    Args:
      space: ranges, each written as `field=low:high`, `field=log:low:high` or `field=a,b,c`.
      count: number of trials, at least 1.
      method: `sobol` or `random`.
      seed: seed of the method, at least 0.

    Returns:
      One dict per trial: the values of the config fields by dotted name.

    Raises:
      ValueError: if the method is unknown, a range is invalid, there are no ranges, a field appears twice,
        `count` is below 1 with `sobol` or negative, or `seed` is negative.
    """
    if method not in SEARCH_METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(SEARCH_METHODS)}")
    ranges = [parse_range(text) for text in space]
    names = [name for name, _ in ranges]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"space: {list(space)}: expected at least one field, each once")
    if method == "sobol":
        from scipy.stats import qmc  # imported here because it takes a second to load

        engine = qmc.Sobol(len(ranges), rng=np.random.default_rng(seed))
        points = engine.random_base2(max(0, math.ceil(math.log2(count))))[:count]
    else:
        points = np.random.default_rng(seed).random((count, len(ranges)))
    return [
        {name: to_value(coordinate) for (name, to_value), coordinate in zip(ranges, point, strict=True)}
        for point in points
    ]


def parse_range(text: str) -> tuple[str, ToValue]:
    """Parses a range such as `field=low:high`.

    Returns:
      A tuple: the name of the field, and a function that maps numbers in [0, 1) to values of the range:
      integers for two integers (both ends included), floats for other numbers and with `log`, or one of the
      values a, b, c, which are read as JSON if possible and else as text.

    Raises:
      ValueError: if the text has another form than `field=low:high`, `field=log:low:high` or `field=a,b,c`,
        or if low and high are not two numbers with low < high (with `log` above 0).
    """
    name, separator, values = text.partition("=")
    if not (separator and name and values):
        raise ValueError(f"space {text!r}: expected field=low:high, field=log:low:high or field=a,b,c")
    if ":" not in values:
        choices = [parse_value(entry) for entry in values.split(",")]
        return name, lambda coordinate: choices[int(coordinate * len(choices))]
    is_logarithmic = values.startswith("log:")
    bounds = [parse_value(entry) for entry in values.removeprefix("log:").split(":")]
    numbers = [bound for bound in bounds if isinstance(bound, int | float) and not isinstance(bound, bool)]
    if not len(numbers) == len(bounds) == 2 or not (is_logarithmic - 1) < numbers[0] < numbers[1]:
        raise ValueError(f"space {text!r}: expected two numbers, low < high, both above 0 for log")
    low, high = numbers
    if is_logarithmic:
        return name, lambda coordinate: low * (high / low) ** float(coordinate)
    if isinstance(low, int) and isinstance(high, int):
        return name, lambda coordinate: low + int(coordinate * (high - low + 1))
    return name, lambda coordinate: low + float(coordinate) * (high - low)


def parse_value(text: str) -> JsonValue:
    """Returns the value of JSON text (number, true, list, ...), or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def read_trials(path: str) -> list[Trial]:
    """Reads a JSON file with a list of trials, such as `[{}, {"augment.mixup": 0.0}]`.

    Returns:
      One dict per trial: the values of config fields by dotted name. The names are not checked.

    Raises:
      ValueError: if the file is not valid JSON, or not a non-empty list of objects.
      OSError: if the file cannot be read.
    """
    content = load_json(path)
    entries = content if isinstance(content, list) else []
    trials = [entry for entry in entries if isinstance(entry, dict)]
    if not trials or len(trials) != len(entries):
        raise ValueError(f"{path}: expected a non-empty list of objects, one per trial")
    return [dict(trial) for trial in trials]


def apply_trial(config: ml_collections.ConfigDict, trial: Trial) -> ml_collections.ConfigDict:
    """Returns a copy of a config with the values of a trial, a dict of values by dotted field name.

    Raises:
      ValueError: if a field does not exist or a value has the wrong type; names the field.
    """
    new_config = ml_collections.ConfigDict(config.to_dict())
    for name, value in trial.items():
        section_path, _, field = name.rpartition(".")
        section = new_config
        for section_name in section_path.split(".") if section_path else ():
            section = section.get(section_name) if isinstance(section, ml_collections.ConfigDict) else None
        if not isinstance(section, ml_collections.ConfigDict) or field not in section:
            raise ValueError(
                f"config.{name}: there is no such field; name one of the config, such as"
                " optimizer.learning_rate"
            )
        try:
            section[field] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            type_name = type(section[field]).__name__
            raise ValueError(f"config.{name}: {value!r}, expected a {type_name}") from error
    return new_config
