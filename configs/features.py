"""A shipped experiment on features of frozen encoders: configs/features.py:<experiment>, by default am_fbp.

Both encoders of the experiment make way for a layer norm, a linear layer and tanh on each vector; its fusion,
attention, losses and optimizer stay. For records of `emofuse prepare --recipe=features`; for features beside
tensors, give --config.data.recipe the recipe of the records.

Receipt: emofuse train --config=features --config.data.path=DIR --workdir=DIR; time and score unmeasured (no
paired corpus and no encoder at hand). The small form is configs/demo.py:features.
"""

import importlib
import importlib.util

import ml_collections

from emofuse_jax.models.defaults import ATTENTION_DEFAULTS, encoder_config
from emofuse_jax.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS


def get_config(fusion: str = "am_fbp") -> ml_collections.ConfigDict:
    """The experiment that is named as the fusion, with the encoders replaced."""
    if importlib.util.find_spec(f"configs.{fusion}") is None or fusion in ("base", "demo", "gan", "features"):
        raise LookupError(f"configs/features.py:{fusion}: there is no shipped experiment of that name")
    config = importlib.import_module(f"configs.{fusion}").get_config()
    config.name = "features" if fusion == "am_fbp" else f"features_{fusion}"
    for name, registry in (("audio", AUDIO_ENCODERS), ("video", VIDEO_ENCODERS)):
        kept = {k: v for k, v in config.model[name].items() if k in ATTENTION_DEFAULTS}
        fields = encoder_config(registry, "features", name, config.model.fusion.name)
        config.model[name] = ml_collections.ConfigDict(fields | kept)
    config.init.update(audio="", video="")
    config.data.recipe = "features"
    return config
