"""Multi-modal factorised bilinear pooling (MFB), and its high-order cascade (MFH)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.ops.bilinear import bilinear_products, factorized_bilinear_pooling, sum_and_normalize
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.types import PRNGKey


def mfb(
    x: Float[Array, "*batch m"],
    y: Float[Array, "*batch n"],
    u: Float[Array, "m ok"],
    v: Float[Array, "n ok"],
    *,
    factors: int,
    dropout_rate: float = 0.0,
    key: PRNGKey | None = None,
    eps: float = 1e-6,
) -> Float[Array, "*batch o"]:
    """`z = L2(sign(s) sqrt(|s|))`, `s_i = sum_k dropout(U^T x o V^T y)_{i k}`.

    That is `factorized_bilinear_pooling` with the signed square root, where the arguments are explained.
    Reference: Yu et al., arXiv 1708.01471. Raises ValueError when `ok` is not a multiple of `factors`.
    """
    return factorized_bilinear_pooling(
        x, y, u, v, factors=factors, dropout_rate=dropout_rate, key=key, power_norm=True, eps=eps
    )


def mfh(
    x: Float[Array, "*batch m"],
    y: Float[Array, "*batch n"],
    us: Sequence[Float[Array, "m ok"]],
    vs: Sequence[Float[Array, "n ok"]],
    *,
    factors: int,
    dropout_rate: float = 0.0,
    key: PRNGKey | None = None,
    eps: float = 1e-6,
) -> Float[Array, "*batch ol"]:
    """Cascaded MFB: `e_i = dropout(U_i^T x o V_i^T y o e_{i-1})`, `e_0 = 1`; `z = [z_1; ..; z_l]`.

    Each `z_i = L2(sign(s) sqrt(|s|))` with `s` the sums of `e_i` over the adjacent k entries of an output.
    One block is MFB. Reference: Yu et al., arXiv 1708.03619.

    Args:
      x: first vectors.
      y: second vectors.
      us: first factors of each block; the `factors` columns of one output are adjacent.
      vs: second factors of each block.
      factors: rank k; o = ok / k.
      dropout_rate: share of the entries of each `e_i` set to zero; used when `key` is given.
      key: of the dropout; None in evaluation.
      eps: of both norms.

    Returns:
      Fused vectors of norm sqrt(l) in the dtype of `x`; all between is float32.

    Raises:
      ValueError: `ok` is not a multiple of `factors`, or there are not as many `us` as `vs`, or none.
    """
    if not us or len(us) != len(vs):
        raise ValueError(f"us, vs: {len(us)} and {len(vs)} blocks, expected the same number, at least one")
    keys = [None] * len(us) if key is None else jax.random.split(key, len(us))
    expanded, blocks = 1.0, []
    for u, v, block_key in zip(us, vs, keys, strict=True):
        expanded = dropout(
            bilinear_products(x, y, u, v, factors) * expanded, dropout_rate, block_key
        )  # ... ok
        blocks.append(sum_and_normalize(expanded, factors, power_norm=True, normalize=True, eps=eps))
    return jnp.concatenate(blocks, axis=-1).astype(x.dtype)
