"""Mixup (Zhang et al., arXiv 1710.09412): each clip with a share of another one of the batch."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from emofuse_jax.types import Batch, PRNGKey

STREAMS = {
    "audio": "audio_mask",
    "faces": "face_mask",
    "audio_features": "audio_features_mask",
    "face_features": "face_mask",
}


def mixup(batch: Batch, key: PRNGKey, alpha: float) -> Batch:
    """Row i with the share `s_i` of row b - 1 - i, s_i ~ Beta(alpha, alpha), at most one half.

    Where one of the two has nothing, the other stands alone. The loss is `(1 - s) CE(y_i) + s CE(y_j)`
    (`mixed_label`, `mixed_share`). Rows without a label, or beside one, stay as they are.
    """
    known = (batch.weight > 0) & batch.label_mask & (batch.label >= 0)
    share = jax.random.beta(key, alpha, alpha, batch.label.shape)
    share = jnp.where(known & known[::-1], jnp.minimum(share, 1 - share), 0.0)
    fields = {"mixed_label": batch.label[::-1], "mixed_share": share}
    masks = {name: getattr(batch, name) for name in set(STREAMS.values())}
    for name, mask in STREAMS.items():
        if getattr(batch, name) is not None:
            fields[name] = blend(getattr(batch, name), masks[mask], share)
            fields[mask] = masks[mask] | (masks[mask][::-1] & (share > 0)[:, None])
    return dataclasses.replace(batch, **fields)


def blend(
    values: Num[Array, "b l *d"], mask: Bool[Array, "b l"], share: Float[Array, " b"]
) -> Num[Array, "b l *d"]:
    """`(1 - s) v_i + s v_j` where both are valid, else the valid one."""
    tail = (1,) * (values.ndim - 2)
    weight = share[:, None] * jnp.ones_like(mask)
    weight = jnp.where(mask & mask[::-1], weight, ((share > 0)[:, None] & ~mask)).reshape(*mask.shape, *tail)
    mixed = (1 - weight) * values.astype(jnp.float32) + weight * values[::-1].astype(jnp.float32)
    if jnp.issubdtype(values.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    return mixed.astype(values.dtype)
