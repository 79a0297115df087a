"""Factorised bilinear pooling (FBP) of two vectors.

The compiled program writes the two projections to memory, but not their product
(test_bilinear_compiled.py). Storing the products as `(k o)` instead of `(o k)` was tried: a TPU
then moves 0.5 to 0.8 times the bytes for 76,800 rows, but rearranging the factors makes 256 rows of width
1,280 take 1.3 times as long on a CPU, and the shipped fusions pool few rows.
"""

from jaxtyping import Array, Float

from emofuse_jax.ops.dense import matmul_last_axis
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.ops.normalize import at_least_float32, l2_normalize, signed_sqrt
from emofuse_jax.ops.shapes import check_shapes
from emofuse_jax.types import PRNGKey

DROPOUT_PLACES = ("products", "pooled")


def factorized_bilinear_pooling(
    x: Float[Array, "*batch m"],
    y: Float[Array, "*batch n"],
    u: Float[Array, "m ok"],
    v: Float[Array, "n ok"],
    *,
    factors: int,
    bias_u: Float[Array, " ok"] | None = None,
    bias_v: Float[Array, " ok"] | None = None,
    dropout_rate: float = 0.0,
    key: PRNGKey | None = None,
    power_norm: bool = False,
    normalize: bool = True,
    eps: float = 1e-6,
    dropout_place: str = "products",
) -> Float[Array, "*batch o"]:
    """Fuses two vectors by factorised bilinear pooling.

    `z_i = sum_k (U^T x o V^T y)_{i k}`, then `z / sqrt(sum z^2 + eps)`. Before the norm, output i is
    `x^T (U_i V_i^T) y`. The order of operations: project, add biases, multiply, dropout, sum over k, signed
    square root, L2 norm. Without biases the L2 norm cancels any scalar factor on `x` or `y`. References: Deep
    Fusion (Zhang et al., 2019, arXiv 1901.04889); MFB (Yu et al., 2017, arXiv 1708.01471).

    Args:
      x: first vectors.
      y: second vectors.
      u: factors U of `x`; the `factors` columns of one output are adjacent.
      v: factors V of `y`, in the same order.
      factors: rank k, at least 1; the output width is o = ok / k.
      bias_u: added to `U^T x`.
      bias_v: added to `V^T y`.
      dropout_rate: probability that an entry is set to zero, in [0, 1); used only if `key` is not None.
      key: random key of the dropout; None turns dropout off, for evaluation.
      power_norm: whether to take the signed square root.
      normalize: whether to divide by the L2 norm.
      eps: epsilon of the signed square root and of the L2 norm.
      dropout_place: where dropout acts: "products", before the sum over k, or "pooled", after it and before
        the norms.

    Returns:
      Fused vectors in the dtype of `x`; products, sums and norms are computed in at least float32.

    Raises:
      ValueError: if the shapes do not fit together, `ok` is not a multiple of `factors`, `dropout_place` is
        unknown, or `dropout_rate` is outside [0, 1).
      TypeError: if only the leading axes of `x` and `y` do not fit together.
    """
    if dropout_place not in DROPOUT_PLACES:
        raise ValueError(f"dropout_place: {dropout_place!r}, expected one of {', '.join(DROPOUT_PLACES)}")
    products = bilinear_products(x, y, u, v, factors, bias_u, bias_v)  # ... ok
    if dropout_place == "pooled":
        products, factors = pool_factors(products, factors), 1
    products = dropout(products, dropout_rate, key)
    return sum_and_normalize(products, factors, power_norm=power_norm, normalize=normalize, eps=eps).astype(
        x.dtype
    )


def bilinear_products(
    x: Float[Array, "*batch m"],
    y: Float[Array, "*batch n"],
    u: Float[Array, "m ok"],
    v: Float[Array, "n ok"],
    factors: int,
    bias_u: Float[Array, " ok"] | None = None,
    bias_v: Float[Array, " ok"] | None = None,
) -> Float[Array, "*batch ok"]:
    """Computes the products `(U^T x + b_U) o (V^T y + b_V)` of the two projections, entry by entry.

    Args:
      x: first vectors.
      y: second vectors.
      u: factors U of `x`; the `factors` columns of one output are adjacent.
      v: factors V of `y`, in the same order.
      factors: rank k, at least 1; ok = o k for o outputs.
      bias_u: b_U, or None for no bias.
      bias_v: b_V, or None for no bias.

    Returns:
      The products in at least float32, with the `factors` columns of one output next to each other.

    Raises:
      ValueError: if `ok` is not a multiple of `factors`, or the shapes do not fit together.
      TypeError: if only the leading axes of `x` and `y` do not fit together.
    """
    check_shapes({"x": (x, "... m"), "y": (y, "... n"), "u": (u, "m ok"), "v": (v, "n ok")})
    if u.shape[-1] % factors:
        raise ValueError(f"u and v: {u.shape[-1]} columns, expected a multiple of factors={factors}")
    return _project(x, u, bias_u) * _project(y, v, bias_v)


def pool_factors(products: Float[Array, "*batch ok"], factors: int) -> Float[Array, "*batch o"]:
    """Adds up the `factors` adjacent products of each output: `z_i = sum_k products_{i k}`.

    `products` has width ok = o k, the sums have width o and the same dtype; k is `factors`. If ok is not a
    multiple of k, reshaping raises TypeError.
    """
    return products.reshape(*products.shape[:-1], -1, factors).sum(-1)  # ... ok -> ... o k -> ... o


def sum_and_normalize(
    products: Float[Array, "*batch ok"],
    factors: int,
    *,
    power_norm: bool,
    normalize: bool,
    eps: float,
) -> Float[Array, "*batch o"]:
    """Adds up the `factors` adjacent products of each output and normalises the sums.

    `z_i = sum_k products_{i k}`, then `sign(z) sqrt(|z|)` if `power_norm`, then `z / sqrt(sum z^2 + eps)` if
    `normalize`. With `power_norm`, sums with `|z| < eps` become `z / sqrt(eps)`. The result has width
    o = ok / `factors` and the dtype of `products`; if o is not an integer, reshaping raises TypeError.
    """
    z = pool_factors(products, factors)
    if power_norm:
        z = signed_sqrt(z, eps=eps)
    return l2_normalize(z, eps=eps) if normalize else z


def _project(
    x: Float[Array, "*batch m"], weights: Float[Array, "m ok"], bias: Float[Array, " ok"] | None
) -> Float[Array, "*batch ok"]:
    """Computes `W^T x + b` in at least float32; `bias` may be None."""
    projected = matmul_last_axis(x, weights.astype(x.dtype), preferred_element_type=at_least_float32(x).dtype)
    return projected if bias is None else projected + bias
