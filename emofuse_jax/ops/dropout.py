"""Dropout as a function of its key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.types import PRNGKey


def dropout(x: Float[Array, "..."], rate: float, key: PRNGKey | None) -> Float[Array, "..."]:
    """Zeroes a share `rate` of the entries and divides the others by `1 - rate`; no key, no dropout.

    Reference: Srivastava et al., JMLR 15, 2014. Raises ValueError when the rate is outside [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout rate: {rate}, expected a number in [0, 1)")
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)
