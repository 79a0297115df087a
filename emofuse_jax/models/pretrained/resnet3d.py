"""Converts public three-dimensional ResNets (Kinetics) to the network of snippets.

These are r3d_18 of torchvision, and the ResNets (18, 50, 101, ...) of 3D-ResNets-PyTorch in the shape of
R3D50 (models/layers/resnet3d.py). The name of the stem shows the project.
"""

import re
from collections.abc import Mapping

from emofuse_jax.models.pretrained.conversion import (
    Tensors,
    conv_norm_rules,
    convert_tensors,
    fold_pixel_normalization,
)

CONV_NAMES = ("first", "second", "third")
"""Our names of the convolutions of a block; only bottlenecks have the third."""

TORCHVISION_PIXEL_STATS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
RESNETS_3D_PIXEL_STATS = ((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737))
"""Mean and standard deviation of Kinetics pixels in [0, 1], by which each project normalises."""


def convert(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Converts a public 3-D ResNet; returns a dict of float32 arrays by the names of emofuse.

    The network is r3d_18 of torchvision if `tensors` has `stem.0.weight`, otherwise a ResNet of
    3D-ResNets-PyTorch. The stem is changed from its normalised pixels to pixels in [-1, 1].

    Args:
      tensors: NumPy arrays of the public weights by their name, such as `stem.0.weight`.
      shapes: shapes of the parameters and statistics of this encoder by their name in emofuse, without the
        prefix `video/`, such as `r3d/stem/kernel`.

    Returns:
      A dict with names of `shapes`; parameters that the public network does not have are left out.

    Raises:
      ValueError: if a tensor is missing or has the wrong shape, or `shapes` lacks a parameter of the public
        network; the message names the tensor.
    """
    is_torchvision = "stem.0.weight" in tensors
    rules = conv_norm_rules("r3d/stem", *(("stem.0", "stem.1") if is_torchvision else ("conv1", "bn1")))
    for block in sorted({name.split("/")[1] for name in shapes if name.startswith("r3d/stage")}):
        stage, index = map(int, re.findall(r"\d+", block))
        our_prefix, public_prefix = f"r3d/{block}", f"layer{stage}.{index - 1}"
        for i, layer in enumerate(CONV_NAMES, 1):
            if f"{our_prefix}/{layer}/kernel" in shapes:
                conv, norm = (f"conv{i}.0", f"conv{i}.1") if is_torchvision else (f"conv{i}", f"bn{i}")
                rules += conv_norm_rules(
                    f"{our_prefix}/{layer}", f"{public_prefix}.{conv}", f"{public_prefix}.{norm}"
                )
        if f"{our_prefix}/shortcut/kernel" in shapes:
            rules += conv_norm_rules(
                f"{our_prefix}/shortcut", f"{public_prefix}.downsample.0", f"{public_prefix}.downsample.1"
            )
    mean, std = TORCHVISION_PIXEL_STATS if is_torchvision else RESNETS_3D_PIXEL_STATS
    return fold_pixel_normalization(
        convert_tensors(tensors, shapes, rules), "r3d/stem/kernel", "r3d/stem/norm/mean", mean, std
    )
