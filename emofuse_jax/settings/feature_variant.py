"""The feature variant of an experiment: both encoders replaced by a projection of frozen features.

Each vector of features passes a layer norm, a linear layer and tanh; the experiment's fusion, attention,
losses and optimizer stay.
"""

import ml_collections

from emofuse_jax.models.registry import AUDIO_ENCODERS, VIDEO_ENCODERS
from emofuse_jax.settings.model import ATTENTION_DEFAULTS, encoder_config
from emofuse_jax.settings.shipped import NON_EXPERIMENT_CONFIGS, load_shipped, shipped_names


def with_features(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns a shipped experiment for records of `emofuse prepare --recipe=features`.

    Raises:
      LookupError: no shipped experiment has that name.
    """
    if experiment in NON_EXPERIMENT_CONFIGS or experiment not in shipped_names():
        raise LookupError(f"configs/features.py:{experiment}: there is no shipped experiment of that name")
    config = load_shipped(experiment)
    config.name = "features" if experiment == "am_fbp" else f"features_{experiment}"
    for modality, registry in (("audio", AUDIO_ENCODERS), ("video", VIDEO_ENCODERS)):
        attention = {k: v for k, v in config.model[modality].items() if k in ATTENTION_DEFAULTS}
        fields = encoder_config(registry, "features", modality, config.model.fusion.name)
        config.model[modality] = ml_collections.ConfigDict(fields | attention)
    config.init.update(audio="", video="")
    config.data.recipe = "features"
    return config
