"""Local response normalisation across channels."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from emofuse_jax.ops.normalize import at_least_float32


def local_response_norm(
    x: Float[Array, "*batch c"], *, size: int = 5, kappa: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> Float[Array, "*batch c"]:
    """Normalises each activation by the squares of its neighbouring channels.

    `b_i = a_i / (kappa + alpha sum_{j in window(i)} a_j^2)^beta`, with channels on the last axis. Reference:
    AlexNet (Krizhevsky et al., NeurIPS 2012). As in that paper and in TensorFlow, alpha is *not* divided by
    the window size; PyTorch and Caffe divide it, so their alpha is `size` times ours.

    Args:
      x: activations a.
      size: number of channels in the centred window; odd. At both ends the window is cut.
      kappa: additive constant, positive.
      alpha: weight of the squares.
      beta: exponent.

    Returns:
      Normalised activations in the dtype of `x`; the power is computed in at least float32.

    Raises:
      ValueError: if `size` is even.
    """
    if size % 2 == 0:
        raise ValueError(
            f"size: {size}, expected an odd number; in a config it is config.model.audio.lrn.size"
        )
    x_f32 = at_least_float32(x)
    window = (1,) * (x.ndim - 1) + (size,)
    square_sums = lax.reduce_window(
        x_f32 * x_f32, np.zeros((), x_f32.dtype), lax.add, window, (1,) * x.ndim, "SAME"
    )
    scale = jnp.exp(-beta * jnp.log(kappa + alpha * square_sums))  # three times faster than `**` on a CPU
    return (x_f32 * scale).astype(x.dtype)
