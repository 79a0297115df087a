"""Records into a batch of static shape: cut, padded and masked."""

import numpy as np
from jaxtyping import Shaped

from emofuse_jax.data.records import Record
from emofuse_jax.types import Batch, InputSpec


def empty_batch(size: int, spec: InputSpec) -> Batch:
    """A writable batch of `size` padded rows."""
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
    )


def fill_row(batch: Batch, row: int, record: Record, speaker: int = -1, clip: int = -1) -> None:
    """Writes a record into a row of an `empty_batch`; a failed modality stays masked."""
    if record.face_valid.shape != batch.face_mask.shape[1:]:
        raise ValueError(
            f"{record.clip_id}: field faces has {record.face_valid.shape[0]} frames,"
            f" expected {batch.face_mask.shape[1]}"
        )
    if record.audio_ok:
        audio = middle(record.spectrogram, batch.audio.shape[1])
        batch.audio[row, : len(audio)] = audio
        batch.audio_mask[row, : len(audio)] = True
    batch.faces[row] = record.faces
    batch.face_mask[row] = record.face_valid & record.video_ok
    batch.label[row] = record.label
    batch.label_mask[row] = record.label >= 0
    batch.weight[row] = 1.0
    batch.speaker[row] = speaker
    batch.clip[row] = clip


def middle(array: Shaped[np.ndarray, "n *rest"], length: int) -> Shaped[np.ndarray, "m *rest"]:
    """The middle `length` rows, or all of them when there are fewer."""
    start = max(0, (len(array) - length) // 2)
    return array[start : start + length]
