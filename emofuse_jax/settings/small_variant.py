"""The small variant of an experiment, which trains on the demo corpus on two cores.

It has narrow encoders with batch norm, four sampled frames of 56x56 pixels and a short schedule. Each encoder
and fusion declares its small sizes next to its defaults (models/registry.py). AdamW forgets its second moment
quickly (b2): the two streams are learned one after the other, and large gradients of the first would keep the
steps of the second small for hundreds of updates.
"""

import ml_collections

from emofuse_jax.models.registry import ENCODERS, FUSIONS, MODALITIES
from emofuse_jax.settings.shipped import load_experiment

SMALL_EPOCHS = 12
"""Epochs of a small variant, unless its fusion declares `small_epochs`."""


def small(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns the config of the small variant of a shipped experiment or of a registered fusion.

    It has narrow encoders, small batches and a short schedule; its name is `demo_<experiment>`.

    Raises:
      LookupError: there is neither a shipped experiment nor a fusion named `experiment`.
      ValueError: an installed package provides the fusion, but it cannot be imported or used.
    """
    config = load_experiment(experiment)
    shrink(config)
    config.name = f"demo_{experiment}"
    return config


def shrink(config: ml_collections.ConfigDict) -> None:
    """Changes the config of an experiment into its small variant, in place.

    Sets `data.audio_steps` to 350, `data.batch_size` to 16, `augment.shift` to 4, `augment.brightness` and
    `augment.contrast` to 0.1, `augment.frames` to 4 for the video encoder `frames` (and its `downsample` to 1
    for the recipe `hgr`), what encoders and fusion declare in `small`, `small_limits` and `small_augment`,
    `optimizer.b2` to 0.95, and `train.epochs` to the fusion's `small_epochs`, or else 12. The learning rate
    is multiplied by 20/3, but to 2e-3 at most; a rate above that stays. The name does not change.

    Raises ValueError if the fusion or an encoder is unknown, or an installed package provides it but it
    cannot be imported or used.
    """
    model = config.model
    config.data.update(audio_steps=350, batch_size=16)  # of 10 ms or more; a clip is 3.5 s at most
    config.augment.update(shift=4, brightness=0.1, contrast=0.1)
    if model.video.encoder == "frames":
        config.augment.frames = 4
    for modality in MODALITIES:
        encoder_config = model[modality]
        encoder = ENCODERS[modality].require(encoder_config.encoder, f"config.model.{modality}.encoder")
        sizes = dict(getattr(encoder, "small", {}))
        sizes |= {
            name: min(limit, encoder_config[name])
            for name, limit in getattr(encoder, "small_limits", {}).items()
            if name in encoder_config
        }
        # not every fusion pools the positions of its encoders by attention
        encoder_config.update({name: size for name, size in sizes.items() if name in encoder_config})
        config.augment.update(getattr(encoder, "small_augment", {}))
    if config.data.recipe == "hgr" and model.video.encoder == "frames":
        model.video.downsample = 1  # the demo's records of this recipe hold faces of 56x56
    fusion = FUSIONS.require(model.fusion.name, "config.model.fusion.name")
    model.fusion.update(getattr(fusion, "small", {}))
    config.optimizer.b2 = 0.95
    rate = config.optimizer.learning_rate
    config.optimizer.learning_rate = max(rate, min(rate * 20 / 3, 2e-3))  # 2e-3 for 3e-4
    config.train.epochs = getattr(fusion, "small_epochs", SMALL_EPOCHS)
