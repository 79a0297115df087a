"""The AlexNet-shaped fully convolutional network over spectrograms.

References: Deep Fusion, arXiv 1901.04889; Zhang et al., arXiv 1806.01506.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

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
"""The shape of 2012, 3,723,968 parameters for one input channel; `norms` are `none`, `lrn` or `batch`."""

TORCHVISION_ALEXNET = ALEXNET | {
    "widths": (64, 192, 384, 256, 256),
    "paddings": (2, 2, 1, 1, 1),
    "norms": ("none",) * 5,
}
"""The narrower shape whose ImageNet weights are public, 2,454,208 parameters."""

LRN_DEFAULTS = {"size": 5, "kappa": 2.0, "alpha": 1e-4, "beta": 0.75}
"""Of the norm `lrn` (ops/lrn.py); a design choice, as in Krizhevsky et al., 2012."""

NORMS = ("none", "lrn", "batch")
ATTENTION_AXES = ("2d", "1d_concat", "1d_mean")
POOL_SIZE, POOL_STRIDE = 3, 2


@dataclasses.dataclass(frozen=True)
class ConvLayerSpec:
    """One convolution: norm, ReLU, then a 3x3 max-pool of stride 2 where `pool`."""

    width: int
    kernel: int
    stride: int
    padding: int
    norm: str
    pool: bool

    @property
    def unpadded_kernel(self) -> int:
        """Steps that an output needs beside those that zeros stand for at a border."""
        return self.kernel - 2 * self.padding


def parse_layers(config) -> tuple[ConvLayerSpec, ...]:
    """Reads the rows of the table; raises ValueError when they differ in length or name no norm."""
    names = ("widths", "kernels", "strides", "paddings", "norms", "pools")
    columns = [tuple(config[name]) for name in names]
    for name, column in zip(names, columns, strict=True):
        if len(column) != len(columns[0]):
            raise ValueError(f"audio.{name}: {len(column)} entries, expected {len(columns[0])} as in widths")
    for norm in columns[4]:
        if norm not in NORMS:
            raise ValueError(f"audio.norms: {norm!r}, expected one of {', '.join(NORMS)}")
    return tuple(ConvLayerSpec(*row) for row in zip(*columns, strict=True))


def output_length(steps: int, layers: tuple[ConvLayerSpec, ...]) -> int:
    """Columns that `steps` steps give; below 1 when there are too few."""
    for layer in layers:
        steps = (steps - layer.unpadded_kernel) // layer.stride + 1
        if layer.pool:
            steps = (steps - POOL_SIZE) // POOL_STRIDE + 1
    return steps


def min_input_length(layers: tuple[ConvLayerSpec, ...], columns: int = 1) -> int:
    """Fewest steps that give `columns` columns: 67 for one, 131 for three in the original shape."""
    for layer in reversed(layers):
        if layer.pool:
            columns = (columns - 1) * POOL_STRIDE + POOL_SIZE
        columns = (columns - 1) * layer.stride + layer.unpadded_kernel
    return columns


def downsample_mask(mask: Bool[Array, "b t"], size: int, stride: int) -> Bool[Array, "b u"]:
    """An output is valid when all `size` inputs under it are."""
    invalid = 1.0 - mask.astype(jnp.float32)  # ONNX has no window over truth values
    return jax.lax.reduce_window(invalid, -jnp.inf, jax.lax.max, (1, size), (1, stride), "VALID") == 0


class AudioFCN(nnx.Module):
    """Spectrogram to feature map; padding a clip changes none of the columns that it had without.

    A column is valid when every step under the unpadded part of its receptive field is, which are the columns
    that the clip alone would give. The map is zeroed outside them after each layer, so that a convolution
    sees the zeros that it would see at the clip's end. A clip shorter than `min_input_length` counts as
    followed by mean values up to it.
    """

    def __init__(self, config, bins: int, dtype, *, rngs: nnx.Rngs):
        self.layers, self.lrn = parse_layers(config), dict(config.lrn)
        self.min_length = min_input_length(self.layers)
        if bins < self.min_length:
            raise ValueError(f"audio: {bins} frequency bins, the network needs at least {self.min_length}")
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
        """Feature map and valid columns; raises ValueError when t is below the minimum."""
        if audio.shape[1] < self.min_length:
            raise ValueError(f"audio: {audio.shape[1]} steps, the network needs at least {self.min_length}")
        within_minimum = jnp.arange(mask.shape[1]) < self.min_length
        mask = mask | (within_minimum & jnp.any(mask, axis=1, keepdims=True))
        x = audio[..., None]  # b t f 1
        for i, layer in enumerate(self.layers, 1):
            x, mask = self._apply_layer(i, layer, x, mask, train)
        return x, mask

    def _apply_layer(self, i, layer, x, mask, train):
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
    """The map as positions to attend over, by `axes`: `2d`, `1d_concat` or `1d_mean`.

    Reference: AM-FBP, arXiv 2111.08910.
    """
    b, u, g, d = features.shape
    time_index = jnp.cumsum(mask, axis=1) - 1
    length = jnp.sum(mask, axis=1)
    if axes == "2d":
        repeated = [jnp.repeat(row, g, axis=1) for row in (mask, time_index)]  # b u -> b u*g
        return EncodedSequence(features.reshape(b, u * g, d), *repeated, length)  # b u g d -> b u*g d
    if axes == "1d_concat":
        return EncodedSequence(features.reshape(b, u, g * d), mask, time_index, length)  # b u g d -> b u g*d
    return EncodedSequence(features.mean(axis=2), mask, time_index, length)


def read_attention_axes(config) -> str:
    """`config.attn_axes`; ValueError where it is none of them."""
    if config.attn_axes not in ATTENTION_AXES:
        raise ValueError(
            f"audio.attn_axes: {config.attn_axes!r}, expected one of {', '.join(ATTENTION_AXES)}"
        )
    return config.attn_axes


def position_width(width: int, bins: int, axes: str) -> int:
    """Of the positions of a map of `bins` bins."""
    return width * (bins if axes == "1d_concat" else 1)


def reshape_to_map(weights: Float[Array, "... l"], bins: int, axes: str) -> Float[Array, "..."]:
    """Attention weights in the shape of the feature map: [.. u g] for `2d`, else [.. u] as they are."""
    return weights.reshape(*weights.shape[:-1], -1, bins) if axes == "2d" else weights


class FCNEncoder(nnx.Module):
    """The FCN and its map as a sequence; `attn_axes` is `2d`, `1d_concat` or `1d_mean`."""

    defaults = ALEXNET | {"attn_axes": "2d", "lrn": LRN_DEFAULTS}
    small = {"widths": (16, 32, 48, 48, 48), "norms": ("batch",) * 5, "attention_width": 64}

    def __init__(self, config, spec: InputSpec, dtype, *, rngs: nnx.Rngs):
        self.axes = read_attention_axes(config)
        self.fcn = AudioFCN(config, spec.f, dtype, rngs=rngs)
        self.width = position_width(self.fcn.width, self.fcn.bins, self.axes)

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Standardised log spectrogram, zero at padding, to a sequence."""
        return EncoderOutput(
            map_to_sequence(*self.fcn(batch.audio, batch.audio_mask, train=train), self.axes), {}
        )

    def attention_map(self, weights: Float[Array, "... l"]) -> Float[Array, "..."]:
        """Attention weights in the shape of the feature map."""
        return reshape_to_map(weights, self.fcn.bins, self.axes)
