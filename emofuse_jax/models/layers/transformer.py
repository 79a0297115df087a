"""A pre-norm transformer layer that says where it looked."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.ops.multi_head import multi_head_attention
from emofuse_jax.types import PRNGKey


class TransformerLayer(nnx.Module):
    """`y = x + MHA(LN(x))`, then `y + W_2 gelu(W_1 LN(y))` (arXiv 1706.03762, 2002.04745).

    Dropout acts on both branches. Masked positions are looked at by nobody. Raises ValueError where `heads`
    does not divide the width.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout_rate: float, dtype, *, rngs: nnx.Rngs):
        if width % heads:
            raise ValueError(f"fusion.heads: {heads} does not divide fusion.width={width}")
        self.attention_norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.qkv = linear(width, 3 * width, dtype, rngs=rngs)
        self.out = linear(width, width, dtype, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.up = linear(width, hidden, dtype, rngs=rngs)
        self.down = linear(hidden, width, dtype, rngs=rngs)
        self.heads, self.dropout_rate = heads, dropout_rate

    def __call__(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"], key: PRNGKey | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b h l l"]]:
        """The layer's answer, and the weights of each head: rows look at columns."""
        key_attention, key_mlp = (None, None) if key is None else jax.random.split(key)
        attended, weights = self._attend(self.attention_norm(x), mask)
        x = x + dropout(attended, self.dropout_rate, key_attention)
        y = self.down(jax.nn.gelu(self.up(self.mlp_norm(x))))
        return x + dropout(y, self.dropout_rate, key_mlp), weights

    def _attend(self, x, mask):
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)  # each b l d
        attended, weights = multi_head_attention(query, key, value, mask, heads=self.heads)
        return self.out(attended), weights
