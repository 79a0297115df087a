"""Converts torchvision's ResNet-18 (ImageNet, or any other of its shape) to the frame network."""

import functools
import re
from collections.abc import Mapping

from emofuse_jax.models.pretrained.conversion import (
    Tensors,
    conv_norm_rules,
    convert_tensors,
    fold_pixel_normalization,
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet pixels in [0, 1], by which torchvision normalises."""


_conv_norm_rules = functools.partial(conv_norm_rules, kernel="conv/kernel")


def convert(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Converts torchvision's ResNet-18; returns a dict of float32 arrays by the names of emofuse.

    The stem is changed from torchvision's normalised pixels to pixels in [-1, 1].

    Args:
      tensors: NumPy arrays of the public weights by their name, such as `conv1.weight`.
      shapes: shapes of the parameters and statistics of this encoder by their name in emofuse, without the
        prefix `video/`, such as `resnet/stem/conv/kernel`.

    Returns:
      A dict with names of `shapes`; parameters that the public network does not have are left out.

    Raises:
      ValueError: if a tensor is missing or has the wrong shape, or `shapes` lacks a parameter of the public
        network; the message names the tensor.
    """
    blocks = sorted({name.split("/")[1] for name in shapes if name.startswith("resnet/stage")})
    rules = _conv_norm_rules("resnet/stem", "conv1", "bn1")
    for block in blocks:
        stage, index = map(int, re.findall(r"\d+", block))
        our_prefix, public_prefix = f"resnet/{block}", f"layer{stage}.{index - 1}"
        rules += _conv_norm_rules(f"{our_prefix}/first", f"{public_prefix}.conv1", f"{public_prefix}.bn1")
        rules += _conv_norm_rules(f"{our_prefix}/second", f"{public_prefix}.conv2", f"{public_prefix}.bn2")
        if f"{our_prefix}/shortcut/conv/kernel" in shapes:
            rules += _conv_norm_rules(
                f"{our_prefix}/shortcut", f"{public_prefix}.downsample.0", f"{public_prefix}.downsample.1"
            )
    arrays = convert_tensors(tensors, shapes, rules)
    return fold_pixel_normalization(
        arrays, "resnet/stem/conv/kernel", "resnet/stem/norm/mean", IMAGENET_MEAN, IMAGENET_STD
    )
