"""Private features that share nothing linear with the common ones (EMOdal)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.ops.hgr import HIGHEST_PRECISION
from emofuse_jax.ops.normalize import at_least_float32, l2_normalize
from emofuse_jax.types import Batch, Outputs, WeightedSum

ORTHOGONAL_PAIRS = (
    ("audio_common", "audio_private"),
    ("video_common", "video_private"),
    ("audio_private", "video_private"),
)


def orthogonality_loss(outputs: Outputs, batch: Batch, config) -> WeightedSum:
    """The sum of `cross_correlation_norm` over the three pairs that must differ, and the number of pairs.

    Common against private of each stream, private of one against private of the other; over the clips that
    have what the pair needs. Reference: Bousmalis et al., domain separation networks, arXiv 1608.06019;
    between private features: Hazarika et al., MISA, arXiv 2005.03545.

    Raises:
      ValueError: a fusion without private features.
    """
    aux = outputs.aux
    if "audio_private" not in aux:
        raise ValueError("loss.objectives: orthogonality needs a fusion with private features (emodal)")
    total, count = jnp.zeros(()), 0.0
    for first, second in ORTHOGONAL_PAIRS:
        mask = aux[f"{first.split('_')[0]}_common_mask"] & aux[f"{second.split('_')[0]}_common_mask"]  # b l
        weight = (batch.weight[:, None] * mask).reshape(-1)
        rows = (aux[name].reshape(-1, aux[name].shape[-1]) for name in (first, second))  # b l d -> b*l d
        total += cross_correlation_norm(*rows, weight)
        count += jnp.any(weight > 0)
    return total, count


def cross_correlation_norm(
    x: Float[Array, "n d"], y: Float[Array, "n e"], weight: Float[Array, " n"]
) -> Float[Array, ""]:
    """`|| sum_i w_i x^_i y^_i^T / m ||_F^2`, rows centred over the global batch and of length 1, m = sum w.

    In [0, 1] and in float32; 0 where nothing counts. Independent rows give about 1 / m.
    """
    m = jnp.maximum(jnp.sum(weight), 1.0)
    x, y = (_centred_unit_rows(z, weight, m) for z in (x, y))
    cross_correlation = jnp.einsum("n,nd,ne->de", weight, x, y, precision=HIGHEST_PRECISION) / m
    return jnp.sum(cross_correlation * cross_correlation)


def _centred_unit_rows(z, weight, m):
    z = jnp.where(weight[:, None] > 0, at_least_float32(z), 0.0)
    return l2_normalize(z - jnp.sum(weight[:, None] * z, axis=0) / m)
