"""Joint cross-attention: each modality is weighed by how it goes with both together."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import promote


def joint_correlation(
    own: Float[Array, "*batch l d"], joint: Float[Array, "*batch n e"], kernel: Float[Array, "d e"]
) -> Float[Array, "*batch l n"]:
    """`C = tanh(M^T W J / sqrt(d))` in float32, one row a position of `own`.

    Here M is `own`, J = [A; V] is `joint`, and d is the width of J, with positions as rows, not columns.
    Reference: Praveen et al., arXiv 2203.14779, 2209.09068. A position that is zero has a zero row or column.
    """
    query = promote(own) @ promote(kernel)  # ... l e
    return jnp.tanh(query @ jnp.swapaxes(promote(joint), -1, -2) / joint.shape[-1] ** 0.5)


def reweight(
    correlation: Float[Array, "*batch l n"], own: Float[Array, "*batch l d"], mask: Bool[Array, "*batch l"]
) -> Float[Array, "*batch n d"]:
    """`C^T M / l` over the valid positions of `own`: how each joint position sees the modality.

    `tanh` gives weights of both signs that do not sum to 1; the division by the number of positions keeps
    the size independent of it.
    """
    weights = jnp.where(mask[..., None], correlation, 0.0)  # ... l n
    total = jnp.einsum("...ln,...ld->...nd", weights, promote(own))
    count = jnp.maximum(mask.sum(axis=-1), 1)[..., None, None]
    return (total / count).astype(own.dtype)
