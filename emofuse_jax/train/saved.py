"""The config of a checkpoint, also of one that was written before a field was there."""

import ml_collections

from emofuse_jax import losses
from emofuse_jax.models.defaults import default_model_config

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
    "train": {"steps_per_call": 0},
    "loss": losses.DEFAULTS,
    "crossval": {"mode": "auto", "memory": 0.0, "save_seconds": 60.0},
}
"""Fields that came after the first checkpoints, at the value that leaves things as they were."""

LATER_FUSION = {name: {"layer_norm": False} for name in ("cross_attention", "avef")}
"""The same of `model.fusion`, by its name."""


def saved_config(about: dict) -> ml_collections.ConfigDict:
    """`about["config"]` of a checkpoint's metadata, fields it does not know at their defaults."""
    config = about["config"]
    names = {part: config["model"][part].get("encoder", old) for part, old in ENCODERS.items()}
    fusion = config["model"]["fusion"]["name"]
    model = default_model_config(fusion, **names).to_dict()
    model["fusion"] |= LATER_FUSION.get(fusion, {})
    return ml_collections.ConfigDict(over({**LATER, "model": model}, config))


def over(below: dict, above: dict) -> dict:
    """Nested dicts, one laid over the other."""
    merged = {**below, **above}
    both = {name for name in below.keys() & above.keys() if isinstance(below[name], dict)}
    return merged | {name: over(below[name], above[name]) for name in both}
