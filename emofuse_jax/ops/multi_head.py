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
    """Computes multi-head attention, without its linear projections.

    `[A_1 V_1; ...; A_h V_h]`, `A_i = softmax_m(Q_i K_i^T / sqrt(d / h))` over the valid tokens m. Reference:
    Vaswani et al., 2017, arXiv 1706.03762.

    Args:
      query: Q, one row for each of the l querying tokens; already projected, with the heads side by side.
      key: K, one row for each of the m attended tokens.
      value: V, one row for each attended token.
      mask: False for attended tokens that must get weight 0.
      heads: number of heads h.

    Returns:
      `(attended, weights)`: the attended values, one row for each querying token, in the dtype of `value`;
      and the weights A_i in at least float32. Both are zero if no token is valid.

    Raises:
      ValueError: if `heads` does not divide the width d of `query`, or `mask` does not fit `key`.
      TypeError: if `key` has another width than `query`, or `value` another number of tokens than `key`.
    """
    if query.shape[-1] % heads:
        raise ValueError(
            f"multi_head_attention: {heads} heads do not divide a width of {query.shape[-1]}; set `heads` to"
            " a divisor of the width"
        )
    query, key, values = (_split_heads(x, heads) for x in (query, key, value))  # ... h l e
    scores = (
        at_least_float32(query) @ jnp.swapaxes(at_least_float32(key), -1, -2) / query.shape[-1] ** 0.5
    )  # ... h l m
    weights = masked_softmax(scores, jnp.broadcast_to(mask[..., None, None, :], scores.shape))
    attended = jnp.swapaxes(weights.astype(value.dtype) @ values, -2, -3)  # ... l h e
    return attended.reshape(*attended.shape[:-2], -1), weights  # ... l h e -> ... l d


def _split_heads(x: Float[Array, "*batch l d"], heads: int) -> Float[Array, "*batch h l e"]:
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, -1), -2, -3)  # ... l h*e -> ... h l e
