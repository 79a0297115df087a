"""Self-attention between tokens: positions, channels or points in time."""

from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.multi_head import multi_head_attention


class TokenAttention(nnx.Module):
    """`x + W_o MHA(W_q x, W_k x, W_v x)`; the inner width is the next multiple of `heads`.

    Without a norm before it: with channels as tokens, a norm would take away how strong each channel is.
    """

    def __init__(self, width: int, heads: int, dtype, *, rngs: nnx.Rngs):
        inner_width = heads * -(-width // heads)
        self.query = linear(width, inner_width, dtype, rngs=rngs)
        self.key = linear(width, inner_width, dtype, bias=False, rngs=rngs)  # a bias here moves no softmax
        self.value = linear(width, inner_width, dtype, rngs=rngs)
        self.out = linear(inner_width, width, dtype, rngs=rngs)
        self.heads = heads

    def __call__(
        self, x: Float[Array, "*n l d"], mask: Bool[Array, "*n l"]
    ) -> tuple[Float[Array, "*n l d"], Float[Array, "*n l l"]]:
        """The tokens after attention, and the weights, mean over heads: rows look at columns."""
        projected = self.query(x), self.key(x), self.value(x)
        attended, weights = multi_head_attention(*projected, mask, heads=self.heads)
        return x + self.out(attended), weights.mean(axis=-3)
