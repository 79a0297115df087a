"""Small residual network for log-mel energies, designed for training from scratch on an hour of speech."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.encoders.audio_fcn import (
    map_to_sequence,
    position_width,
    read_attention_axes,
    reshape_to_map,
)
from emofuse_jax.models.interfaces import EncoderOutput
from emofuse_jax.models.layers.linear import conv
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.types import Batch, InputSpec

MEL_CNN = {"widths": (32, 64, 128, 192), "stem": 5, "residual": True, "momentum": 0.98}
"""Default config fields: one stage for each of `widths`, which halves the steps and bins; size of the first
kernel (`stem`); whether each stage after the first has a residual layer; momentum of the batch norms."""


class ConvStages(nnx.Module):
    """Stages of convolution with stride 2, batch norm and ReLU, then `x + ReLU(BN(conv x))` if `residual`.

    A column is valid if the step at its centre is. After each layer the other columns are set to zero, so
    that padding a clip does not change its columns.

    Raises:
      ValueError: if `config.stem` is even.
    """

    def __init__(self, config: ConfigDict, bins: int, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        if config.stem % 2 == 0:
            raise ValueError(f"config.model.audio.stem: {config.stem}, expected an odd number")
        self.stage_count, self.residual = len(config.widths), config.residual
        channels, self.bins = 1, bins
        for i, width in enumerate(config.widths, 1):
            kernel = 3 if i > 1 else config.stem
            layer_settings = {"down": (channels, width, kernel, 2)}
            if self.residual and i > 1:
                layer_settings["keep"] = (width, width, 3, 1)
            for name, (in_channels, out_channels, size, stride) in layer_settings.items():
                conv_layer = conv(
                    in_channels, out_channels, size, stride, size // 2, dtype, bias=False, rngs=rngs
                )
                setattr(self, f"{name}{i}", conv_layer)
                norm = nnx.BatchNorm(out_channels, momentum=config.momentum, dtype=dtype, rngs=rngs)
                setattr(self, f"{name}_norm{i}", norm)
            channels, self.bins = width, -(-self.bins // 2)
        self.width = channels

    def __call__(
        self, audio: Float[Array, "b t f"], mask: Bool[Array, "b t"], *, train: bool
    ) -> tuple[Float[Array, "b u g d"], Bool[Array, "b u"]]:
        """Returns `(features, mask)`: a map of u columns (time), g bins and d channels, and its column mask.

        u and g are t and f divided by `2^n`, rounded up, for n stages; d is the last of `config.widths`.
        `audio` must be standardised and zero at masked steps. Both masks are True at valid steps or columns:
        column i is valid if step `2^n i` is. The map is zero at masked columns. If `train`, batch norms use
        the statistics of the valid columns and update their running statistics.
        """
        x = audio[..., None]  # b t f 1
        for i in range(1, self.stage_count + 1):
            mask = mask[:, ::2]
            x = self._apply_layer(f"down{i}", f"down_norm{i}", x, mask, train)
            if self.residual and i > 1:
                x = x + self._apply_layer(f"keep{i}", f"keep_norm{i}", x, mask, train)
        return x, mask

    def _apply_layer(
        self,
        conv_name: str,
        norm_name: str,
        x: Float[Array, "b t f c"],
        mask: Bool[Array, "b u"],
        train: bool,
    ) -> Float[Array, "b u g d"]:
        column_mask = mask[:, :, None, None]
        x = masked_batch_norm(getattr(self, norm_name), getattr(self, conv_name)(x), column_mask, train=train)
        return jnp.where(column_mask, jax.nn.relu(x), 0)


class MelCNN(nnx.Module):
    """Encoder with these stages, whose map becomes a sequence as `config.attn_axes` says (audio_fcn.py).

    Raises:
      ValueError: if `config.stem` is even, or `config.attn_axes` is unknown.
    """

    defaults = MEL_CNN | {"attn_axes": "1d_concat"}
    small = {"widths": (16, 32, 48, 64), "attention_width": 64}

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.axes = read_attention_axes(config)
        self.stages = ConvStages(config, spec.f, dtype, rngs=rngs)
        self.width = position_width(self.stages.width, self.stages.bins, self.axes)

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.audio` [b t f], standardised log-mel energies that are zero at padding.

        If `train`, batch norms use the statistics of the batch and update their running statistics.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has l positions of width d (the attribute `width`):
          the columns of the feature map or, if `config.attn_axes` is "2d", each bin of each column. It has
          `values` [b l d], zero at masked positions; `mask` [b l], True if the step at the centre of the
          column is valid in `batch.audio_mask`; `time_index` [b l], the number of the column among the valid
          ones, from 0 (no meaning at masked positions); and `length` [b], the number of valid columns.
        """
        return EncoderOutput(
            map_to_sequence(*self.stages(batch.audio, batch.audio_mask, train=train), self.axes), {}
        )

    def attention_map(self, weights: Float[Array, "... l"]) -> Float[Array, "..."]:
        """Returns weights over the l positions in the shape of the feature map: u columns in time, g bins.

        The shape is [.. u g] if `config.attn_axes` is "2d"; otherwise it is [.. u], and nothing changes.
        """
        return reshape_to_map(weights, self.stages.bins, self.axes)
