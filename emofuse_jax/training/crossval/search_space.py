"""Settings to try: drawn from ranges of a config's fields, or listed in a file."""

import json
import math
from collections.abc import Sequence

import ml_collections
import numpy as np

from emofuse_jax.utils.files import load_json

METHODS = ("sobol", "random")

Trial = dict[str, object]
"""Values of config fields by dotted name."""


def draw_trials(space: Sequence[str], count: int, *, method: str, seed: int) -> list[Trial]:
    """`count` settings from ranges, each written `field=low:high`, `field=log:low:high` or `field=a,b,c`.

    `sobol` spreads them evenly (scrambled by `seed`; a power of two fills the space best), `random` draws
    them one by one. A range of whole numbers gives whole numbers.

    Raises:
      ValueError: a range that cannot be read, no range, a field twice, or an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    ranges = [read_range(text) for text in space]
    names = [name for name, _ in ranges]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"space: {list(space)}: expected at least one field, each once")
    if method == "sobol":
        from scipy.stats import qmc  # here, for it takes a second to load

        engine = qmc.Sobol(len(ranges), rng=np.random.default_rng(seed))
        points = engine.random_base2(max(0, math.ceil(math.log2(count))))[:count]
    else:
        points = np.random.default_rng(seed).random((count, len(ranges)))
    return [{name: place(x) for (name, place), x in zip(ranges, row, strict=True)} for row in points]


def read_range(text: str) -> tuple:
    """A field's name, and the function from [0, 1) to its values."""
    name, equals, values = text.partition("=")
    if not (equals and name and values):
        raise ValueError(f"space {text!r}: expected field=low:high, field=log:low:high or field=a,b,c")
    if ":" not in values:
        choices = [read_value(word) for word in values.split(",")]
        return name, lambda x: choices[int(x * len(choices))]
    logarithmic = values.startswith("log:")
    bounds = [read_value(word) for word in values.removeprefix("log:").split(":")]
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
    if not numbers or len(bounds) != 2 or not (logarithmic - 1) < bounds[0] < bounds[1]:
        raise ValueError(f"space {text!r}: expected two numbers, the lower one first, above 0 if log")
    low, high = bounds
    if logarithmic:
        return name, lambda x: low * (high / low) ** float(x)
    if isinstance(low, int) and isinstance(high, int):
        return name, lambda x: low + int(x * (high - low + 1))
    return name, lambda x: low + float(x) * (high - low)


def read_value(word: str):
    """A number, true or false, a list, or the word itself."""
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def read_trials(path: str) -> list[Trial]:
    """A JSON file with a list of settings, `[{}, {"augment.mixup": 0.0}, ...]`; ValueError on another one."""
    trials = load_json(path)
    if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials) or not trials:
        raise ValueError(f"{path}: expected a list of objects, each the fields of a trial")
    return trials


def with_fields(config: ml_collections.ConfigDict, trial: Trial) -> ml_collections.ConfigDict:
    """A copy of a config with a trial's values, of the types that the fields have.

    Raises ValueError naming a field that does not exist, or a value of another type.
    """
    changed = ml_collections.ConfigDict(config.to_dict())
    for name, value in trial.items():
        owner, _, last = name.rpartition(".")
        part = changed
        for word in owner.split(".") if owner else ():
            part = part.get(word) if isinstance(part, ml_collections.ConfigDict) else None
        if not isinstance(part, ml_collections.ConfigDict) or last not in part:
            raise ValueError(f"config.{name}: there is no such field")
        try:
            part[last] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            kind = type(part[last]).__name__
            raise ValueError(f"config.{name}: {value!r}, expected a {kind}") from error
    return changed
