"""Deep Fusion from ImageNet weights: torchvision's AlexNet listens, its ResNet-18 looks (arXiv 1901.04889).

Receipt: time and score unmeasured (no paired corpus at hand); docs/pretrained.md has the lines that
convert the two files.
  emofuse train --config=imagenet --config.init.audio=alexnet.safetensors \
      --config.init.video=resnet18.safetensors --config.data.path=DIR --workdir=DIR
"""

import ml_collections

import emofuse_jax as ef
from emofuse_jax.models.encoders.audio_fcn import TORCHVISION_ALEXNET


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    config = ef.settings.load_shipped("g_fbp")
    config.name = "imagenet"
    config.model.audio.update(TORCHVISION_ALEXNET)
    config.init.update(audio="alexnet.safetensors", video="resnet18.safetensors")
    return config
