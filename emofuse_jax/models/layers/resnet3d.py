"""Three-dimensional residual networks for snippets of video."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.layers.linear import scaled_uniform
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.ops.conv3d import conv3d
from emofuse_jax.ops.maxpool import max_pool

R3D18 = {
    "width": 64,
    "blocks": (2, 2, 2, 2),
    "bottleneck": False,
    "stem_kernel": (3, 7, 7),
    "stem_stride": (1, 2, 2),
    "stem_pool": False,
    "momentum": 0.9,
}
"""r3d_18 of torchvision (Tran et al., 2017, arXiv 1711.11248): 33,166,272 parameters without classifier."""

R3D50 = R3D18 | {
    "blocks": (3, 4, 6, 3),
    "bottleneck": True,
    "stem_kernel": (7, 7, 7),
    "stem_pool": True,
}
"""ResNet-50 of 3D-ResNets-PyTorch (Hara et al., 2017, arXiv 1711.09577): 46,198,976 parameters."""

R3D101 = R3D50 | {"blocks": (3, 4, 23, 3)}
"""ResNet-101 of 3D-ResNets-PyTorch: 85,245,120 parameters."""

BOTTLENECK_EXPANSION = 4
"""Ratio of the output width of a bottleneck block to its inner width."""

Snippets = Float[Array, "n t h w c"]
FeatureMaps = Float[Array, "n u y x d"]
SnippetMask = Bool[Array, "n 1 1 1 1"]


class ConvNorm3D(nnx.Module):
    """Convolution without bias, then batch normalisation over the valid snippets."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int, int],
        stride: int | tuple[int, int, int],
        config: ConfigDict,
        dtype: DTypeLike,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (*(kernel if isinstance(kernel, tuple) else (kernel,) * 3), in_channels, out_channels)
        self.kernel = nnx.Param(scaled_uniform(2.0)(rngs.params(), shape))
        self.norm = nnx.BatchNorm(out_channels, momentum=config.momentum, dtype=dtype, rngs=rngs)
        self.stride = stride if isinstance(stride, tuple) else (stride,) * 3
        self.dtype = dtype

    def __call__(self, x: Snippets, mask: SnippetMask, *, train: bool) -> FeatureMaps:
        """Applies the convolution and the norm, without activation, to n snippets [n t h w c].

        `mask` [n 1 1 1 1] is True for valid snippets. Returns maps [n u y x d]: u time steps, y x x pixels
        and d channels; u, y and x are t, h and w divided by their stride, rounded up, for odd kernels. If
        `train`, the norm uses the statistics of the valid snippets, and updates its running statistics. The
        maps of the other snippets have no meaning.
        """
        y = conv3d(x, self.kernel[...].astype(self.dtype), stride=self.stride)
        return masked_batch_norm(self.norm, y, mask, train=train)


class Block3D(nnx.Module):
    """Residual block `relu(x' + f(x))`; x' is x, or a projection of it if the shape changes.

    f has two convolutions with kernels of 3, or, as a bottleneck, three with kernels of 1, 3 and 1.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        config: ConfigDict,
        dtype: DTypeLike,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.width = width * (BOTTLENECK_EXPANSION if config.bottleneck else 1)
        basic_convs = [(in_channels, width, 3, stride), (width, width, 3, 1)]
        bottleneck_convs = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, self.width, 1, 1)]
        self.conv_names = ("first", "second", "third")[: 3 if config.bottleneck else 2]
        for name, conv_settings in zip(
            self.conv_names, bottleneck_convs if config.bottleneck else basic_convs, strict=True
        ):
            setattr(self, name, ConvNorm3D(*conv_settings, config, dtype, rngs=rngs))
        self.has_projection = stride != 1 or in_channels != self.width
        if self.has_projection:
            self.shortcut = ConvNorm3D(in_channels, self.width, 1, stride, config, dtype, rngs=rngs)

    def __call__(self, x: Snippets, mask: SnippetMask, *, train: bool) -> FeatureMaps:
        """Computes `relu(x' + f(x))` for n snippets [n t h w c].

        x' is x, or a projection of it if the shape changes; f has two convolutions, or three as a bottleneck.
        `mask` [n 1 1 1 1] is True for valid snippets. Returns maps [n u y x d]: u time steps, y x x pixels
        and d channels; u, y and x are t, h and w divided by the stride of the block, the same for all three,
        rounded up. If `train`, the norms use the statistics of the valid snippets, and update their running
        statistics. The maps of the other snippets have no meaning.
        """
        y = x
        for name in self.conv_names:
            y = getattr(self, name)(y, mask, train=train)
            if name != self.conv_names[-1]:
                y = jax.nn.relu(y)
        return jax.nn.relu(y + (self.shortcut(x, mask, train=train) if self.has_projection else x))


class R3D(nnx.Module):
    """3-D ResNet: a stem, then stages of blocks; each later stage doubles the width and halves the maps."""

    def __init__(self, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        kernel, stride = tuple(config.stem_kernel), tuple(config.stem_stride)
        self.has_stem_pool = config.stem_pool
        self.stem = ConvNorm3D(3, config.width, kernel, stride, config, dtype, rngs=rngs)
        self.width, block_names = config.width, []
        for stage, block_count in enumerate(config.blocks):
            for i in range(block_count):
                width, block_stride = config.width * 2**stage, 2 if stage and not i else 1
                block_names.append(f"stage{stage + 1}_block{i + 1}")
                setattr(
                    self, block_names[-1], Block3D(self.width, width, block_stride, config, dtype, rngs=rngs)
                )
                self.width = getattr(self, block_names[-1]).width
        self.block_names = tuple(block_names)

    def __call__(
        self, snippets: Float[Array, "n t h w 3"], mask: Bool[Array, " n"], *, train: bool
    ) -> FeatureMaps:
        """Computes the maps [n u y x d] of n snippets: u time steps, y x x pixels, d channels.

        `snippets` has t frames of h x w RGB pixels in [-1, 1] for each snippet; `mask` is True for valid
        snippets; the maps of the others have no meaning. u, y and x are those of `output_size`: t, h and w
        divided by `config.stem_stride`, by 2 for each stage after the first and by 2 if `config.stem_pool`,
        rounded up. d is the attribute `width`. If `train`, batch norms use the statistics of the valid
        snippets, and update their running statistics.
        """
        mask = mask[:, None, None, None, None]
        x = jax.nn.relu(self.stem(snippets, mask, train=train))
        if self.has_stem_pool:  # zeros are exact: no x is negative
            x = max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0))))
        for name in self.block_names:
            x = getattr(self, name)(x, mask, train=train)
        return x


def output_size(config: ConfigDict, steps: int, height: int, width: int) -> tuple[int, int, int]:
    """Returns `(steps, height, width)` of R3D's feature maps for snippets of `steps` frames.

    The frames have `height` x `width` pixels. Each size is divided by its stride in the stem
    (`config.stem_stride`), by 2 for each stage after the first (`config.blocks` has one entry per stage) and
    by 2 if `config.stem_pool`, and rounded up. `config` is that of the encoder, with an odd `stem_kernel`.
    """
    halvings = (len(config.blocks) - 1) + bool(config.stem_pool)
    sizes = zip((steps, height, width), config.stem_stride, strict=True)
    return tuple(math.ceil(size / (stride * 2**halvings)) for size, stride in sizes)
