"""Orthogonality objective: keeps private features linearly unrelated to common ones (EMOdal)."""

import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emofuse_jax.ops.hgr import HIGHEST_PRECISION
from emofuse_jax.ops.normalize import at_least_float32, l2_normalize
from emofuse_jax.types import Batch, Outputs, WeightedSum

ORTHOGONAL_PAIRS = (
    ("audio_common", "audio_private"),
    ("video_common", "video_private"),
    ("audio_private", "video_private"),
)


def orthogonality_loss(outputs: Outputs, batch: Batch, config: ConfigDict) -> WeightedSum:
    """Computes how strongly features that must be unrelated are correlated, as a sum over three pairs.

    The pairs are: common and private features of audio, common and private features of video, and the private
    features of audio and video. Each pair adds the squared Frobenius norm of its cross-correlation matrix, a
    number in [0, 1]: `|| sum_i w_i x_i y_i^T / sum_i w_i ||_F^2` of rows that are centred and scaled to
    length 1. It uses the clips that have its streams, labelled or not. References: domain separation networks
    (Bousmalis et al., 2016, arXiv 1608.06019); between private features, MISA (Hazarika et al., 2020, arXiv
    2005.03545).

    Args:
      outputs: outputs of a network; `aux` contains `audio_common`, `video_common`, `audio_private`,
        `video_private` [b l d] and the masks `audio_common_mask`, `video_common_mask` [b l].
      batch: the clips.
      config: not used.

    Returns:
      The sum, and the number of pairs for which the batch has a clip (0 to 3).

    Raises:
      ValueError: if `outputs.aux` has no `audio_private`, because the fusion has no private features.
      KeyError: if `aux` has `audio_private`, but not one of the other arrays.
    """
    aux = outputs.aux
    if "audio_private" not in aux:
        raise ValueError(
            "config.loss.objectives.orthogonality: needs a fusion with private features; set"
            " config.model.fusion.name to emodal, or this factor to 0"
        )
    total = count = jnp.zeros(())
    for first, second in ORTHOGONAL_PAIRS:
        mask = aux[f"{first.split('_')[0]}_common_mask"] & aux[f"{second.split('_')[0]}_common_mask"]  # b l
        weight = (batch.weight[:, None] * mask).reshape(-1)
        x, y = (aux[name].reshape(-1, aux[name].shape[-1]) for name in (first, second))  # b l d -> b*l d
        total += cross_correlation_norm(x, y, weight)
        count += jnp.any(weight > 0)
    return total, count


def cross_correlation_norm(
    x: Float[Array, "n d"], y: Float[Array, "n e"], weight: Float[Array, " n"]
) -> Float[Array, ""]:
    """Computes the squared Frobenius norm of the cross-correlation of two feature matrices.

    `|| sum_i w_i x^_i y^_i^T / m ||_F^2`, where `x^` and `y^` are rows centred over the global batch and
    scaled to length 1, and `m = sum_i w_i` (at least 1).

    Args:
      x: n rows of width d.
      y: n rows of width e.
      weight: weight w of each row; 0 leaves it out.

    Returns:
      A number in [0, 1] in at least float32: about 1 / m for independent rows, 0 if all weights are 0.
    """
    m = jnp.maximum(jnp.sum(weight), 1.0)
    x, y = (_centred_unit_rows(z, weight, m) for z in (x, y))
    cross_correlation = jnp.einsum("n,nd,ne->de", weight, x, y, precision=HIGHEST_PRECISION) / m
    return jnp.sum(cross_correlation * cross_correlation)


def _centred_unit_rows(
    z: Float[Array, "n d"], weight: Float[Array, " n"], m: Float[Array, ""]
) -> Float[Array, "n d"]:
    z = jnp.where(weight[:, None] > 0, at_least_float32(z), 0.0)
    return l2_normalize(z - jnp.sum(weight[:, None] * z, axis=0) / m)
