"""Converts torchvision's AlexNet (ImageNet) to the audio FCN with the shape TORCHVISION_ALEXNET.

Our feature maps are time by frequency, while in an image of a spectrogram the height is frequency and the
width is time; so kernels are transposed. The kernels of the first convolution are summed over RGB, which is
equal to showing a grey image to the original network.
"""

from collections.abc import Mapping

import numpy as np

from emofuse_jax.models.pretrained.conversion import ConversionRule, Tensors, convert_tensors, keep_layout

FEATURE_INDICES = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
"""Index of each of our convolutions in torchvision's `features`."""


def convert(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Converts torchvision's AlexNet; returns a dict of float32 arrays by the names of emofuse.

    Args:
      tensors: NumPy arrays of the public weights by their name, such as `features.0.weight`.
      shapes: shapes of the parameters and statistics of this encoder by their name in emofuse, without the
        prefix `audio/`, such as `fcn/conv1/kernel`.

    Returns:
      A dict with names of `shapes`; parameters that the public network does not have are left out.

    Raises:
      ValueError: if a tensor is missing or has the wrong shape, or `shapes` lacks a parameter of the public
        network; the message names the tensor.
    """
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
    return weight.transpose(3, 2, 1, 0)  # out in h w -> w h in out: time by frequency


def _sum_rgb_kernel(weight: np.ndarray) -> np.ndarray:
    return _transpose_kernel(weight.sum(axis=1, keepdims=True))
