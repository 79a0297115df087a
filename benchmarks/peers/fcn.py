"""Fully convolutional audio networks in the shape of AlexNet, as torch.nn.Sequential (arXiv 1901.04889)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal, prefix_mask
from benchmarks.peers.modules import call, random_weights


def original(widths):
    """Builds the original layers: no padding at the stem, LRN before ReLU; torch divides alpha by n=5."""
    a, b, c, d, e = widths
    return nn.Sequential(
        nn.Conv2d(1, a, 11, stride=4),
        nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2),
        nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        *last_layers(b, c, d, e),
    )


def torchvision(widths):
    """Builds torchvision's `alexnet().features` with other widths: padding of 2 at the stem, no LRN."""
    a, b, c, d, e = widths
    return nn.Sequential(
        nn.Conv2d(1, a, kernel_size=11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(a, b, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        *last_layers(b, c, d, e),
    )


def last_layers(b, c, d, e):
    return (
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(d, e, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )


FORMS = {"original": original, "torchvision": torchvision}
SMALL_WIDTHS, WIDE_WIDTHS = (2, 3, 3, 3, 4), (6, 8, 8, 8, 10)


def make_inputs(form):
    def inputs(rng, size):
        """Draws a spectrogram: large values, so that LRN matters; steps of 2, so that the file is small.

        The stored size gives one output column; the other size has padding.
        """
        shape = (1, 67, 67) if size == 1 else (3, 163, 99)
        mask = prefix_mask([67] if size == 1 else [163, 99, 130], shape[1])
        audio = 2 * np.round(normal(rng, *shape, scale=15)) * mask[:, :, None]
        net = FORMS[form](SMALL_WIDTHS if size == 1 else WIDE_WIDTHS)
        return {"audio": audio, "mask": mask} | random_weights(rng, net)

    return inputs


def feature_map(net, a, audio, lengths):
    """Computes the map [b u g d] of each clip alone without padding; pads shorter clips with zeros."""
    clip_maps = [call(net, a, x[None, None, :n])[0] for x, n in zip(audio, lengths, strict=True)]  # d u g
    max_columns = max(x.shape[1] for x in clip_maps)
    return torch.stack([F.pad(x, (0, 0, 0, max_columns - x.shape[1])) for x in clip_maps]).movedim(1, -1)


def make_case(form):
    def peer(a):
        widths = [v.shape[0] for k, v in a.items() if k.endswith(".weight")]
        return {"map": feature_map(FORMS[form](widths), a, a["audio"], a["mask"].sum(1))}

    return Case(make_inputs(form), peer)


CASES = {f"fcn_{form}": make_case(form) for form in FORMS}
