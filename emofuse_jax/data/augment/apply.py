"""Augmentation on the device, inside the jitted step, from a per-step key.

Every function takes and gives a `Batch`; static shapes; a row of padding stays padding.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.data.augment.audio_effects import augment_sound, spec_augment
from emofuse_jax.data.augment.mixup import mixup
from emofuse_jax.data.feature_shapes import sound_mask
from emofuse_jax.types import Batch, PRNGKey


def augment(batch: Batch, key: PRNGKey, config, *, neper: float = 1.0) -> Batch:
    """Applies every augmentation that `config` (settings/experiment.py, `augment`) turns on.

    `neper`: one neper in the unit of the spectrogram (data/spectrogram_units.py).
    """
    keys = jax.random.split(key, 6)
    if config.frames:
        batch = sample_frames(batch, keys[0], config.frames)
    if config.flip:
        batch = flip(batch, keys[1])
    if config.shift and batch.faces.size:  # records of features alone hold no crops
        batch = shift(batch, keys[2], config.shift)
    if config.brightness or config.contrast:
        batch = colour(batch, keys[3], brightness=config.brightness, contrast=config.contrast)
    batch = augment_sound(batch, jax.random.fold_in(key, 6), config, neper=neper)
    batch = spec_augment(
        batch,
        keys[4],
        time=(config.time_masks, config.time_width),
        frequency=(config.frequency_masks, config.frequency_width),
        gain=config.gain * neper,
    )
    batch = modality_dropout(batch, keys[5], audio=config.audio_dropout, video=config.video_dropout)
    return mixup(batch, jax.random.fold_in(key, 7), config.mixup) if config.mixup else batch


def sample_frames(batch: Batch, key: PRNGKey, n: int) -> Batch:
    """Keeps `n` random frames, one from each equal part of the clip (AM-FBP, arXiv 2111.08910)."""
    b, s = batch.face_mask.shape
    if n > s:
        raise ValueError(f"augment.frames={n}: the records hold {s} frames a clip")
    edges = jnp.arange(n + 1) * s // n
    position = jax.random.uniform(key, (b, n))
    chosen = (edges[:-1] + position * (edges[1:] - edges[:-1])).astype(jnp.int32)  # b n
    take = jax.vmap(lambda values, index: values[index])
    names = ("faces", "face_mask", "face_features")
    sampled = {name: take(values, chosen) for name in names if (values := getattr(batch, name)) is not None}
    return dataclasses.replace(batch, **sampled)


def flip(batch: Batch, key: PRNGKey) -> Batch:
    """Mirrors all faces of a clip, for half of the clips."""
    mirrored = jax.random.bernoulli(key, 0.5, batch.label.shape)
    faces = jnp.where(mirrored[:, None, None, None, None], batch.faces[:, :, :, ::-1], batch.faces)
    return dataclasses.replace(batch, faces=faces)


def shift(batch: Batch, key: PRNGKey, pixels: int) -> Batch:
    """Moves the faces of a clip by up to `pixels` in x and y; the border repeats."""
    b, *shape = batch.faces.shape
    corner = jax.random.randint(key, (b, 2), 0, 2 * pixels + 1)
    border = ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(batch.faces, border, mode="edge")

    def cut(faces, at):
        return jax.lax.dynamic_slice(faces, (0, at[0], at[1], 0), shape)  # s h w 3

    return dataclasses.replace(batch, faces=jax.vmap(cut)(padded, corner))


def colour(batch: Batch, key: PRNGKey, *, brightness: float, contrast: float) -> Batch:
    """Per clip: `gain * (x - 128) + 128 + offset`, offset in +-255 brightness, gain in 1 +- contrast."""
    shape = (batch.label.shape[0], 1, 1, 1, 1)
    key_offset, key_gain = jax.random.split(key)
    offset = 255.0 * brightness * jax.random.uniform(key_offset, shape, minval=-1.0)
    gain = 1.0 + contrast * jax.random.uniform(key_gain, shape, minval=-1.0)
    faces = gain * (batch.faces.astype(jnp.float32) - 128.0) + 128.0 + offset
    return dataclasses.replace(batch, faces=jnp.clip(jnp.round(faces), 0, 255).astype(jnp.uint8))


def modality_dropout(
    batch: Batch, key: PRNGKey, *, audio: float | Float[Array, ""], video: float | Float[Array, ""]
) -> Batch:
    """Hides the sound with probability `audio`, else the faces with probability `video`.

    Never both: of a clip that lacks one stream, the other stays.
    """
    uniform = jax.random.uniform(key, batch.label.shape)
    no_audio = (uniform < audio) & batch.face_mask.any(axis=1)
    no_video = (audio <= uniform) & (uniform < audio + video) & sound_mask(batch).any(axis=1)
    hidden = {"audio_mask": no_audio, "audio_features_mask": no_audio, "face_mask": no_video}
    masks = {n: mask & ~hidden[n][:, None] for n in hidden if (mask := getattr(batch, n)) is not None}
    return dataclasses.replace(batch, **masks)
