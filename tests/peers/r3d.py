"""R3D with basic and bottleneck blocks, and its convolution, in PyTorch; axes are time, height, width."""

import numpy as np
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal
from benchmarks.peers.modules import buffer_names, call, random_weights
from benchmarks.peers.resnet import ResNet

STRIDE = (1, 2, 2)


def conv3d(x, kernel):
    """Computes a 3-D convolution with STRIDE, channels last; kernel [t y x i o], padding of half its size."""
    padding = tuple(k // 2 for k in kernel.shape[:3])
    y = F.conv3d(x.movedim(-1, 1), kernel.permute(4, 3, 0, 1, 2), stride=STRIDE, padding=padding)
    return y.movedim(1, -1)


def make_conv_inputs(rng, size):
    return {"x": normal(rng, 2, 3 + size, 3 * size, 4, 2), "kernel": normal(rng, 3, 3, 5, 2, 3, scale=0.2)}


def make_network(size, *, bottleneck):
    """Builds a narrow r3d_18 (torchvision) or ResNet-50 (Hara et al.); the stored size has small stems."""
    kernel = (3, 3, 3) if size == 1 else (7, 7, 7) if bottleneck else (3, 7, 7)
    options = {"kernel": kernel, "stride": STRIDE, "pool": bottleneck, "bottleneck": bottleneck}
    return ResNet(3, 2 * size, (1, size), **options)


def make_case(*, bottleneck, train):
    def inputs(rng, size):
        snippets = normal(rng, 3, 4 * size, 6 * size, 7, 3)
        mask = np.array([True, False, True])
        return {"snippets": snippets, "mask": mask} | random_weights(
            rng, make_network(size, bottleneck=bottleneck)
        )

    def peer(a):
        """Computes the map of the valid snippets, so that only these enter the batch statistics."""
        net = make_network(len(a["bn1.weight"]) // 2, bottleneck=bottleneck).train(train)
        x = a["snippets"][a["mask"]].movedim(-1, 1)
        copies = {k: v.clone() for k, v in a.items()}  # torch writes its running statistics in place
        return {"map": call(net, copies, x).movedim(1, -1)}

    params = random_weights(np.random.default_rng(0), make_network(2, bottleneck=bottleneck))
    return Case(inputs, peer, buffer_names(params))


CASES = {
    "conv3d": Case(make_conv_inputs, lambda a: {"y": conv3d(**a)}),
    "r3d_train": make_case(bottleneck=False, train=True),
    "r3d_bottleneck": make_case(bottleneck=True, train=False),
}
