"""Fully convolutional network in the shape of AlexNet, for spectrograms.

References: Deep Fusion (Zhang et al., 2019, arXiv 1901.04889); Zhang et al., 2018, arXiv 1806.01506.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.linear import conv
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.ops.lrn import local_response_norm
from emofuse_jax.ops.maxpool import max_pool
from emofuse_jax.types import Batch, InputSpec

ALEXNET = {
    "widths": (96, 256, 384, 384, 256),
    "kernels": (11, 5, 3, 3, 3),
    "strides": (4, 1, 1, 1, 1),
    "paddings": (0, 2, 1, 1, 1),
    "norms": ("lrn", "lrn", "none", "none", "none"),
    "pools": (True, True, False, False, True),
}
"""Shape of AlexNet in 2012: 3,723,968 parameters with one input channel. Norms are in NORMS."""

TORCHVISION_ALEXNET = ALEXNET | {
    "widths": (64, 192, 384, 256, 256),
    "paddings": (2, 2, 1, 1, 1),
    "norms": ("none",) * 5,
}
"""Narrower shape of torchvision, whose ImageNet weights are public: 2,454,208 parameters."""

LRN_DEFAULTS = {"size": 5, "kappa": 2.0, "alpha": 1e-4, "beta": 0.75}
"""Arguments of the norm `lrn` (ops/lrn.py); a design choice, as in AlexNet (Krizhevsky et al., 2012)."""

NORMS = ("none", "lrn", "batch")
ATTENTION_AXES = ("2d", "1d_concat", "1d_mean")
POOL_SIZE, POOL_STRIDE = 3, 2


@dataclasses.dataclass(frozen=True)
class ConvLayerSpec:
    """One layer: convolution, norm, ReLU and, if `pool`, a 3x3 max-pool of stride 2."""

    width: int
    kernel: int
    stride: int
    padding: int
    norm: str
    pool: bool

    @property
    def unpadded_kernel(self) -> int:
        """Number of valid input steps that an output needs: `kernel` minus the `padding` on both sides."""
        return self.kernel - 2 * self.padding


def parse_layers(config: ConfigDict) -> tuple[ConvLayerSpec, ...]:
    """Returns the layers that an encoder's config describes, in order.

    `config` has a sequence with one entry for each layer in each of the fields `widths`, `kernels`,
    `strides`, `paddings`, `norms` and `pools`. Each layer has these entries as `width` (output channels),
    `kernel` (its side), `stride`, `padding` (in steps and bins), all int, `norm` ("none", "lrn" or "batch")
    and the bool `pool` (whether a 3x3 max-pool of stride 2 follows).

    Raises:
      ValueError: if the fields have different lengths, or a norm is unknown.
      KeyError: if `config` lacks one of the fields.
    """
    names = ("widths", "kernels", "strides", "paddings", "norms", "pools")
    columns = [tuple(config[name]) for name in names]
    for name, column in zip(names, columns, strict=True):
        if len(column) != len(columns[0]):
            raise ValueError(
                f"config.model.audio.{name}: {len(column)} entries, expected {len(columns[0])}, one for each"
                " of config.model.audio.widths"
            )
    for norm in columns[4]:
        if norm not in NORMS:
            raise ValueError(f"config.model.audio.norms: {norm!r}, expected one of {', '.join(NORMS)}")
    return tuple(ConvLayerSpec(*row) for row in zip(*columns, strict=True))


def output_length(steps: int, layers: tuple[ConvLayerSpec, ...]) -> int:
    """Returns the number of columns (time) of the layers' feature map for a spectrogram of `steps` steps.

    `layers` are those of `parse_layers`, each with `kernel`, `stride`, `padding` and `pool`. A convolution,
    with `padding` zeros on both sides, makes `(n + 2 padding - kernel) // stride + 1` steps of n, a pool
    `(n - 3) // 2 + 1`. The number is below 1 if there are too few steps. For frequency bins instead of steps,
    it is the number of bins of the map.
    """
    for layer in layers:
        steps = (steps - layer.unpadded_kernel) // layer.stride + 1
        if layer.pool:
            steps = (steps - POOL_SIZE) // POOL_STRIDE + 1
    return steps


def min_input_length(layers: tuple[ConvLayerSpec, ...], columns: int = 1) -> int:
    """Returns the smallest number of spectrogram steps that gives `columns` columns of the feature map.

    `layers` are those of `parse_layers`, each with `kernel`, `stride`, `padding` and `pool`; `columns` is at
    least 1. `output_length` gives the number of columns for any number of steps. With the layers of the
    constant ALEXNET in this file, one column needs 67 steps and three need 131.
    """
    for layer in reversed(layers):
        if layer.pool:
            columns = (columns - 1) * POOL_STRIDE + POOL_SIZE
        columns = (columns - 1) * layer.stride + layer.unpadded_kernel
    return columns


def downsample_mask(mask: Bool[Array, "b t"], size: int, stride: int) -> Bool[Array, "b u"]:
    """Returns the mask of the windows of `size` steps; a window is valid if all of its steps are.

    A window starts every `stride` steps, without padding: there are u = (t - size) // stride + 1, or 0 if t
    is below `size`.
    """
    invalid = 1.0 - mask.astype(jnp.float32)  # ONNX has no reduce-window for bool
    return jax.lax.reduce_window(invalid, -jnp.inf, jax.lax.max, (1, size), (1, stride), "VALID") == 0


class AudioFCN(nnx.Module):
    """Convolutional network from a spectrogram to a feature map; padding a clip does not change its columns.

    A column is valid if every step in the unpadded part of its receptive field is valid: these are the
    columns that the clip would have without padding. After each layer the other columns are set to zero, so
    that the next convolution has the same zeros as at the end of a clip without padding. A clip shorter than
    `min_input_length` is extended to that length with mean values (zeros after standardisation).

    Raises:
      ValueError: if `parse_layers` raises it, or if `bins` is too small for the layers.
    """

    def __init__(self, config: ConfigDict, bins: int, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.layers, self.lrn = parse_layers(config), dict(config.lrn)
        self.min_length = min_input_length(self.layers)
        if bins < self.min_length:
            raise ValueError(
                f"config.model.audio: {bins} frequency bins in the records, expected at least"
                f" {self.min_length}; use records with more bins, or smaller"
                " config.model.audio.kernels and strides"
            )
        self.bins = output_length(bins, self.layers)
        channels = 1
        for i, layer in enumerate(self.layers, 1):
            conv_layer = conv(
                channels,
                layer.width,
                layer.kernel,
                layer.stride,
                layer.padding,
                dtype,
                bias=True,
                rngs=rngs,
            )
            setattr(self, f"conv{i}", conv_layer)
            if layer.norm == "batch":
                setattr(self, f"norm{i}", nnx.BatchNorm(layer.width, momentum=0.9, dtype=dtype, rngs=rngs))
            channels = layer.width
        self.width = channels

    def __call__(
        self, audio: Float[Array, "b t f"], mask: Bool[Array, "b t"], *, train: bool
    ) -> tuple[Float[Array, "b u g d"], Bool[Array, "b u"]]:
        """Computes the feature map and the mask of its columns.

        Args:
          audio: standardised spectrograms of t steps and f bins, zero at masked steps.
          mask: True at the steps of each clip, False at padding.
          train: whether batch norms use the statistics of the valid columns, and update their running
            statistics.

        Returns:
          `(features, mask)`: the map of u columns (time), g bins and d channels, zero at masked columns, and
          the mask of the columns. u and g are `output_length` of t and f; d is the last of `config.widths`. A
          column is valid (True) if the clip would also have it without padding; a clip with a valid step
          counts as at least `min_length` steps long.

        Raises:
          ValueError: if t is below `min_length`, the number of steps that one column needs.
        """
        if audio.shape[1] < self.min_length:
            raise ValueError(
                f"batch.audio: {audio.shape[1]} steps, expected at least {self.min_length}; pad shorter"
                " clips, and set batch.audio_mask to False at the padding"
            )
        within_minimum = jnp.arange(mask.shape[1]) < self.min_length
        mask = mask | (within_minimum & jnp.any(mask, axis=1, keepdims=True))
        x = audio[..., None]  # b t f 1
        for i, layer in enumerate(self.layers, 1):
            x, mask = self._apply_layer(i, layer, x, mask, train)
        return x, mask

    def _apply_layer(
        self,
        i: int,
        layer: ConvLayerSpec,
        x: Float[Array, "b t f c"],
        mask: Bool[Array, "b t"],
        train: bool,
    ) -> tuple[Float[Array, "b u g d"], Bool[Array, "b u"]]:
        x = getattr(self, f"conv{i}")(x)
        mask = downsample_mask(mask, layer.unpadded_kernel, layer.stride)
        if layer.norm == "lrn":
            x = local_response_norm(x, **self.lrn)
        elif layer.norm == "batch":
            x = masked_batch_norm(getattr(self, f"norm{i}"), x, mask[:, :, None, None], train=train)
        x = jax.nn.relu(x)
        if layer.pool:
            x = max_pool(x, size=POOL_SIZE, stride=POOL_STRIDE)
            mask = downsample_mask(mask, POOL_SIZE, POOL_STRIDE)
        return jnp.where(mask[:, :, None, None], x, 0), mask


def map_to_sequence(
    features: Float[Array, "b u g d"], mask: Bool[Array, "b u"], axes: str
) -> EncodedSequence:
    """Converts a feature map into a sequence of positions to attend over.

    Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).

    Args:
      features: map of u columns (time), g bins and d channels.
      mask: True at valid columns.
      axes: "2d": each bin of each column is a position; "1d_concat": each column is a position, with its bins
        side by side (width g d); any other value, such as "1d_mean": each column is a position, with the mean
        over its bins.

    Returns:
      A sequence with `values` [b l d] of l positions, their `mask` and `time_index` [b l] (the number of the
      column among the valid ones, from 0; no meaning at masked positions), and `length` [b], the number of
      valid columns. With "2d", l = u g, and the bins of a column are adjacent; otherwise l = u.
    """
    b, u, g, d = features.shape
    time_index = jnp.cumsum(mask, axis=1) - 1
    length = jnp.sum(mask, axis=1)
    if axes == "2d":
        mask, time_index = (jnp.repeat(row, g, axis=1) for row in (mask, time_index))  # b u -> b u*g
        return EncodedSequence(features.reshape(b, u * g, d), mask, time_index, length)  # b u g d -> b u*g d
    if axes == "1d_concat":
        return EncodedSequence(features.reshape(b, u, g * d), mask, time_index, length)  # b u g d -> b u g*d
    return EncodedSequence(features.mean(axis=2), mask, time_index, length)


def read_attention_axes(config: ConfigDict) -> str:
    """Returns `config.attn_axes`, which says how a feature map becomes a sequence of positions.

    "2d": each bin of each column is a position; "1d_concat": each column is one, with its bins side by side;
    "1d_mean": each column is one, with the mean over its bins.

    Raises:
      ValueError: if the field is not "2d", "1d_concat" or "1d_mean".
    """
    if config.attn_axes not in ATTENTION_AXES:
        raise ValueError(
            f"config.model.audio.attn_axes: {config.attn_axes!r}, expected one of {', '.join(ATTENTION_AXES)}"
        )
    return config.attn_axes


def position_width(width: int, bins: int, axes: str) -> int:
    """Returns the width of a position made from a feature map of `width` channels and `bins` bins.

    It is `width * bins` if `axes` is "1d_concat" (bins side by side), otherwise `width`.
    """
    return width * (bins if axes == "1d_concat" else 1)


def reshape_to_map(weights: Float[Array, "... l"], bins: int, axes: str) -> Float[Array, "..."]:
    """Returns weights over positions in the shape of the feature map with u columns and g = `bins` bins.

    The shape is [.. u g] if `axes` is "2d" (each bin of each column is a position, and the bins of a column
    are adjacent); then g must divide l, otherwise reshaping raises TypeError. For any other value of `axes`,
    the weights [.. u] are returned unchanged.
    """
    return weights.reshape(*weights.shape[:-1], -1, bins) if axes == "2d" else weights


class FCNEncoder(nnx.Module):
    """Encoder with the FCN, whose map becomes a sequence as `config.attn_axes` says (`map_to_sequence`).

    Raises:
      ValueError: if a field of `config` has a value that is not possible, or there are too few frequency
        bins.
    """

    defaults = ALEXNET | {"attn_axes": "2d", "lrn": LRN_DEFAULTS}
    small = {"widths": (16, 32, 48, 48, 48), "norms": ("batch",) * 5, "attention_width": 64}

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.axes = read_attention_axes(config)
        self.fcn = AudioFCN(config, spec.f, dtype, rngs=rngs)
        self.width = position_width(self.fcn.width, self.fcn.bins, self.axes)

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.audio` [b t f], a standardised log spectrogram that is zero at padding.

        If `train`, batch norms use the statistics of the batch and update their running statistics.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has l positions of width d (the attribute `width`):
          the columns of the feature map or, if `config.attn_axes` is "2d", each bin of each column. It has
          `values` [b l d], zero at masked positions; `mask` [b l], True for columns that the clip would
          also have without padding, at least one if `batch.audio_mask` has a valid step for the clip;
          `time_index` [b l], the number of the column among the valid ones, from 0 (no meaning at masked
          positions); and `length` [b], the number of valid columns.

        Raises:
          ValueError: if the batch has fewer steps than one column of the feature map needs.
        """
        return EncoderOutput(
            map_to_sequence(*self.fcn(batch.audio, batch.audio_mask, train=train), self.axes), {}
        )

    def attention_map(self, weights: Float[Array, "... l"]) -> Float[Array, "..."]:
        """Returns weights over the l positions in the shape of the feature map: u columns in time, g bins.

        The shape is [.. u g] if `config.attn_axes` is "2d"; otherwise it is [.. u], and nothing changes.
        """
        return reshape_to_map(weights, self.fcn.bins, self.axes)
