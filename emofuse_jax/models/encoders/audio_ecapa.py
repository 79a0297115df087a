"""A small ECAPA-TDNN: dilated convolutions over time, in groups that build on each other, with a gate a clip.

Reference: Desplanques et al., arXiv 2005.07143, made narrow for an hour of speech. Its pooling is the
attention `statistics` (models/layers/attention_pooling.py).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.types import Batch, InputSpec

ECAPA = {
    "width": 128,
    "scale": 4,
    "bottleneck": 64,
    "dilations": (2, 3, 4),
    "stride": 2,
    "output": 192,
    "momentum": 0.98,
}
"""Channels; groups of a block; width of the gate; a block for each dilation; stride of the first layer; width
of a position."""


class TimeConv(nnx.Module):
    """Convolution over time, ReLU, batch norm over the valid steps; zero outside them."""

    def __init__(
        self, in_channels, out_channels, kernel_size, dtype, *, stride=1, dilation=1, momentum, rngs: nnx.Rngs
    ):
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nnx.Conv(
            in_channels,
            out_channels,
            (kernel_size,),
            strides=stride,
            padding=((padding, padding),),
            kernel_dilation=dilation,
            dtype=dtype,
            kernel_init=scaled_uniform(2.0),
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(out_channels, momentum=momentum, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b t c"], mask: Bool[Array, "b u"], *, train: bool):
        """[b u d], u steps of `mask`: those of x, or every `stride`-th."""
        x = masked_batch_norm(self.norm, jax.nn.relu(self.conv(x)), mask[..., None], train=train)
        return jnp.where(mask[..., None], x, 0)


class SERes2Block(nnx.Module):
    """Squeeze-excitation Res2Net block: `x + gate * W2 res2(W1 x)`."""

    def __init__(self, config, dilation: int, dtype, *, rngs: nnx.Rngs):
        width, scale = config.width, config.scale
        layer_options = {"momentum": config.momentum, "rngs": rngs}
        self.scale = scale
        self.first = TimeConv(width, width, 1, dtype, **layer_options)
        for i in range(1, scale):
            group_conv = TimeConv(
                width // scale, width // scale, 3, dtype, dilation=dilation, **layer_options
            )
            setattr(self, f"part{i}", group_conv)
        self.last = TimeConv(width, width, 1, dtype, **layer_options)
        self.squeeze = linear(width, config.bottleneck, dtype, rngs=rngs)
        self.excite = linear(config.bottleneck, width, dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, train: bool):
        """[b t c], zero where not `mask`."""
        groups = jnp.split(self.first(x, mask, train=train), self.scale, axis=-1)
        group_outputs = [groups[0]]
        for i in range(1, self.scale):
            group_input = groups[i] + group_outputs[-1] if i > 1 else groups[i]
            group_outputs.append(getattr(self, f"part{i}")(group_input, mask, train=train))
        y = self.last(jnp.concatenate(group_outputs, axis=-1), mask, train=train)
        gate = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(masked_mean(y, mask)))))  # b c
        return x + gate[:, None] * y


class Ecapa(nnx.Module):
    """Spectrogram to a sequence, a position for every `stride` steps; padding a clip changes nothing."""

    defaults = ECAPA
    small = {"width": 32, "bottleneck": 16, "output": 64, "attention_width": 64}

    def __init__(self, config, spec: InputSpec, dtype, *, rngs: nnx.Rngs):
        if config.scale < 1 or config.width % config.scale:
            raise ValueError(f"audio.width: {config.width}, expected a multiple of scale={config.scale}")
        self.stride, self.block_count = config.stride, len(config.dilations)
        layer_options = {"momentum": config.momentum, "rngs": rngs}
        self.first = TimeConv(spec.f, config.width, 5, dtype, stride=config.stride, **layer_options)
        for i, dilation in enumerate(config.dilations, 1):
            setattr(self, f"block{i}", SERes2Block(config, dilation, dtype, rngs=rngs))
        self.last = TimeConv(self.block_count * config.width, config.output, 1, dtype, **layer_options)
        self.width = config.output

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Standardised spectrogram, zero at padding, to a sequence."""
        mask = batch.audio_mask[:, :: self.stride]
        x = self.first(batch.audio, mask, train=train)
        block_outputs = []
        for i in range(1, self.block_count + 1):
            x = getattr(self, f"block{i}")(x, mask, train=train)
            block_outputs.append(x)
        values = self.last(jnp.concatenate(block_outputs, axis=-1), mask, train=train)
        return EncoderOutput(
            EncodedSequence(values, mask, jnp.cumsum(mask, axis=1) - 1, jnp.sum(mask, axis=1)), {}
        )
