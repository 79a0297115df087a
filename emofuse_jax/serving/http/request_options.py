"""Options of a request, as fields of a form or of JSON."""

import dataclasses
from collections.abc import Mapping

from emofuse_jax.serving.http.problems import invalid_field
from emofuse_jax.serving.predictions import is_probability

OPTION_FIELDS: dict[str, dict[str, object]] = {
    "min_confidence": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0,
        "description": "predictions with a lower confidence get the label `unknown`",
    },
    "person": {
        "type": "integer",
        "minimum": 1,
        "maximum": 20,
        "default": 1,
        "description": "which of several people; 1 is the main person",
    },
    "details": {"type": "boolean", "default": False, "description": "adds faces, spectrogram and attention"},
}
"""JSON schema of each option, for the OpenAPI document."""


@dataclasses.dataclass(frozen=True)
class RequestOptions:
    """Options of a request."""

    min_confidence: float = 0.0
    """Predictions with a lower confidence get the label `unknown`."""
    person: int = 1
    """Which of several people to use: 1 is the main person, 2 to 20 are the next ones."""
    details: bool = False
    """Adds faces, spectrogram and attention to the predictions."""


def parse_options(fields: Mapping[str, object]) -> RequestOptions:
    """Returns the options in `fields`, which are text or JSON values, with defaults for missing ones.

    RequestOptions has `min_confidence` (0 to 1, default 0; below it, the label is `unknown`), `person` (1 to
    20; 1, the default, is the main person, 2 the next one) and `details` (True adds faces, spectrogram and
    attention to a prediction; default False). Raises Problem 422, which names the field, for an invalid
    value; fields that are no options are ignored.
    """
    min_confidence = _parse_number(fields.get("min_confidence", 0.0))
    if min_confidence is None or not is_probability(min_confidence):
        raise invalid_field("min_confidence", "expected a number from 0 to 1")
    person = _parse_number(fields.get("person", 1))
    if person is None or person not in range(1, 21):
        raise invalid_field("person", "expected a whole number from 1 to 20")
    details = {"true": True, "false": False}.get(str(fields.get("details", False)).lower())
    if details is None:
        raise invalid_field("details", "expected true or false")
    return RequestOptions(min_confidence, int(person), details)


def _parse_number(value: object) -> float | None:
    """Returns the number that `value` is or contains as text; None if it is no number.

    A bool, NaN and infinity count as numbers.
    """
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
