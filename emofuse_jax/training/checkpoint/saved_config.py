"""Reads the config and the input shape that are saved in a checkpoint or a cross-validation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from emofuse_jax.settings.experiment import required_fields, with_registered_objectives
from emofuse_jax.types import InputSpec
from emofuse_jax.utils.validation import (
    reject_unknown_fields,
    require_fields,
    validate_fields,
    validate_value,
)

MAX_CLIP_VALUES = 1 << 28
"""Maximum number of values of one clip's spectrogram, and of its faces."""


def saved_config(metadata: Mapping[str, object]) -> ml_collections.ConfigDict:
    """Returns `metadata["config"]`, the config of a run, as a ConfigDict.

    It must have exactly the fields of settings/experiment.py; registered objectives may be missing.

    Raises:
      ValueError: if a field is missing or unknown, has another type than its default or is not finite, if an
        integer is above 2^20 (`seed`: 2^32 - 1; `blocks`, `layers`, `parts`, `heads` and `steps`: 100), if a
        list has more than 100 entries, or if a fusion or encoder is unknown or, in an installed package,
        cannot be imported or used; the message names the field.
    """
    config = _get_section(metadata, "config", "config")
    model = _get_section(config, "model", "config.model")
    for section, name in (("audio", "encoder"), ("video", "encoder"), ("fusion", "name")):
        fields = _get_section(model, section, f"config.model.{section}")
        _validate_name(fields.get(name), f"config.model.{section}.{name}")
    required = required_fields(model)
    defaults = with_registered_objectives(required)
    reject_unknown_fields(config, defaults, "config")
    require_fields(config, required, "config")
    validate_fields(config, defaults, "config")
    return ml_collections.ConfigDict(config)


def saved_spec(metadata: Mapping[str, object]) -> InputSpec:
    """Returns `metadata["spec"]` of a checkpoint as an InputSpec, the shape of one clip.

    Raises:
      ValueError: if a field is missing, unknown, not an integer, negative or above 1048576, or if the
        spectrogram or the faces of a clip have more than MAX_CLIP_VALUES (2^28) values; the message names the
        field.
    """
    spec_fields = _get_section(metadata, "spec", "spec")
    defaults = {field.name: 0 for field in dataclasses.fields(InputSpec)}
    reject_unknown_fields(spec_fields, defaults, "spec")
    require_fields(spec_fields, defaults, "spec")
    for name, size in spec_fields.items():
        validate_value(size, 0, f"spec.{name}")
    spec = InputSpec(**spec_fields)
    if min(vars(spec).values()) < 0 or max(spec.t * spec.f, spec.s * spec.h * spec.w) > MAX_CLIP_VALUES:
        raise ValueError(
            f"spec: {spec_fields}, expected 0 to {MAX_CLIP_VALUES} values of audio (t * f) and of faces"
            " (s * h * w), and no negative number; the saved shape is damaged: restore the files of the run"
            " from a copy, or train again"
        )
    return spec


def _get_section(tree: Mapping[str, object], name: str, field: str) -> dict[str, Any]:
    """Returns the dict `tree[name]`.

    Raises ValueError if it is missing or no dict; the message names it by `field`, its dotted name.
    """
    if not isinstance(section := tree.get(name), dict):
        raise ValueError(
            f"{field}: expected an object, found {type(section).__name__}; the saved run is damaged: restore"
            " its files from a copy, or train again"
        )
    return section


def _validate_name(name: object, field: str) -> None:
    if not isinstance(name, str) or len(name) > 100:
        raise ValueError(
            f"{field}: expected a name, found {str(name)[:60]!r}, which is no text of at most 100 characters;"
            " the saved run is damaged: restore its files from a copy, or train again"
        )
