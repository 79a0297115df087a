"""Settings to try: drawn from ranges of a config's fields, or listed in a file."""

import json
import math
from collections.abc import Sequence

import ml_collections
import numpy as np

from emofuse_jax.utils.files import load_json

SEARCH_METHODS = ("sobol", "random")

Trial = dict[str, object]
"""Values of config fields by dotted name."""


def draw_trials(space: Sequence[str], count: int, *, method: str, seed: int) -> list[Trial]:
    """`count` settings from ranges, each written `field=low:high`, `field=log:low:high` or `field=a,b,c`.

    `sobol` spreads them evenly (scrambled by `seed`; a power of two fills the space best), `random` draws
    them one by one. A range of whole numbers gives whole numbers.

    Raises:
      ValueError: a range that cannot be read, no range, a field twice, or an unknown method.
    """
    if method not in SEARCH_METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(SEARCH_METHODS)}")
    ranges = [parse_range(text) for text in space]
    names = [name for name, _ in ranges]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"space: {list(space)}: expected at least one field, each once")
    if method == "sobol":
        from scipy.stats import qmc  # here, for it takes a second to load

        engine = qmc.Sobol(len(ranges), rng=np.random.default_rng(seed))
        points = engine.random_base2(max(0, math.ceil(math.log2(count))))[:count]
    else:
        points = np.random.default_rng(seed).random((count, len(ranges)))
    return [
        {name: to_value(coordinate) for (name, to_value), coordinate in zip(ranges, point, strict=True)}
        for point in points
    ]


def parse_range(text: str) -> tuple:
    """A field's name, and the function from [0, 1) to its values."""
    name, separator, values = text.partition("=")
    if not (separator and name and values):
        raise ValueError(f"space {text!r}: expected field=low:high, field=log:low:high or field=a,b,c")
    if ":" not in values:
        choices = [parse_value(entry) for entry in values.split(",")]
        return name, lambda coordinate: choices[int(coordinate * len(choices))]
    is_logarithmic = values.startswith("log:")
    bounds = [parse_value(entry) for entry in values.removeprefix("log:").split(":")]
    are_numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
    if not are_numbers or len(bounds) != 2 or not (is_logarithmic - 1) < bounds[0] < bounds[1]:
        raise ValueError(f"space {text!r}: expected two numbers, the lower one first, above 0 if log")
    low, high = bounds
    if is_logarithmic:
        return name, lambda coordinate: low * (high / low) ** float(coordinate)
    if isinstance(low, int) and isinstance(high, int):
        return name, lambda coordinate: low + int(coordinate * (high - low + 1))
    return name, lambda coordinate: low + float(coordinate) * (high - low)


def parse_value(text: str):
    """A number, true or false, a list, or the word itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def read_trials(path: str) -> list[Trial]:
    """A JSON file with a list of settings, `[{}, {"augment.mixup": 0.0}, ...]`; ValueError on another one."""
    trials = load_json(path)
    if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials) or not trials:
        raise ValueError(f"{path}: expected a list of objects, each the fields of a trial")
    return trials


def apply_trial(config: ml_collections.ConfigDict, trial: Trial) -> ml_collections.ConfigDict:
    """A copy of a config with a trial's values, of the types that the fields have.

    Raises ValueError naming a field that does not exist, or a value of another type.
    """
    new_config = ml_collections.ConfigDict(config.to_dict())
    for name, value in trial.items():
        section_path, _, field = name.rpartition(".")
        section = new_config
        for section_name in section_path.split(".") if section_path else ():
            section = section.get(section_name) if isinstance(section, ml_collections.ConfigDict) else None
        if not isinstance(section, ml_collections.ConfigDict) or field not in section:
            raise ValueError(f"config.{name}: there is no such field")
        try:
            section[field] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            type_name = type(section[field]).__name__
            raise ValueError(f"config.{name}: {value!r}, expected a {type_name}") from error
    return new_config
