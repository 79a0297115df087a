"""Self-attention between tokens, which may be positions, channels or points in time."""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.multi_head import multi_head_attention


class TokenAttention(nnx.Module):
    """Multi-head self-attention with a residual connection: `x + W_o MHA(W_q x, W_k x, W_v x)`.

    The inner width is `width`, rounded up to a multiple of `heads`. There is no norm before it: if channels
    are the tokens, a norm would remove the strength of each channel.
    """

    def __init__(self, width: int, heads: int, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        inner_width = heads * -(-width // heads)
        self.query = linear(width, inner_width, dtype, rngs=rngs)
        self.key = linear(width, inner_width, dtype, bias=False, rngs=rngs)  # a bias cancels in the softmax
        self.value = linear(width, inner_width, dtype, rngs=rngs)
        self.out = linear(inner_width, width, dtype, rngs=rngs)
        self.heads = heads

    def __call__(
        self, x: Float[Array, "*n l d"], mask: Bool[Array, "*n l"]
    ) -> tuple[Float[Array, "*n l d"], Float[Array, "*n l l"]]:
        """Returns `(tokens, weights)`: the l tokens after attention, and the mean weights [l l] of all heads.

        `mask` is True at valid tokens. Row i of the weights has the weights of all tokens for token i: 0 for
        masked ones, with sum 1, or all 0 if no token is valid.
        """
        projected = self.query(x), self.key(x), self.value(x)
        attended, weights = multi_head_attention(*projected, mask, heads=self.heads)
        return x + self.out(attended), weights.mean(axis=-3)
