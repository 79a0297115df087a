"""Dropout as a pure function of its random key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from emofuse_jax.types import PRNGKey


def dropout(x: Float[Array, "..."], rate: float, key: PRNGKey | None) -> Float[Array, "..."]:
    """Sets random entries to zero and scales the others up, so that the expected value stays the same.

    The probability p of a zero is `rate`, rounded to a multiple of 1/256 and at most 255/256: one random byte
    decides about each entry, because drawing random numbers takes most of the time. Reference: Srivastava et
    al., 2014, JMLR 15.

    Args:
      x: values of any shape.
      rate: probability that an entry is set to zero, in [0, 1).
      key: random key; None turns dropout off.

    Returns:
      The values in the dtype of `x`: zeros, and the other entries divided by 1 - p. If `key` is None or
      `rate` is 0, `x` itself.

    Raises:
      ValueError: if `rate` is outside [0, 1), even if `key` is None.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(
            f"dropout rate: {rate}, expected a number in [0, 1); in a config it is"
            " config.model.fusion.dropout or config.model.fusion.head_dropout"
        )
    if key is None or rate == 0.0:
        return x
    drop_threshold = min(round(256 * rate), 255)
    keep_mask = random_bytes(key, x.shape) >= drop_threshold
    return jnp.where(keep_mask, x / (1.0 - drop_threshold / 256), 0.0).astype(x.dtype)


def random_bytes(key: PRNGKey, shape: tuple[int, ...]) -> UInt8[Array, "..."]:
    """Returns a uint8 array of shape `shape` with uniform random numbers from 0 to 255.

    Each random 32-bit number gives four of them, while `jax.random.bits` with uint8 would draw one for every
    byte.
    """
    *leading, last = shape or (1,)
    random_words = jax.random.bits(key, (*leading, -(-last // 4)), jnp.uint32)
    byte_values = jax.lax.bitcast_convert_type(random_words, jnp.uint8)  # ... last/4 4
    return byte_values.reshape(*leading, -1)[..., :last].reshape(shape)
