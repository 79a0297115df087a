"""Joint cross-attention: each modality is weighed by how it goes with both together."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import at_least_float32


def joint_correlation(
    features: Float[Array, "*batch l d"], joint: Float[Array, "*batch n e"], kernel: Float[Array, "d e"]
) -> Float[Array, "*batch l n"]:
    """`C = tanh(M^T W J / sqrt(d))` in float32, one row a position of `features`.

    Here M is `features`, J = [A; V] is `joint`, and d is the width of J, with positions as rows, not columns.
    Reference: Praveen et al., arXiv 2203.14779, 2209.09068. A position that is zero has a zero row or column.
    """
    query = at_least_float32(features) @ at_least_float32(kernel)  # ... l e
    return jnp.tanh(query @ jnp.swapaxes(at_least_float32(joint), -1, -2) / joint.shape[-1] ** 0.5)


def reweight(
    correlation: Float[Array, "*batch l n"],
    features: Float[Array, "*batch l d"],
    mask: Bool[Array, "*batch l"],
) -> Float[Array, "*batch n d"]:
    """`C^T M / l` over the valid positions of `features`: how each joint position sees the modality.

    `tanh` gives weights of both signs that do not sum to 1; the division by the number of positions keeps
    the size independent of it.
    """
    weights = jnp.where(mask[..., None], correlation, 0.0)  # ... l n
    total = jnp.einsum("...ln,...ld->...nd", weights, at_least_float32(features))
    count = jnp.maximum(mask.sum(axis=-1), 1)[..., None, None]
    return (total / count).astype(features.dtype)
