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

ENCODERS = {"audio": "fcn", "video": "frames"}
"""The only ones of the first checkpoints."""

LATER = {
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
    "optimizer": {"name": "adamw", "tail": 0.0},
    "train": {"steps_per_call": 0, "temperature": 1.0},
    "loss": losses.LOSS_DEFAULTS,
    "crossval": {"mode": "auto", "memory": 0.0, "save_seconds": 60.0},
}
"""Fields that came after the first checkpoints, at the value that leaves things as they were."""

LATER_FUSION = {name: {"layer_norm": False} for name in ("cross_attention", "avef")}
LATER_FUSION |= {name: {"scale": 1.0} for name in ("g_fbp", "ag_fbp", "am_fbp")}
"""The same of `model.fusion`, by its name."""

MOST_POINTS = 1 << 28
"""Of one clip's spectrogram, or of its faces."""


def saved_config(about: dict) -> ml_collections.ConfigDict:
    """`about["config"]` of a checkpoint's metadata, fields it does not know at their defaults.

    Raises ValueError, naming the field, where it is not of the type or the order of size of its default.
    """
    config = _part(about, "config", "config")
    model = _part(config, "model", "config.model")
    parts = {part: _part(model, part, f"config.model.{part}") for part in ("audio", "video", "fusion")}
    names = {
        part: _name(parts[part].get("encoder", old), f"{part}.encoder") for part, old in ENCODERS.items()
    }
    fusion = _name(parts["fusion"].get("name"), "fusion.name")
    model = default_model_config(fusion, **names).to_dict()
    model["fusion"] |= LATER_FUSION.get(fusion, {})
    known = {**LATER, "model": model}
    validate_fields(config, known, "config")
    return ml_collections.ConfigDict(over(known, config))


def saved_spec(about: dict) -> InputSpec:
    """`about["spec"]` of a checkpoint's metadata; ValueError naming the field that is wrong."""
    found = _part(about, "spec", "spec")
    fields = {field.name: field for field in dataclasses.fields(InputSpec)}
    for name in found.keys() - fields.keys():
        raise ValueError(f"spec.{name[:100]!r}: no such field, expected {', '.join(fields)}")
    for name, field in fields.items():
        if name not in found and field.default is dataclasses.MISSING:
            raise ValueError(f"spec.{name}: is not there, expected a whole number")
        validate_value(found.get(name, 0), 0, f"spec.{name}")
    spec = InputSpec(**found)
    if min(vars(spec).values()) < 0 or max(spec.t * spec.f, spec.s * spec.h * spec.w) > MOST_POINTS:
        raise ValueError(f"spec: {found}, expected at most {MOST_POINTS} points of a clip's sound or faces")
    return spec


def _part(tree: dict, name: str, field: str) -> dict:
    """A dict in a dict; ValueError naming the field where there is none."""
    if not isinstance(found := tree.get(name), dict):
        raise ValueError(f"{field}: expected fields, found {type(found).__name__}")
    return found


def _name(found: object, field: str) -> str:
    if not isinstance(found, str) or len(found) > 100:
        raise ValueError(f"config.model.{field}: expected a name, found {str(found)[:60]!r}")
    return found


def over(below: dict, above: dict) -> dict:
    """Nested dicts, one laid over the other."""
    merged = {**below, **above}
    both = {name for name in below.keys() & above.keys() if isinstance(below[name], dict)}
    return merged | {name: over(below[name], above[name]) for name in both}


def without_stand_ins(tree: PyTree) -> PyTree:
    """Parameters, or what is shaped as they are, as the first checkpoints have them
    (models/layers/missing_modality.py)."""

    def strip(node):
        if not _has_fusion(node):
            return node
        return node | {"fusion": {name: x for name, x in node["fusion"].items() if name != "absent"}}

    return jax.tree.map(strip, tree, is_leaf=_has_fusion)


def with_stand_ins(tree: PyTree, abstract: PyTree) -> PyTree:
    """Undoes `without_stand_ins` with zeros: a product with an absent vector was zero then."""

    def add(node, wanted):
        if not (_has_fusion(wanted) and "absent" in wanted["fusion"]):
            return node
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), wanted["fusion"]["absent"]
        )
        return node | {"fusion": node["fusion"] | {"absent": zeros}}

    return jax.tree.map(add, tree, abstract, is_leaf=_has_fusion)


def _has_fusion(node) -> bool:
    return isinstance(node, dict) and isinstance(node.get("fusion"), dict)
