"""Augments batches on the device, inside the jitted step, with a random key per step.

Every function takes and returns a `Batch`. Shapes are static, and padded rows stay padded.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int, UInt8

from emofuse_jax.data.augment.audio_effects import augment_audio, spec_augment
from emofuse_jax.data.augment.mixup import mixup
from emofuse_jax.data.feature_shapes import audio_step_mask
from emofuse_jax.types import Batch, PRNGKey


def augment(
    batch: Batch, key: PRNGKey, config: ml_collections.ConfigDict, *, units_per_neper: float = 1.0
) -> Batch:
    """Applies every augmentation that `config` turns on and returns the new batch.

    The order is frame sampling, flip, shift, brightness and contrast, the effects of `augment_audio`,
    SpecAugment with a random gain, modality dropout, mixup. If `config.frames` is set, the batch has so many
    frames; if `config.crop` is set, so many steps. Mixup adds `mixed_label` and `mixed_share`.

    Args:
      batch: The batch.
      key: Random key of the step.
      config: `config.augment` of the experiment; 0 or False turns a part off. Besides the fields that
        `augment_audio` lists, it has the number of `frames` to sample; `flip` (bool); the largest changes
        `shift` (pixels), `brightness` and `contrast` (fractions) and `gain` (nepers); `time_masks`, a number,
        and `time_width`, their largest width in steps; `frequency_masks` and `frequency_width` in bins; the
        probabilities `audio_dropout` and `video_dropout`; and `mixup`, the alpha of a Beta distribution.
      units_per_neper: One neper in the unit of the spectrogram: 1 for log magnitudes, 2 for log energies,
        8.69 for decibels.

    Raises:
      ValueError: `config.frames` or `config.crop` is larger than the number of frames or steps of a clip.
    """
    keys = jax.random.split(key, 6)
    if config.frames:
        batch = sample_frames(batch, keys[0], config.frames)
    if config.flip:
        batch = flip_faces(batch, keys[1])
    if config.shift and batch.faces.size:  # records that store only features have no face crops
        batch = shift_faces(batch, keys[2], config.shift)
    if config.brightness or config.contrast:
        batch = jitter_colours(batch, keys[3], brightness=config.brightness, contrast=config.contrast)
    batch = augment_audio(batch, jax.random.fold_in(key, 6), config, units_per_neper=units_per_neper)
    batch = spec_augment(
        batch,
        keys[4],
        time_masks=(config.time_masks, config.time_width),
        frequency_masks=(config.frequency_masks, config.frequency_width),
        max_gain=config.gain * units_per_neper,
    )
    batch = modality_dropout(batch, keys[5], audio_rate=config.audio_dropout, video_rate=config.video_dropout)
    return mixup(batch, jax.random.fold_in(key, 7), config.mixup) if config.mixup else batch


def sample_frames(batch: Batch, key: PRNGKey, frame_count: int) -> Batch:
    """Returns the batch with `frame_count` random frames of each clip, one from each of `frame_count` parts.

    The parts are equally long, up to rounding, as in AM-FBP (Zhou et al., 2021, arXiv 2111.08910). The frames
    stay in the order of time. Faces, face features and their mask have shape [b frame_count ...] in the
    result.

    Raises:
      ValueError: The clips have fewer than `frame_count` frames.
    """
    b, s = batch.face_mask.shape
    if frame_count > s:
        raise ValueError(f"augment.frames={frame_count}: expected at most {s}, the frames of a clip")
    edges = jnp.arange(frame_count + 1) * s // frame_count
    offsets = jax.random.uniform(key, (b, frame_count))
    frame_indices = (edges[:-1] + offsets * (edges[1:] - edges[:-1])).astype(jnp.int32)  # b n
    take_frames = jax.vmap(lambda values, index: values[index])
    fields = ("faces", "face_mask", "face_features")
    sampled = {
        field: take_frames(values, frame_indices)
        for field in fields
        if (values := getattr(batch, field)) is not None
    }
    return dataclasses.replace(batch, **sampled)


def flip_faces(batch: Batch, key: PRNGKey) -> Batch:
    """Returns the batch with all faces of a clip mirrored left to right, with probability 1/2 for each clip.

    Face features do not change.
    """
    is_mirrored = jax.random.bernoulli(key, 0.5, batch.label.shape)
    faces = jnp.where(is_mirrored[:, None, None, None, None], batch.faces[:, :, :, ::-1], batch.faces)
    return dataclasses.replace(batch, faces=faces)


def shift_faces(batch: Batch, key: PRNGKey, pixels: int) -> Batch:
    """Returns the batch with all faces of a clip shifted by one random offset.

    The offsets in x and y are whole numbers from -`pixels` to `pixels`, each with the same probability. The
    pixels at the border are repeated.
    """
    b, *shape = batch.faces.shape
    top_left_corners = jax.random.randint(key, (b, 2), 0, 2 * pixels + 1)
    border = ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(batch.faces, border, mode="edge")

    def crop_faces(
        faces: UInt8[Array, "s padded_h padded_w 3"], top_left: Int[Array, "2"]
    ) -> UInt8[Array, "s h w 3"]:
        return jax.lax.dynamic_slice(faces, (0, top_left[0], top_left[1], 0), shape)

    return dataclasses.replace(batch, faces=jax.vmap(crop_faces)(padded, top_left_corners))


def jitter_colours(batch: Batch, key: PRNGKey, *, brightness: float, contrast: float) -> Batch:
    """Changes the brightness and contrast of all faces of a clip: `gain * (x - 128) + 128 + offset`.

    x is a value of a pixel, 0 to 255. The offset is uniform in +-255 `brightness`, the gain in 1 +-
    `contrast`, one of each for a clip. Returns the new batch, with faces rounded and clipped to uint8.
    """
    shape = (batch.label.shape[0], 1, 1, 1, 1)
    key_offset, key_gain = jax.random.split(key)
    offset = 255.0 * brightness * jax.random.uniform(key_offset, shape, minval=-1.0)
    gain = 1.0 + contrast * jax.random.uniform(key_gain, shape, minval=-1.0)
    faces = gain * (batch.faces.astype(jnp.float32) - 128.0) + 128.0 + offset
    return dataclasses.replace(batch, faces=jnp.clip(jnp.round(faces), 0, 255).astype(jnp.uint8))


def modality_dropout(
    batch: Batch, key: PRNGKey, *, audio_rate: float | Float[Array, ""], video_rate: float | Float[Array, ""]
) -> Batch:
    """Hides the audio of a clip with probability `audio_rate`, or its faces with probability `video_rate`.

    Returns the batch with new masks, which are False for the hidden modality. A clip never loses both: if it
    has only one modality, this one is not hidden. `audio_rate + video_rate` should be at most 1; if it is
    more, faces are hidden with probability `1 - audio_rate`.
    """
    uniform = jax.random.uniform(key, batch.label.shape)
    drop_audio = (uniform < audio_rate) & batch.face_mask.any(axis=1)
    drop_video = (
        (audio_rate <= uniform) & (uniform < audio_rate + video_rate) & audio_step_mask(batch).any(axis=1)
    )
    dropped_rows = {"audio_mask": drop_audio, "audio_features_mask": drop_audio, "face_mask": drop_video}
    masks = {
        mask_name: mask & ~dropped_rows[mask_name][:, None]
        for mask_name in dropped_rows
        if (mask := getattr(batch, mask_name)) is not None
    }
    return dataclasses.replace(batch, **masks)
