"""Records into a batch of static shape: cut, padded and masked."""

import numpy as np
from jaxtyping import Shaped

from emofuse_jax.data.records import Record
from emofuse_jax.types import Batch, InputSpec


def empty_batch(size: int, spec: InputSpec) -> Batch:
    """A writable batch of `size` padded rows; features are None where the spec has none."""
    audio_features = face_features = audio_features_mask = None
    if spec.audio_features:
        audio_features = np.zeros((size, spec.feature_steps, spec.audio_features), np.float16)
        audio_features_mask = np.zeros((size, spec.feature_steps), bool)
    if spec.face_features:
        face_features = np.zeros((size, spec.s, spec.face_features), np.float16)
    return Batch(
        audio=np.zeros((size, spec.t, spec.f), np.float16),
        audio_mask=np.zeros((size, spec.t), bool),
        faces=np.zeros((size, spec.s, spec.h, spec.w, 3), np.uint8),
        face_mask=np.zeros((size, spec.s), bool),
        label=np.full(size, -1, np.int32),
        label_mask=np.zeros(size, bool),
        weight=np.zeros(size, np.float32),
        speaker=np.full(size, -1, np.int32),
        clip=np.full(size, -1, np.int32),
        audio_features=audio_features,
        audio_features_mask=audio_features_mask,
        face_features=face_features,
    )


def fill_row(batch: Batch, row: int, record: Record, speaker: int = -1, clip: int = -1) -> None:
    """Writes a record into a row of an `empty_batch`; a failed modality stays masked.

    Only what the batch has room for is read. Raises ValueError, naming the clip and the field, where the
    record does not hold it.
    """
    if record.face_valid.shape != batch.face_mask.shape[1:]:
        raise ValueError(
            f"{record.clip_id}: field faces has {record.face_valid.shape[0]} frames,"
            f" expected {batch.face_mask.shape[1]}"
        )
    if record.audio_ok:
        fill_steps(batch, row, record, "spectrogram", "audio", "audio_mask")
        fill_steps(batch, row, record, "audio_features", "audio_features", "audio_features_mask")
    if batch.faces.size:
        batch.faces[row] = require_field(record, "faces")
    if batch.face_features is not None:
        batch.face_features[row] = require_field(record, "face_features")
    batch.face_mask[row] = record.face_valid & record.video_ok
    batch.label[row] = record.label
    batch.label_mask[row] = record.label >= 0
    batch.weight[row] = 1.0
    batch.speaker[row] = speaker
    batch.clip[row] = clip


def fill_steps(
    batch: Batch, row: int, record: Record, record_field: str, values_field: str, mask_field: str
) -> None:
    """Writes a field of a record that runs in time into a row, cut to its middle, and masks what follows."""
    target = getattr(batch, values_field)
    if target is None or not target.shape[1]:
        return
    steps = crop_middle(require_field(record, record_field), target.shape[1])
    target[row, : len(steps)] = steps
    getattr(batch, mask_field)[row, : len(steps)] = True


def require_field(record: Record, field: str) -> Shaped[np.ndarray, "n *rest"]:
    """An array of a record; ValueError where it was prepared without.

    Features of sound may be empty, which masks the row: the encoder failed on this clip.
    """
    array = getattr(record, field)
    if array is None or not (array.size or field == "audio_features"):
        raise ValueError(f"{record.clip_id}: field {field} is empty: the records were prepared without it")
    return array


def crop_middle(array: Shaped[np.ndarray, "n *rest"], length: int) -> Shaped[np.ndarray, "m *rest"]:
    """The middle `length` rows, or all of them when there are fewer."""
    start = max(0, (len(array) - length) // 2)
    return array[start : start + length]
