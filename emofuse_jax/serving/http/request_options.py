"""What a caller can ask for beside a clip, as fields of a form or of JSON."""

import dataclasses
from collections.abc import Mapping

from emofuse_jax.serving.http.problems import invalid_field
from emofuse_jax.serving.predictions import is_probability

OPTION_FIELDS = {
    "min_confidence": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0,
        "description": "an answer that is less sure has the label `unknown`",
    },
    "person": {"type": "integer", "minimum": 1, "maximum": 20, "default": 1, "description": "of several"},
    "details": {"type": "boolean", "default": False, "description": "with faces, spectrogram and attention"},
}
"""For the OpenAPI document."""


@dataclasses.dataclass(frozen=True)
class RequestOptions:
    """How a clip is to be answered."""

    min_confidence: float = 0.0
    person: int = 1
    """1: the one that the clip is about; 2, ..: the next of several."""
    details: bool = False


def parse_options(fields: Mapping[str, object]) -> RequestOptions:
    """From the fields that are given, text or numbers; Problem 422 names one that can't be used."""
    min_confidence = _parse_number(fields.get("min_confidence", 0.0))
    if not is_probability(min_confidence):
        raise invalid_field("min_confidence", "expected a probability")
    person = _parse_number(fields.get("person", 1))
    if person not in range(1, 21):
        raise invalid_field("person", "expected 1 to 20")
    details = {"true": True, "false": False}.get(str(fields.get("details", False)).lower())
    if details is None:
        raise invalid_field("details", "expected true or false")
    return RequestOptions(min_confidence, int(person), details)


def _parse_number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None
