"""Masks one modality of a batch."""

import dataclasses

import jax
import jax.numpy as jnp

from emofuse_jax.types import Batch


def keep_only_modality(batch: Batch, modality: str) -> Batch:
    """Masks the faces (`audio`), the sound (`video`), or nothing (`both`)."""
    if modality == "audio":
        return dataclasses.replace(batch, face_mask=jnp.zeros_like(batch.face_mask))
    if modality == "video":
        masks = {"audio_mask": batch.audio_mask, "audio_features_mask": batch.audio_features_mask}
        return dataclasses.replace(batch, **jax.tree.map(jnp.zeros_like, masks))
    if modality != "both":
        raise ValueError(f"modality {modality!r}: expected both, audio or video")
    return batch
