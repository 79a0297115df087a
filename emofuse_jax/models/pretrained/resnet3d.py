"""Public three-dimensional ResNets (Kinetics) as the network of snippets.

torchvision's r3d_18, or those of 3D-ResNets-PyTorch (18, 50, 101, ...) in the shape of R3D50
(models/layers/resnet3d.py); which of the two it is shows in the name of the stem.
"""

import re

from emofuse_jax.models.pretrained.conversion import (
    Tensors,
    conv_norm_rules,
    convert_tensors,
    fold_pixel_normalization,
)

CONV_NAMES = ("first", "second", "third")
"""Our convolutions of a block; the third is a bottleneck's."""

TORCHVISION_PIXEL_STATS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
RESNETS_3D_PIXEL_STATS = ((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737))
"""Mean and standard deviation of Kinetics' pixels in [0, 1] that each project normalises by."""


def convert(tensors: Tensors, shapes: dict[str, tuple]) -> Tensors:
    """Arrays by our names below `video/`; ValueError names a tensor that is missing or does not fit."""
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
