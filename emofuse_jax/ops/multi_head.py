"""Multi-head attention between tokens."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.masking import masked_softmax
from emofuse_jax.ops.normalize import at_least_float32


def multi_head_attention(
    query: Float[Array, "*batch l d"],
    key: Float[Array, "*batch m d"],
    value: Float[Array, "*batch m d"],
    mask: Bool[Array, "*batch m"],
    *,
    heads: int,
) -> tuple[Float[Array, "*batch l d"], Float[Array, "*batch heads l m"]]:
    """`[A_1 V_1; ...; A_h V_h]`, `A_i = softmax_m(Q_i K_i^T / sqrt(d / h))` over the valid tokens.

    Reference: Vaswani et al., arXiv 1706.03762, without its projections.

    Args:
      query: one row a token that looks; already projected, the heads side by side.
      key: one row a token that is looked at.
      value: what it answers.
      mask: False where a token is looked at by nobody.
      heads: h.

    Returns:
      The answers, zero where no token is valid, in the dtype of `value`; and the weights in float32.

    Raises:
      ValueError: `heads` does not divide d.
    """
    if query.shape[-1] % heads:
        raise ValueError(f"multi_head_attention: {heads} heads do not divide a width of {query.shape[-1]}")
    query, key, values = (_split_heads(x, heads) for x in (query, key, value))  # ... h l e
    scores = (
        at_least_float32(query) @ jnp.swapaxes(at_least_float32(key), -1, -2) / query.shape[-1] ** 0.5
    )  # ... h l m
    weights = masked_softmax(scores, jnp.broadcast_to(mask[..., None, None, :], scores.shape))
    attended = jnp.swapaxes(weights.astype(value.dtype) @ values, -2, -3)  # ... l h e
    return attended.reshape(*attended.shape[:-2], -1), weights  # ... l h e -> ... l d


def _split_heads(x: Float[Array, "*batch l d"], heads: int) -> Float[Array, "*batch h l e"]:
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, -1), -2, -3)  # ... l h*e -> ... h l e
