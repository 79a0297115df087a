"""Multi-modal factorised bilinear pooling (MFB) and its high-order cascade (MFH)."""

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
    """Fuses two vectors by multi-modal factorised bilinear pooling (MFB).

    `z = L2(sign(s) sqrt(|s|))`, `s_i = sum_k dropout(U^T x o V^T y)_{i k}`. This is
    `factorized_bilinear_pooling` (ops/bilinear.py) with the signed square root and without biases. Reference:
    MFB (Yu et al., 2017, arXiv 1708.01471).

    Args:
      x: first vectors.
      y: second vectors.
      u: factors U of `x`; the `factors` columns of one output are adjacent.
      v: factors V of `y`, in the same order.
      factors: rank k.
      dropout_rate: probability that a product is set to zero, in [0, 1); used only if `key` is not None.
      key: random key of the dropout; None turns dropout off, for evaluation.
      eps: epsilon of the signed square root and of the L2 norm.

    Returns:
      Fused vectors of width o = ok / factors in the dtype of `x`, with L2 norm of about 1.

    Raises:
      ValueError: if the shapes do not fit together, `ok` is not a multiple of `factors`, or `dropout_rate` is
        outside [0, 1).
      TypeError: if only the leading axes of `x` and `y` do not fit together.
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
    """Fuses two vectors by a cascade of MFB blocks (MFH).

    `e_i = dropout(U_i^T x o V_i^T y o e_{i-1})` with `e_0 = 1`; `z = [z_1; ..; z_l]`, where
    `z_i = L2(sign(s) sqrt(|s|))` and s are the sums of `e_i` over the k adjacent entries of each output. With
    one block this is MFB. Reference: MFH (Yu et al., 2017, arXiv 1708.03619).

    Args:
      x: first vectors.
      y: second vectors.
      us: factors U_i of `x`, one matrix for each of the l blocks; the `factors` columns of one output are
        adjacent.
      vs: factors V_i of `y`, one matrix for each block.
      factors: rank k; each block has o = ok / k outputs.
      dropout_rate: probability that an entry of an `e_i` is set to zero, in [0, 1); used only if `key` is not
        None.
      key: random key of the dropout; None turns dropout off, for evaluation.
      eps: epsilon of the signed square root and of the L2 norm.

    Returns:
      Fused vectors of width ol = o l, with L2 norm of about sqrt(l), in the dtype of `x`; everything is
      computed in at least float32.

    Raises:
      ValueError: if the shapes do not fit together, `ok` is not a multiple of `factors`, `us` and `vs` have
        different lengths or are empty, or `dropout_rate` is outside [0, 1).
      TypeError: if only the leading axes of `x` and `y`, or the columns of the blocks, do not fit together.
    """
    if not us or len(us) != len(vs):
        raise ValueError(
            f"us, vs: {len(us)} and {len(vs)} matrices, expected one of each for every block, and at least"
            " one block"
        )
    keys = [None] * len(us) if key is None else jax.random.split(key, len(us))
    expanded: Float[Array, "*batch ok"] | float = 1.0
    blocks = []
    for u, v, block_key in zip(us, vs, keys, strict=True):
        expanded = dropout(
            bilinear_products(x, y, u, v, factors) * expanded, dropout_rate, block_key
        )  # ... ok
        blocks.append(sum_and_normalize(expanded, factors, power_norm=True, normalize=True, eps=eps))
    return jnp.concatenate(blocks, axis=-1).astype(x.dtype)
