"""torchvision's AlexNet (ImageNet) as the audio FCN of `TORCHVISION_ALEXNET`'s shape.

A spectrogram is an image whose height is frequency and whose width is time, so kernels are transposed; the
first convolution's are summed over RGB, which is what a grey picture would give.
"""

import numpy as np

from emofuse_jax.models.pretrained.conversion import ConversionRule, Tensors, convert_tensors, keep_layout

FEATURE_INDICES = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
"""Our convolution, and its place in torchvision's `features`."""


def convert(tensors: Tensors, shapes: dict[str, tuple]) -> Tensors:
    """Arrays by our names below `audio/`; ValueError names a tensor that is missing or does not fit."""
    return convert_tensors(
        tensors,
        shapes,
        [rule for name, index in FEATURE_INDICES.items() for rule in _layer_rules(name, index)],
    )


def _layer_rules(name: str, index: int) -> list[ConversionRule]:
    change_layout = _sum_rgb_kernel if name == "conv1" else _transpose_kernel
    kernel_rule = (f"fcn/{name}/kernel", f"features.{index}.weight", change_layout)
    return [kernel_rule, (f"fcn/{name}/bias", f"features.{index}.bias", keep_layout)]


def _transpose_kernel(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(3, 2, 1, 0)  # out in h w -> w h in out, as our maps are time by frequency


def _sum_rgb_kernel(weight: np.ndarray) -> np.ndarray:
    return _transpose_kernel(weight.sum(axis=1, keepdims=True))
