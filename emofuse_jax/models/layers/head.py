"""The linear classifier."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.types import PRNGKey


class Head(nnx.Module):
    """Dropout, then a linear layer in float32."""

    def __init__(self, width: int, classes: int, dropout_rate: float, *, rngs: nnx.Rngs):
        self.linear = linear(width, classes, jnp.float32, rngs=rngs)
        self.dropout_rate = dropout_rate

    def __call__(self, x: Float[Array, "b d"], key: PRNGKey | None) -> Float[Array, "b c"]:
        """Logits."""
        return self.linear(dropout(at_least_float32(x), self.dropout_rate, key))
