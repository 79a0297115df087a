"""Linear and convolutional layers with initial values that compile fast."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from emofuse_jax.ops.dense import matmul_last_axis


def scaled_uniform(gain: float):
    """An initialiser: uniform in `+-sqrt(3 gain / fan_in)`, variance `gain / fan_in`.

    gain 2 is He's (arXiv 1502.01852), 1 LeCun's. Drawn flat, at a size rounded up to a power of two: XLA's
    CPU backend compiles a four-dimensional draw in a second, a flat one in a fifth of that, and one size
    serves many layers.
    """

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        size = math.prod(shape)
        limit = math.sqrt(3.0 * gain * shape[-1] / size)  # fan_in: all axes but the last
        flat_values = jax.random.uniform(key, (1 << (size - 1).bit_length(),), dtype, -1.0, 1.0)
        return limit * flat_values[:size].reshape(shape)

    return init


def linear(in_features: int, out_features: int, dtype, *, bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer with float32 parameters that computes in `dtype`."""
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=bias,
        dtype=dtype,
        kernel_init=scaled_uniform(1.0),
        dot_general=_dot_last_axis,
        rngs=rngs,
    )


def _dot_last_axis(x, kernel, dimensions, **options):
    """What nnx.Linear calls, always with the last axis of x."""
    return matmul_last_axis(x, kernel, **options)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    padding: int,
    dtype,
    *,
    bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution with float32 parameters that computes in `dtype`, for a ReLU to follow."""
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        use_bias=bias,
        dtype=dtype,
        kernel_init=scaled_uniform(2.0),
        rngs=rngs,
    )
