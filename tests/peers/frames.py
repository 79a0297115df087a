"""ResNet of the frame encoder: evaluation with running statistics, training with those of valid images."""

import numpy as np
import torch

from benchmarks.peers.case import Case, normal
from benchmarks.peers.modules import buffer_names, call, random_weights
from benchmarks.peers.resnet import ResNet


def make_resnet(size):
    """Builds a ResNet: at the stored size with a 3x3 stem without stride, else with the stem of ResNet-18."""
    stem = {"kernel": (3, 3), "stride": 1, "pool": False}
    return ResNet(2, 2 * size, (1, 2), **stem if size == 1 else {"kernel": (7, 7), "stride": 2, "pool": True})


def inputs(rng, size):
    side = 7 if size == 1 else 24
    images = normal(rng, 4, side, side, 3)
    return {"images": images, "mask": np.array([True, False, True, True])} | random_weights(
        rng, make_resnet(size)
    )


def make_resnet_like(a):
    return make_resnet(a["bn1.weight"].shape[0] // 2)


def evaluate(a):
    return {"y": call(make_resnet_like(a).eval(), a, a["images"].movedim(-1, 1)).mean((2, 3))}


def train(a):
    """Computes the output for the valid images, and the stem's new running statistics (biased variance)."""
    net, valid = make_resnet_like(a).double().train(), a["images"][a["mask"]].movedim(-1, 1)
    stem = torch.func.functional_call(net.conv1, {"weight": a["conv1.weight"]}, (valid,))
    var = 0.9 * a["bn1.running_var"] + 0.1 * stem.var((0, 2, 3), correction=0)
    copies = {k: v.clone() for k, v in a.items()}  # torch writes its running statistics in place
    y = call(net, copies, valid).mean((2, 3))
    mean = 0.9 * a["bn1.running_mean"] + 0.1 * stem.mean((0, 2, 3))
    torch.testing.assert_close(mean, copies["bn1.running_mean"])
    return {"y": y, "mean": mean.detach(), "var": var.detach()}  # statistics carry no gradient


BUFFER_NAMES = buffer_names(random_weights(np.random.default_rng(0), make_resnet(2)))
CASES = {"resnet": Case(inputs, evaluate, BUFFER_NAMES), "resnet_train": Case(inputs, train, BUFFER_NAMES)}
