"""Linear classifier."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emofuse_jax.models.layers.dropout_keys import dropout_key
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.types import PRNGKey


class Head(nnx.Module):
    """Classifier: dropout, then a linear layer in float32."""

    def __init__(self, width: int, classes: int, dropout_rate: float, *, rngs: nnx.Rngs) -> None:
        self.linear = linear(width, classes, jnp.float32, rngs=rngs)
        self.dropout_rate = dropout_rate

    def __call__(self, x: Float[Array, "b d"], *, train: bool, key: PRNGKey | None) -> Float[Array, "b c"]:
        """Computes the logits of c classes from vectors of width d.

        Dropout, with `key`, acts only if `train`.

        Raises ValueError if `train` is True but `key` is None, or the dropout rate is not in [0, 1).
        """
        return self.linear(dropout(at_least_float32(x), self.dropout_rate, dropout_key(key, train=train)))
