"""Deep Fusion from ImageNet weights: torchvision's AlexNet for audio, its ResNet-18 for faces.

Reference: Deep Fusion (Zhang et al., 2019, arXiv 1901.04889).

Command: emofuse train --config=imagenet --config.init.audio=alexnet.safetensors
    --config.init.video=resnet18.safetensors --config.data.path=DIR --workdir=DIR
docs/pretrained.md has the commands that convert the two files.
Time and score: unmeasured (no audio-visual corpus was available).
"""

import ml_collections

import emofuse_jax as ef
from emofuse_jax.models.encoders.audio_fcn import TORCHVISION_ALEXNET


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    config = ef.settings.load_shipped("g_fbp")
    config.name = "imagenet"
    config.model.audio.update(TORCHVISION_ALEXNET)
    config.init.update(audio="alexnet.safetensors", video="resnet18.safetensors")
    return config
