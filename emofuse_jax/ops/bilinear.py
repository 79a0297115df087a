"""Factorised bilinear pooling (FBP) of two vectors.

XLA writes the two projections and not their product (tests/ops/test_bilinear_compiled.py). Products laid out
`(k o)` were tried: a TPU moves .5 to .8 of the bytes for 76,800 rows, but rearranging the factors makes 256
rows of 1,280 take 1.3 times as long on a CPU, and the fusions that ship pool few rows.
"""

from jaxtyping import Array, Float

from emofuse_jax.ops.dense import matmul_last_axis
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.ops.normalize import at_least_float32, l2_normalize, signed_sqrt
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
    """`z_i = sum_k (U^T x o V^T y)_{i k}`, then `z / sqrt(sum z^2 + eps)`.

    Before the norm this is `x^T (U_i V_i^T) y` for each output i. Reference: arXiv 1901.04889; MFB,
    arXiv 1708.01471. Order: project, add biases, multiply, dropout, sum over k, signed square root, L2.
    Without biases the norm cancels any scalar factor on `x` or `y`.

    Args:
      x: first vectors.
      y: second vectors.
      u: first factors; the `factors` columns of one output are adjacent.
      v: second factors.
      factors: rank k; o = ok / k.
      bias_u: added to `U^T x`.
      bias_v: added to `V^T y`.
      dropout_rate: share of the products set to zero; used when `key` is given.
      key: of the dropout; None in evaluation.
      power_norm: whether to take the signed square root.
      normalize: whether to divide by the L2 norm.
      eps: of both norms.
      dropout_place: `products`, before the sum over k, or `pooled`, after it and before the norms.

    Returns:
      Fused vectors in the dtype of `x`; products, sums and norms are computed in float32.

    Raises:
      ValueError: `ok` is not a multiple of `factors`, or an unknown place.
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
    """`U^T x o V^T y` in float32; raises ValueError when `ok` is not a multiple of `factors`."""
    if u.shape[-1] % factors:
        raise ValueError(f"u: {u.shape[-1]} columns, expected a multiple of factors={factors}")
    return _project(x, u, bias_u) * _project(y, v, bias_v)


def pool_factors(products: Float[Array, "*batch ok"], factors: int) -> Float[Array, "*batch o"]:
    """`z_i = sum_k products_{i k}`."""
    return products.reshape(*products.shape[:-1], -1, factors).sum(-1)  # ... ok -> ... o k -> ... o


def sum_and_normalize(
    products: Float[Array, "*batch ok"],
    factors: int,
    *,
    power_norm: bool,
    normalize: bool,
    eps: float,
) -> Float[Array, "*batch o"]:
    """`z_i = sum_k products_{i k}`, then the signed square root and the L2 norm where asked."""
    z = pool_factors(products, factors)
    if power_norm:
        z = signed_sqrt(z, eps=eps)
    return l2_normalize(z, eps=eps) if normalize else z


def _project(x, weights, bias):
    """`W^T x + b` in float32."""
    projected = matmul_last_axis(x, weights.astype(x.dtype), preferred_element_type=at_least_float32(x).dtype)
    return projected if bias is None else projected + bias
