"""Joint cross-attention: weighs each modality by its correlation with both modalities together."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import at_least_float32


def joint_correlation(
    features: Float[Array, "*batch l d"], joint: Float[Array, "*batch n e"], kernel: Float[Array, "d e"]
) -> Float[Array, "*batch l n"]:
    """Computes the correlation matrix of one modality with the joint features of both.

    `C = tanh(M W J^T / sqrt(e))`, with positions as rows; the papers have them as columns and write
    `tanh(M^T W J / sqrt(d))`. References: Praveen et al., 2022, arXiv 2203.14779 and 2209.09068.

    Args:
      features: M, one row per position of the modality.
      joint: J = [A; V], audio and video features of each position side by side, of width e.
      kernel: W.

    Returns:
      C in at least float32: one row per position of `features`, one column per position of `joint`. A
      position whose features are zero has a zero row or column.
    """
    query = at_least_float32(features) @ at_least_float32(kernel)  # ... l e
    return jnp.tanh(query @ jnp.swapaxes(at_least_float32(joint), -1, -2) / joint.shape[-1] ** 0.5)


def reweight(
    correlation: Float[Array, "*batch l n"],
    features: Float[Array, "*batch l d"],
    mask: Bool[Array, "*batch l"],
) -> Float[Array, "*batch n d"]:
    """Computes the attended features of one modality for each joint position: `C^T M / l`.

    In this formula l is the number of valid positions of a row of the batch. The weights in C have both signs
    and do not sum to 1; the division by l makes the size of the result independent of the number of
    positions.

    Args:
      correlation: C from `joint_correlation`, with a row for each position of the modality and a column for
        each of the n joint positions.
      features: M, one row per position of the modality.
      mask: True at valid positions of `features`; the others have no effect.

    Returns:
      One vector per joint position, in the dtype of `features`; zeros if no position is valid.
    """
    weights = jnp.where(mask[..., None], correlation, 0.0)  # ... l n
    total = jnp.einsum("...ln,...ld->...nd", weights, at_least_float32(features))
    count = jnp.maximum(mask.sum(axis=-1), 1)[..., None, None]
    return (total / count).astype(features.dtype)
