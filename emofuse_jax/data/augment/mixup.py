"""Mixup (Zhang et al., arXiv 1710.09412): each clip with a share of another one of the batch."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from emofuse_jax.types import Batch, PRNGKey

MASK_OF_FIELD = {
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
    has_label = (batch.weight > 0) & batch.label_mask & (batch.label >= 0)
    mix_weight = jax.random.beta(key, alpha, alpha, batch.label.shape)
    mix_weight = jnp.where(has_label & has_label[::-1], jnp.minimum(mix_weight, 1 - mix_weight), 0.0)
    fields = {"mixed_label": batch.label[::-1], "mixed_share": mix_weight}
    masks = {name: getattr(batch, name) for name in set(MASK_OF_FIELD.values())}
    for name, mask in MASK_OF_FIELD.items():
        if getattr(batch, name) is not None:
            fields[name] = blend(getattr(batch, name), masks[mask], mix_weight)
            fields[mask] = masks[mask] | (masks[mask][::-1] & (mix_weight > 0)[:, None])
    return dataclasses.replace(batch, **fields)


def blend(
    values: Num[Array, "b l *d"], mask: Bool[Array, "b l"], mix_weight: Float[Array, " b"]
) -> Num[Array, "b l *d"]:
    """`(1 - s) v_i + s v_j` where both are valid, else the valid one."""
    trailing_shape = (1,) * (values.ndim - 2)
    step_weight = mix_weight[:, None] * jnp.ones_like(mask)
    step_weight = jnp.where(mask & mask[::-1], step_weight, ((mix_weight > 0)[:, None] & ~mask)).reshape(
        *mask.shape, *trailing_shape
    )
    mixed = (1 - step_weight) * values.astype(jnp.float32) + step_weight * values[::-1].astype(jnp.float32)
    if jnp.issubdtype(values.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    return mixed.astype(values.dtype)
