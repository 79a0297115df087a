"""torchvision's AlexNet (ImageNet) as the audio FCN of `audio.TORCHVISION`'s shape.

A spectrogram is an image whose height is frequency and whose width is time, so kernels are transposed; the
first convolution's are summed over RGB, which is what a grey picture would give.
"""

import numpy as np

from emofuse_jax.models.pretrained.conversion import Rule, Tensors, same, take

LAYERS = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
"""Our convolution, and its place in torchvision's `features`."""


def convert(tensors: Tensors, shapes: dict[str, tuple]) -> Tensors:
    """Arrays by our names below `audio/`; ValueError names a tensor that is missing or does not fit."""
    return take(tensors, shapes, [rule for name, place in LAYERS.items() for rule in _layer(name, place)])


def _layer(name: str, place: int) -> list[Rule]:
    layout = _grey if name == "conv1" else _over_time
    kernel = (f"fcn/{name}/kernel", f"features.{place}.weight", layout)
    return [kernel, (f"fcn/{name}/bias", f"features.{place}.bias", same)]


def _over_time(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(3, 2, 1, 0)  # out in h w -> w h in out, as our maps are time by frequency


def _grey(weight: np.ndarray) -> np.ndarray:
    return _over_time(weight.sum(axis=1, keepdims=True))
