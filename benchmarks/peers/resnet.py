"""Residual networks in PyTorch with torchvision's parameter names, in two and three dimensions.

He et al., arXiv 1512.03385; R3D, arXiv 1711.11248; three-dimensional bottlenecks, arXiv 1711.09577.
"""

from torch import nn
from torch.nn import functional as F

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Block(nn.Module):
    """Convolutions with the sizes `kernels` and a shortcut, which is projected if the shapes differ.

    The first kernel of size 3 has the stride.
    """

    def __init__(self, dims, widths, kernels, stride):
        super().__init__()
        self.count = len(kernels)
        for i, kernel in enumerate(kernels, 1):
            step = stride if kernel == 3 and 3 not in kernels[: i - 1] else 1
            layer = CONV[dims](widths[i - 1], widths[i], kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i}", layer)
            setattr(self, f"bn{i}", NORM[dims](widths[i]))
        self.downsample = None
        if stride != 1 or widths[0] != widths[-1]:
            layer = CONV[dims](widths[0], widths[-1], 1, stride, bias=False)
            self.downsample = nn.Sequential(layer, NORM[dims](widths[-1]))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Stem, max pooling, then stages `layer1`, `layer2`, ... of doubling width; returns the map [n c ...]."""

    def __init__(self, dims, width, blocks, *, kernel, stride, pool, bottleneck=False):
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.conv1 = CONV[dims](3, width, kernel, stride, padding, bias=False)
        self.bn1 = NORM[dims](width)
        self.maxpool = POOL[dims](3, 2, 1) if pool else nn.Identity()
        self.count, inputs = len(blocks), width
        for i, count in enumerate(blocks):
            layer, inner = [], width << i
            for j in range(count):
                basic, deep = (inputs, inner, inner), (inputs, inner, inner, 4 * inner)
                rows = (deep, (1, 3, 1)) if bottleneck else (basic, (3, 3))
                layer.append(Block(dims, *rows, stride=2 if i and not j else 1))
                inputs = rows[0][-1]
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i in range(self.count):
            x = getattr(self, f"layer{i + 1}")(x)
        return x
