"""The config and parameters of a checkpoint, also of one that was written before some were there."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import PyTree

from emofuse_jax import losses
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import InputSpec
from emofuse_jax.utils.validation import validate_fields, validate_value

ORIGINAL_ENCODERS = {"audio": "fcn", "video": "frames"}
"""The only ones of the first checkpoints."""

ADDED_FIELD_DEFAULTS = {
    "init": {"audio": "", "video": ""},
    "data": {
        "balanced": False,
        "labelled_fraction": 1.0,
        "labelled_share": 0.0,
        "keep_unlabelled": True,
        "mode": "auto",
        "buckets": 1,
        "on_corrupt": "stop",
        "hold_out": True,
    },
    "augment": {
        "crop": 0,
        "speed": 0.0,
        "pitch": 0.0,
        "equalizer": 0.0,
        "style": 0.0,
        "reverb": 0.0,
        "reverb_steps": 60,
        "noise": 0.0,
        "noise_snr_min": 5.0,
        "noise_snr_max": 40.0,
        "mixup": 0.0,
    },
    "optimizer": {"name": "adamw"},
    "train": {"steps_per_call": 0, "temperature": 1.0},
    "loss": losses.LOSS_DEFAULTS,
    "crossval": {"mode": "auto", "memory": 0.0, "save_seconds": 60.0},
}
"""Fields that came after the first checkpoints, at the value that leaves things as they were."""

ADDED_FUSION_DEFAULTS = {name: {"layer_norm": False} for name in ("cross_attention", "avef")}
ADDED_FUSION_DEFAULTS |= {name: {"scale": 1.0} for name in ("g_fbp", "ag_fbp", "am_fbp")}
"""The same of `model.fusion`, by its name."""

MAX_CLIP_VALUES = 1 << 28
"""Of one clip's spectrogram, or of its faces."""


def saved_config(metadata: dict) -> ml_collections.ConfigDict:
    """`metadata["config"]` of a checkpoint's metadata, fields it does not know at their defaults.

    Raises ValueError, naming the field, where it is not of the type or the order of size of its default.
    """
    config = _get_section(metadata, "config", "config")
    model = _get_section(config, "model", "config.model")
    sections = {
        section: _get_section(model, section, f"config.model.{section}")
        for section in ("audio", "video", "fusion")
    }
    names = {
        section: _validate_name(sections[section].get("encoder", default_encoder), f"{section}.encoder")
        for section, default_encoder in ORIGINAL_ENCODERS.items()
    }
    fusion = _validate_name(sections["fusion"].get("name"), "fusion.name")
    model = default_model_config(fusion, **names).to_dict()
    model["fusion"] |= ADDED_FUSION_DEFAULTS.get(fusion, {})
    defaults = {**ADDED_FIELD_DEFAULTS, "model": model}
    validate_fields(config, defaults, "config")
    return ml_collections.ConfigDict(merge_nested(defaults, config))


def saved_spec(metadata: dict) -> InputSpec:
    """`metadata["spec"]` of a checkpoint's metadata; ValueError naming the field that is wrong."""
    spec_fields = _get_section(metadata, "spec", "spec")
    fields = {field.name: field for field in dataclasses.fields(InputSpec)}
    for name in spec_fields.keys() - fields.keys():
        raise ValueError(f"spec.{name[:100]!r}: no such field, expected {', '.join(fields)}")
    for name, field in fields.items():
        if name not in spec_fields and field.default is dataclasses.MISSING:
            raise ValueError(f"spec.{name}: is not there, expected a whole number")
        validate_value(spec_fields.get(name, 0), 0, f"spec.{name}")
    spec = InputSpec(**spec_fields)
    if min(vars(spec).values()) < 0 or max(spec.t * spec.f, spec.s * spec.h * spec.w) > MAX_CLIP_VALUES:
        raise ValueError(
            f"spec: {spec_fields}, expected at most {MAX_CLIP_VALUES} points of a clip's sound or faces"
        )
    return spec


def _get_section(tree: dict, name: str, field: str) -> dict:
    """A dict in a dict; ValueError naming the field where there is none."""
    if not isinstance(section := tree.get(name), dict):
        raise ValueError(f"{field}: expected fields, found {type(section).__name__}")
    return section


def _validate_name(name: object, field: str) -> str:
    if not isinstance(name, str) or len(name) > 100:
        raise ValueError(f"config.model.{field}: expected a name, found {str(name)[:60]!r}")
    return name


def merge_nested(defaults: dict, overrides: dict) -> dict:
    """Nested dicts, one laid over the other."""
    merged = {**defaults, **overrides}
    shared_sections = {
        name for name in defaults.keys() & overrides.keys() if isinstance(defaults[name], dict)
    }
    return merged | {name: merge_nested(defaults[name], overrides[name]) for name in shared_sections}


def without_missing_vectors(tree: PyTree) -> PyTree:
    """Parameters, or what is shaped as they are, as the first checkpoints have them
    (models/layers/missing_modality.py)."""

    def strip(node):
        if not _has_fusion(node):
            return node
        return node | {"fusion": {name: x for name, x in node["fusion"].items() if name != "absent"}}

    return jax.tree.map(strip, tree, is_leaf=_has_fusion)


def with_missing_vectors(tree: PyTree, abstract: PyTree) -> PyTree:
    """Undoes `without_missing_vectors` with zeros: a product with an absent vector was zero then."""

    def add(node, target):
        if not (_has_fusion(target) and "absent" in target["fusion"]):
            return node
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), target["fusion"]["absent"]
        )
        return node | {"fusion": node["fusion"] | {"absent": zeros}}

    return jax.tree.map(add, tree, abstract, is_leaf=_has_fusion)


def _has_fusion(node) -> bool:
    return isinstance(node, dict) and isinstance(node.get("fusion"), dict)
