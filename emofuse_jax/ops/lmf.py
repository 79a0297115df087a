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
    """Fuses the vectors of several modalities by low-rank multimodal fusion (LMF).

    `z = sum_k w_k prod_m (F_{m k}^T [x_m; 1]) + b`, where the product over the modalities m is taken entry by
    entry. This is a tensor fusion of all vectors with a weight tensor of rank k. Reference: Liu et al., 2018,
    arXiv 1806.00064. Without the appended 1 and with unit weights, two vectors give factorised bilinear
    pooling of rank k before its dropout and norm (ops/bilinear.py).

    Args:
      vectors: one vector x_m of width d_m for each modality. With the appended 1, a zero vector (with a last
        row of ones in its factor) leaves the product of the others unchanged.
      factors: one F_m for each modality, of shape `[k d_m+1 o]`, or `[k d_m o]` without the appended 1; its
        last row is multiplied by the 1.
      weights: w, one number for each rank.
      bias: b, or None.
      append_one: whether a 1 is appended to each vector.

    Returns:
      Fused vectors in the dtype of the first vector; products and sums are computed in at least float32.

    Raises:
      ValueError: if the numbers of factors and vectors differ or are 0, a factor does not have d_m + 1 rows
        (d_m without the appended 1), or `weights` or `bias` does not fit the factors.
      TypeError: if the factors differ in k or o, or the vectors in their leading axes.
    """
    if len(vectors) != len(factors):
        raise ValueError(
            f"factors: {len(factors)} passed, expected one for each of the {len(vectors)} vectors"
        )
    projected = [_project(x, f, append_one) for x, f in zip(vectors, factors, strict=True)]
    z = jnp.einsum("...ko,k->...o", math.prod(projected), at_least_float32(weights))  # ... o
    return (z if bias is None else z + bias).astype(vectors[0].dtype)


def _project(
    x: Float[Array, "*batch _"], factor: Float[Array, "k _ o"], append_one: bool
) -> Float[Array, "*batch k o"]:
    factor_rows, expected_rows = factor.shape[1], x.shape[-1] + append_one
    if factor_rows != expected_rows:
        raise ValueError(
            f"factors: one has {factor_rows} rows (axis 1), expected {expected_rows}, the width of its vector"
            f"{' + 1 (append_one=True)' if append_one else ''}"
        )
    kernel = factor[:, : x.shape[-1]].astype(x.dtype)
    projected = jnp.einsum("...d,kdo->...ko", x, kernel, preferred_element_type=at_least_float32(x).dtype)
    return projected + factor[:, -1] if append_one else projected  # ... k o
