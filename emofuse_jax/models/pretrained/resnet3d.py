"""Public three-dimensional ResNets (Kinetics) as the network of snippets.

torchvision's r3d_18, or those of 3D-ResNets-PyTorch (18, 50, 101, ...) in the shape of `r3d.R3D50`; which of
the two it is shows in the name of the stem.
"""

import re

import numpy as np

from emofuse_jax.models.pretrained.conversion import Rule, Tensors, meet_pixels, norm_rules, take

LAYERS = ("first", "second", "third")
"""Our convolutions of a block; the third is a bottleneck's."""

TORCHVISION = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
RESNETS_3D = ((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737))
"""Mean and standard deviation of Kinetics' pixels in [0, 1] that each project normalises by."""


def convert(tensors: Tensors, shapes: dict[str, tuple]) -> Tensors:
    """Arrays by our names below `video/`; ValueError names a tensor that is missing or does not fit."""
    torchvision = "stem.0.weight" in tensors
    rules = _conv_norm("r3d/stem", *(("stem.0", "stem.1") if torchvision else ("conv1", "bn1")))
    for block in sorted({name.split("/")[1] for name in shapes if name.startswith("r3d/stage")}):
        stage, index = map(int, re.findall(r"\d+", block))
        ours, theirs = f"r3d/{block}", f"layer{stage}.{index - 1}"
        for i, layer in enumerate(LAYERS, 1):
            if f"{ours}/{layer}/kernel" in shapes:
                conv, norm = (f"conv{i}.0", f"conv{i}.1") if torchvision else (f"conv{i}", f"bn{i}")
                rules += _conv_norm(f"{ours}/{layer}", f"{theirs}.{conv}", f"{theirs}.{norm}")
        if f"{ours}/shortcut/kernel" in shapes:
            rules += _conv_norm(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    mean, std = TORCHVISION if torchvision else RESNETS_3D
    return meet_pixels(take(tensors, shapes, rules), "r3d/stem/kernel", "r3d/stem/norm/mean", mean, std)


def _conv_norm(ours: str, conv: str, norm: str) -> list[Rule]:
    return [(f"{ours}/kernel", f"{conv}.weight", _kernel3d), *norm_rules(f"{ours}/norm", norm)]


def _kernel3d(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 4, 1, 0)  # out in t h w -> t h w in out
