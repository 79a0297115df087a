"""Low-rank multimodal fusion (LMF) of any number of vectors."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.ops.normalize import at_least_float32


def low_rank_fusion(
    vectors: tuple[Float[Array, "*batch _"], ...],
    factors: tuple[Float[Array, "k _ o"], ...],
    weights: Float[Array, " k"],
    bias: Float[Array, " o"] | None,
    *,
    append_one: bool = True,
) -> Float[Array, "*batch o"]:
    """`z = sum_k w_k prod_m (F_{m k}^T [x_m; 1]) + b`, the product over modalities entry by entry.

    A tensor fusion of all vectors whose weight has rank k. Reference: Liu et al., arXiv 1806.00064. Without
    the appended 1 and with unit weights, two vectors give factorised bilinear pooling of rank k before its
    dropout and norm (ops/bilinear.py).

    Args:
      vectors: one a modality; with the 1 appended, a zero vector leaves the others' answer.
      factors: `[k d_m + 1 o]` for each, or `[k d_m o]` without the appended 1; the last row meets the 1.
      weights: of the ranks.
      bias: of the outputs.
      append_one: whether each vector gets a 1.

    Returns:
      Fused vectors in the dtype of the first; products and sums are computed in float32.

    Raises:
      ValueError: not as many factors as vectors, or a factor of another height than its vector.
    """
    if len(vectors) != len(factors):
        raise ValueError(f"factors: {len(factors)}, expected one for each of the {len(vectors)} vectors")
    projected = [_project(x, f, append_one) for x, f in zip(vectors, factors, strict=True)]
    z = jnp.einsum("...ko,k->...o", math.prod(projected), at_least_float32(weights))  # ... o
    return (z if bias is None else z + bias).astype(vectors[0].dtype)


def _project(x, factor, append_one):
    factor_rows, expected_rows = factor.shape[1], x.shape[-1] + append_one
    if factor_rows != expected_rows:
        raise ValueError(f"factors: {factor_rows} rows, expected {expected_rows}")
    kernel = factor[:, : x.shape[-1]].astype(x.dtype)
    projected = jnp.einsum("...d,kdo->...ko", x, kernel, preferred_element_type=at_least_float32(x).dtype)
    return projected + factor[:, -1] if append_one else projected  # ... k o
