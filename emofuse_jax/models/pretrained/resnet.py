"""torchvision's ResNet-18 (ImageNet, or any of its shape) as the frame network."""

import re

from emofuse_jax.models.pretrained.conversion import Rule, Tensors, kernel2d, meet_pixels, norm_rules, take

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], as torchvision normalises them."""


def convert(tensors: Tensors, shapes: dict[str, tuple]) -> Tensors:
    """Arrays by our names below `video/`; ValueError names a tensor that is missing or does not fit."""
    blocks = sorted({name.split("/")[1] for name in shapes if name.startswith("resnet/stage")})
    rules = _conv_norm("resnet/stem", "conv1", "bn1")
    for block in blocks:
        stage, index = map(int, re.findall(r"\d+", block))
        ours, theirs = f"resnet/{block}", f"layer{stage}.{index - 1}"
        rules += _conv_norm(f"{ours}/first", f"{theirs}.conv1", f"{theirs}.bn1")
        rules += _conv_norm(f"{ours}/second", f"{theirs}.conv2", f"{theirs}.bn2")
        if f"{ours}/shortcut/conv/kernel" in shapes:
            rules += _conv_norm(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    found = take(tensors, shapes, rules)
    return meet_pixels(found, "resnet/stem/conv/kernel", "resnet/stem/norm/mean", MEAN, STD)


def _conv_norm(ours: str, conv: str, norm: str) -> list[Rule]:
    return [(f"{ours}/conv/kernel", f"{conv}.weight", kernel2d), *norm_rules(f"{ours}/norm", norm)]
