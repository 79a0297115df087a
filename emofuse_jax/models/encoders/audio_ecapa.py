"""Small ECAPA-TDNN: dilated convolutions over time in groups, with one gate per channel and clip.

Reference: Desplanques et al., 2020, arXiv 2005.07143; narrower here, for an hour of speech. Its pooling is
the attention `statistics` (models/layers/attention_pooling.py).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

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
"""Default config fields: channels (`width`), groups of a block (`scale`), inner width of the gate
(`bottleneck`), one block for each of `dilations`, stride of the first layer, width of the positions
(`output`), momentum of the batch norms."""


class TimeConv(nnx.Module):
    """Convolution over time, ReLU, and batch norm over the valid steps; masked steps are zero."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dtype: DTypeLike,
        *,
        stride: int = 1,
        dilation: int = 1,
        momentum: float,
        rngs: nnx.Rngs,
    ) -> None:
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

    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b u"], *, train: bool
    ) -> Float[Array, "b u d"]:
        """Returns u steps of d channels, one for every `stride` steps of `x` (u is t / stride, rounded up).

        `mask` is True at valid steps of the result; the other steps are zero. Step i of the result lies at
        step `stride` i of `x`, which must be zero at padding. If `train`, the norm uses the statistics of the
        valid steps and updates its running statistics.
        """
        x = masked_batch_norm(self.norm, jax.nn.relu(self.conv(x)), mask[..., None], train=train)
        return jnp.where(mask[..., None], x, 0)


class SERes2Block(nnx.Module):
    """Res2Net block with squeeze-excitation: `x + gate o W_2 res2(W_1 x)`.

    res2 splits the channels into `scale` groups. The first group stays unchanged; each other group is
    convolved, from the third on after adding the output of the group before it. The gate has one number for
    each channel, computed from the mean over the valid steps.
    """

    def __init__(self, config: ConfigDict, dilation: int, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
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

    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, train: bool
    ) -> Float[Array, "b t c"]:
        """Computes `x + gate o W_2 res2(W_1 x)` for t steps of c channels; the result has the same shape.

        res2 convolves groups of channels over time; the gate is one number for each channel of a clip. `mask`
        is True at valid steps. `x` must be zero at masked steps, and the result is too. If `train`, the norms
        use the statistics of the valid steps and update their running statistics.
        """
        groups = jnp.split(self.first(x, mask, train=train), self.scale, axis=-1)
        group_outputs = [groups[0]]
        for i in range(1, self.scale):
            group_input = groups[i] + group_outputs[-1] if i > 1 else groups[i]
            group_outputs.append(getattr(self, f"part{i}")(group_input, mask, train=train))
        y = self.last(jnp.concatenate(group_outputs, axis=-1), mask, train=train)
        gate = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(masked_mean(y, mask)))))  # b c
        return x + gate[:, None] * y


class Ecapa(nnx.Module):
    """Encodes a spectrogram as a sequence with one position for every `stride` steps.

    Padding a clip does not change its positions.

    Raises:
      ValueError: if `config.width` is not a multiple of `config.scale`.
    """

    defaults = ECAPA
    small = {"width": 32, "bottleneck": 16, "output": 64, "attention_width": 64}

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        if config.scale < 1 or config.width % config.scale:
            raise ValueError(
                f"config.model.audio.width: {config.width}, expected a multiple of"
                f" config.model.audio.scale={config.scale}, which must be at least 1"
            )
        self.stride, self.block_count = config.stride, len(config.dilations)
        layer_options = {"momentum": config.momentum, "rngs": rngs}
        self.first = TimeConv(spec.f, config.width, 5, dtype, stride=config.stride, **layer_options)
        for i, dilation in enumerate(config.dilations, 1):
            setattr(self, f"block{i}", SERes2Block(config, dilation, dtype, rngs=rngs))
        self.last = TimeConv(self.block_count * config.width, config.output, 1, dtype, **layer_options)
        self.width = config.output

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.audio` [b t f], a spectrogram that is standardised and zero at padding.

        If `train`, batch norms use the statistics of the batch and update their running statistics.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has u = t / `config.stride` positions (rounded up)
          of width d = `config.output`: `values` [b u d], zero at masked positions; `mask` [b u], True where
          the step at the start of the position is valid in `batch.audio_mask`; `time_index` [b u], the number
          of the position among the valid ones, from 0 (no meaning at masked ones); and `length` [b], the
          number of valid positions.
        """
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
