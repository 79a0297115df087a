"""Dropout as a function of its key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from emofuse_jax.types import PRNGKey


def dropout(x: Float[Array, "..."], rate: float, key: PRNGKey | None) -> Float[Array, "..."]:
    """Zeroes a share of the entries and divides the others by what is left of 1; no key, no dropout.

    The share is `rate` rounded to a 256th, so that a random byte decides an entry: drawing the numbers takes
    most of the time. Reference: Srivastava et al., JMLR 15, 2014. Raises ValueError when the rate is outside
    [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout rate: {rate}, expected a number in [0, 1)")
    if key is None or rate == 0.0:
        return x
    drop_threshold = min(round(256 * rate), 255)
    keep_mask = random_bytes(key, x.shape) >= drop_threshold
    return jnp.where(keep_mask, x / (1.0 - drop_threshold / 256), 0.0).astype(x.dtype)


def random_bytes(key: PRNGKey, shape: tuple[int, ...]) -> UInt8[Array, "..."]:
    """Four of each number that is drawn; JAX by itself draws one for each byte."""
    *leading, last = shape or (1,)
    random_words = jax.random.bits(key, (*leading, -(-last // 4)), jnp.uint32)
    byte_values = jax.lax.bitcast_convert_type(random_words, jnp.uint8)  # ... last/4 4
    return byte_values.reshape(*leading, -1)[..., :last].reshape(shape)
