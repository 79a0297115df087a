"""Mixup (Zhang et al., arXiv 1710.09412): mixes each clip with another clip of the batch."""

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
"""Mask of each field of a batch that is mixed."""


def mixup(batch: Batch, key: PRNGKey, alpha: float) -> Batch:
    """Mixes row i with row j = b - 1 - i of the batch, `(1 - s) x_i + s x_j`, and returns the new batch.

    s is the smaller of v and 1 - v, v ~ Beta(alpha, alpha), for each row. It mixes spectrograms, faces and
    features. If only one of the two clips has a valid step or frame at a position, the result has that one
    unmixed; the new masks are True there too. The result has `mixed_label` (y_j) and `mixed_share` (s), for
    the loss `(1 - s) CE(y_i) + s CE(y_j)`. If row i or row j has no label, row i is not changed and its share
    is 0; its `mixed_label` is still y_j, which may be -1.
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
    """Returns `(1 - s) v_i + s v_j` at positions at which rows i and j = b - 1 - i of `values` are valid.

    At other positions the result is the valid row of the two, or v_j if none is valid. `mix_weight` is s;
    rows with s = 0 do not change. Integer dtypes are rounded.
    """
    trailing_shape = (1,) * (values.ndim - 2)
    step_weight = mix_weight[:, None] * jnp.ones_like(mask)
    step_weight = jnp.where(mask & mask[::-1], step_weight, ((mix_weight > 0)[:, None] & ~mask)).reshape(
        *mask.shape, *trailing_shape
    )
    mixed = (1 - step_weight) * values.astype(jnp.float32) + step_weight * values[::-1].astype(jnp.float32)
    if jnp.issubdtype(values.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    return mixed.astype(values.dtype)
