"""Frame network: ResNet-18 on each face, then a linear layer with tanh."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.linear import conv, linear
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.ops.maxpool import max_pool
from emofuse_jax.types import Batch, InputSpec

RESNET18 = {
    "width": 64,
    "blocks": (2, 2, 2, 2),
    "stem_kernel": 7,
    "stem_stride": 2,
    "stem_pool": True,
    "momentum": 0.9,
}
"""ResNet-18 (He et al., 2015, arXiv 1512.03385); `momentum` is that of the batch norms."""


class ConvNorm(nnx.Module):
    """Convolution without bias, then batch normalisation over the valid frames."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        config: ConfigDict,
        dtype: DTypeLike,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = conv(in_channels, out_channels, kernel, stride, kernel // 2, dtype, bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(out_channels, momentum=config.momentum, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n h w c"], mask: Bool[Array, "n 1 1 1"], *, train: bool
    ) -> Float[Array, "n y x d"]:
        """Applies convolution and norm, without activation; returns n maps of y x x pixels with d channels.

        y and x are h and w divided by the stride, rounded up, for an odd kernel; y is h // stride + 1 for an
        even one, and x likewise. If `train`, the norm uses the statistics of the images whose mask is True,
        and updates its running statistics. The maps of the other images have no meaning.
        """
        return masked_batch_norm(self.norm, self.conv(x), mask, train=train)


class BasicBlock(nnx.Module):
    """Residual block `relu(x' + norm(conv(relu(norm(conv(x))))))`; x' is x, or a projection of it.

    x is projected if its shape changes. Reference: He et al., 2015, arXiv 1512.03385.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        config: ConfigDict,
        dtype: DTypeLike,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.first = ConvNorm(in_channels, out_channels, 3, stride, config, dtype, rngs=rngs)
        self.second = ConvNorm(out_channels, out_channels, 3, 1, config, dtype, rngs=rngs)
        self.has_projection = stride != 1 or in_channels != out_channels
        if self.has_projection:
            self.shortcut = ConvNorm(in_channels, out_channels, 1, stride, config, dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n h w c"], mask: Bool[Array, "n 1 1 1"], *, train: bool
    ) -> Float[Array, "n y x d"]:
        """Computes `relu(x' + norm(conv(relu(norm(conv(x))))))`; returns n maps of y x x pixels.

        x' is x, or a projection of it if the shape changes. y and x are h and w divided by the stride,
        rounded up; there are d channels. If `train`, the norms use the statistics of the images whose mask is
        True, and update their running statistics. The maps of the other images have no meaning.
        """
        y = jax.nn.relu(self.first(x, mask, train=train))
        y = self.second(y, mask, train=train)
        return jax.nn.relu(y + (self.shortcut(x, mask, train=train) if self.has_projection else x))


class ResNet(nnx.Module):
    """2-D ResNet: a stem, stages of basic blocks, and the mean over the map.

    Each stage after the first doubles the width and halves the size of the map.
    """

    def __init__(self, config: ConfigDict, dtype: DTypeLike, *, in_channels: int = 3, rngs: nnx.Rngs) -> None:
        self.has_stem_pool = config.stem_pool
        width = config.width
        self.stem = ConvNorm(
            in_channels, width, config.stem_kernel, config.stem_stride, config, dtype, rngs=rngs
        )
        block_names = []
        in_channels = width
        for stage, block_count in enumerate(config.blocks):
            for i in range(block_count):
                out_channels, stride = width * 2**stage, 2 if stage and not i else 1
                block_names.append(f"stage{stage + 1}_block{i + 1}")
                setattr(
                    self,
                    block_names[-1],
                    BasicBlock(in_channels, out_channels, stride, config, dtype, rngs=rngs),
                )
                in_channels = out_channels
        self.block_names = tuple(block_names)
        self.width = in_channels

    def __call__(
        self, images: Float[Array, "n h w c"], mask: Bool[Array, " n"], *, train: bool
    ) -> Float[Array, "n d"]:
        """Computes one vector of width d for each of n images of h x w pixels with c channels.

        The pixels are in [-1, 1] or standardised. d is `config.width`, doubled by each stage after the first.
        `mask` is True for valid images; the vectors of the others have no meaning. If `train`, batch norms
        use the statistics of the valid images, and update their running statistics.
        """
        mask = mask[:, None, None, None]
        x = jax.nn.relu(self.stem(images, mask, train=train))
        if self.has_stem_pool:
            x = max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))  # zeros are exact: no x is negative
        for name in self.block_names:
            x = getattr(self, name)(x, mask, train=train)
        return x.mean(axis=(1, 2))


def downsample_images(images: Float[Array, "n h w 3"], factor: int) -> Float[Array, "n y x 3"]:
    """Downsamples images by taking means over squares of `factor` x `factor` pixels.

    The n results have y = h / factor rows and x = w / factor columns of pixels, in the dtype of `images`.
    `factor` must divide h and w; otherwise reshaping raises TypeError.
    """
    n, h, w, c = images.shape
    return images.reshape(n, h // factor, factor, w // factor, factor, c).mean(axis=(2, 4))  # n y q x q c


class FrameEncoder(nnx.Module):
    """Encodes faces as a sequence of frame embeddings, after downsampling them by `config.downsample`.

    Raises:
      ValueError: if `config.downsample` does not divide the height and the width of the faces.
    """

    defaults = RESNET18 | {"downsample": 1, "embedding": 256}
    small = {
        "width": 16,
        "blocks": (2, 2, 2),
        "stem_kernel": 3,
        "downsample": 2,
        "embedding": 64,
        "attention_width": 64,
    }

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.downsample_factor, self.dtype = config.downsample, dtype
        if spec.h % self.downsample_factor or spec.w % self.downsample_factor:
            raise ValueError(
                f"config.model.video.downsample={self.downsample_factor} does not divide faces of"
                f" {spec.h}x{spec.w} pixels; set it to a divisor of height and width"
            )
        self.resnet = ResNet(config, dtype, rngs=rngs)
        self.linear = linear(self.resnet.width, config.embedding, dtype, rngs=rngs)
        self.width = config.embedding

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Computes `tanh(W resnet(face) + b)` for each of the s frames of `batch.faces`.

        The faces are uint8 [b s h w 3]; pixels are scaled from 0..255 to [-1, 1], downsampled by
        `config.downsample`, and set to 0 in frames without a face. If `train`, batch norms use the statistics
        of the frames with a face and update their running statistics.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has `values` [b s d] of width d =
          `config.embedding`, which have no meaning at frames without a face; `mask` [b s], which is
          `batch.face_mask`, True at frames with a face; `time_index` [b s], the number of the frame, from 0;
          and `length` [b], always s.
        """
        b, s, h, w, c = batch.faces.shape
        images = (
            batch.faces.reshape(b * s, h, w, c).astype(jnp.float32) / 127.5 - 1.0
        )  # b s h w c -> b*s h w c
        flat_mask = batch.face_mask.reshape(b * s)
        images = jnp.where(
            flat_mask[:, None, None, None], downsample_images(images, self.downsample_factor), 0.0
        ).astype(self.dtype)
        values = jnp.tanh(self.linear(self.resnet(images, flat_mask, train=train)))
        time_index = jnp.broadcast_to(jnp.arange(s), (b, s))
        sequence = EncodedSequence(
            values.reshape(b, s, -1), batch.face_mask, time_index, jnp.full(b, s)
        )  # b*s d -> b s d
        return EncoderOutput(sequence, {})
