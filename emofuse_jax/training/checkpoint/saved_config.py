"""Reads the config and the input shape that a checkpoint or a cross-validation has saved."""

import dataclasses

import ml_collections

from emofuse_jax.settings.experiment import default_fields
from emofuse_jax.types import InputSpec
from emofuse_jax.utils.validation import (
    reject_unknown_fields,
    require_fields,
    validate_fields,
    validate_value,
)

MAX_CLIP_VALUES = 1 << 28
"""Limit for the values of one clip's spectrogram, or of its faces."""


def saved_config(metadata: dict) -> ml_collections.ConfigDict:
    """Returns `metadata["config"]`, which must have exactly the fields of settings/experiment.py.

    Raises:
      ValueError: a field is missing or unknown, or has another type or order of size than its default; names
        the field.
    """
    config = _get_section(metadata, "config", "config")
    model = _get_section(config, "model", "config.model")
    for section, name in (("audio", "encoder"), ("video", "encoder"), ("fusion", "name")):
        fields = _get_section(model, section, f"config.model.{section}")
        _validate_name(fields.get(name), f"config.model.{section}.{name}")
    defaults = default_fields(model)
    reject_unknown_fields(config, defaults, "config")
    require_fields(config, defaults, "config")
    validate_fields(config, defaults, "config")
    return ml_collections.ConfigDict(config)


def saved_spec(metadata: dict) -> InputSpec:
    """Returns `metadata["spec"]` of a checkpoint; raises ValueError naming the field that is wrong."""
    spec_fields = _get_section(metadata, "spec", "spec")
    defaults = {field.name: 0 for field in dataclasses.fields(InputSpec)}
    reject_unknown_fields(spec_fields, defaults, "spec")
    require_fields(spec_fields, defaults, "spec")
    for name, size in spec_fields.items():
        validate_value(size, 0, f"spec.{name}")
    spec = InputSpec(**spec_fields)
    if min(vars(spec).values()) < 0 or max(spec.t * spec.f, spec.s * spec.h * spec.w) > MAX_CLIP_VALUES:
        raise ValueError(
            f"spec: {spec_fields}, expected at most {MAX_CLIP_VALUES} points of a clip's sound or faces"
        )
    return spec


def _get_section(tree: dict, name: str, field: str) -> dict:
    """Returns a dict in a dict; raises ValueError naming the field where there is none."""
    if not isinstance(section := tree.get(name), dict):
        raise ValueError(f"{field}: expected fields, found {type(section).__name__}")
    return section


def _validate_name(name: object, field: str) -> None:
    if not isinstance(name, str) or len(name) > 100:
        raise ValueError(f"{field}: expected a name, found {str(name)[:60]!r}")
