"""Pre-norm transformer layer that also returns its attention weights."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.ops.multi_head import multi_head_attention
from emofuse_jax.types import PRNGKey


class TransformerLayer(nnx.Module):
    """Pre-norm transformer layer: `y = x + MHA(LN(x))`, then `y + W_2 gelu(W_1 LN(y))`.

    Dropout acts on both branches. Masked positions get attention weight 0. References: Vaswani et al., 2017,
    arXiv 1706.03762; pre-norm, Xiong et al., 2020, arXiv 2002.04745.

    Raises:
      ValueError: if `heads` does not divide `width`.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout_rate: float, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if width % heads:
            raise ValueError(
                f"config.model.fusion.heads: {heads} does not divide config.model.fusion.width={width}; set"
                " it to a divisor"
            )
        self.attention_norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.qkv = linear(width, 3 * width, dtype, rngs=rngs)
        self.out = linear(width, width, dtype, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.up = linear(width, hidden, dtype, rngs=rngs)
        self.down = linear(hidden, width, dtype, rngs=rngs)
        self.heads, self.dropout_rate = heads, dropout_rate

    def __call__(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"], *, train: bool, key: PRNGKey | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b h l l"]]:
        """Returns `(y, weights)`: the l tokens after the layer, and the weights [l l] of each of the h heads.

        `mask` is True at valid tokens; y has no meaning at the others. Row i of the weights has the weights
        of all tokens for token i: 0 for masked ones, with sum 1, or all 0 if no token is valid. Dropout, with
        `key`, acts only if `train`.

        Raises ValueError if `train` is True but `key` is None, or the dropout rate is not in [0, 1).
        """
        key_attention, key_mlp = split_dropout_key(key, 2, train=train)
        attended, weights = self._attend(self.attention_norm(x), mask)
        x = x + dropout(attended, self.dropout_rate, key_attention)
        y = self.down(jax.nn.gelu(self.up(self.mlp_norm(x))))
        return x + dropout(y, self.dropout_rate, key_mlp), weights

    def _attend(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b h l l"]]:
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)  # each b l d
        attended, weights = multi_head_attention(query, key, value, mask, heads=self.heads)
        return self.out(attended), weights
