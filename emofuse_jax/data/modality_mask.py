"""Masks one modality of a batch."""

import dataclasses

import jax
import jax.numpy as jnp

from emofuse_jax.types import Batch


def keep_only_modality(batch: Batch, modality: str) -> Batch:
    """Returns the batch with only one modality valid: "audio", "video", or "both" for an unchanged batch.

    The masks of the other modality are False everywhere.

    Raises:
      ValueError: `modality` is not "audio", "video" or "both".
    """
    if modality == "audio":
        return dataclasses.replace(batch, face_mask=jnp.zeros_like(batch.face_mask))
    if modality == "video":
        masks = {"audio_mask": batch.audio_mask, "audio_features_mask": batch.audio_features_mask}
        return dataclasses.replace(batch, **jax.tree.map(jnp.zeros_like, masks))
    if modality != "both":
        raise ValueError(f"modality {modality!r}: expected both, audio or video")
    return batch
