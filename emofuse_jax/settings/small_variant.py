"""The small variant of an experiment, for the demo corpus on two cores.

Narrow encoders with batch norm, four sampled frames of 56x56, and a short schedule. Each encoder and fusion
names its small sizes next to its defaults (`small`). The second moment of AdamW is forgotten quickly (b2):
the streams are learned one after the other, and the gradients of the first would hold the steps of the second
small for hundreds of updates.
"""

import ml_collections

from emofuse_jax.models.registry import AUDIO_ENCODERS, FUSIONS, VIDEO_ENCODERS
from emofuse_jax.settings.shipped import NON_EXPERIMENT_CONFIGS, load_shipped, shipped_names

SMALL_AUGMENT = {"resnet": {"frequency_masks": 2, "frequency_width": 60}}
"""Fields of `config.augment` by audio encoder: a ResNet over whole spectra learns speakers by heart."""

EPOCHS_BY_FUSION = {"audio_only": 10, "video_only": 10, "avef": 18}
"""Epochs by fusion; the others train for 12."""


def small(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns the small variant of a shipped experiment.

    Raises:
      LookupError: no shipped experiment has that name.
    """
    if experiment in set(NON_EXPERIMENT_CONFIGS) - {"features"} or experiment not in shipped_names():
        raise LookupError(f"configs/demo.py:{experiment}: there is no shipped experiment of that name")
    config = load_shipped(experiment)
    model = config.model
    config.name = f"demo_{experiment}"
    config.data.update(audio_steps=350, batch_size=16)  # of 10 ms or more; a clip is 3.5 s at most
    config.augment.update(shift=4, brightness=0.1, contrast=0.1)
    config.augment.update(SMALL_AUGMENT.get(model.audio.encoder, {}))
    if model.video.encoder == "frames":
        config.augment.frames = 4
    for modality_config, field in ((model.audio, "parts"), (model.video, "snippets")):
        if field in modality_config:
            modality_config[field] = min(modality_config[field], 3)
    for modality_config, registry in ((model.audio, AUDIO_ENCODERS), (model.video, VIDEO_ENCODERS)):
        sizes = getattr(registry[modality_config.encoder], "small", {})
        modality_config.update(
            {k: v for k, v in sizes.items() if k in modality_config}
        )  # not all fusions have attention
    if config.data.recipe == "hgr" and model.video.encoder == "frames":
        model.video.downsample = 1  # the demo's records of this recipe hold faces of 56x56
    if "dropout" in model.fusion:
        model.fusion.dropout = 0.1
    model.fusion.update(getattr(FUSIONS[model.fusion.name], "small", {}))
    config.optimizer.b2 = 0.95
    rate = config.optimizer.learning_rate
    config.optimizer.learning_rate = max(rate, min(rate * 20 / 3, 2e-3))  # 2e-3 for 3e-4
    config.train.epochs = EPOCHS_BY_FUSION.get(model.fusion.name, 12)
    return config
