"""Collates records into a batch of static shape: crops, pads and masks them."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from emofuse_jax.data.records import Record
from emofuse_jax.types import Batch, InputSpec


def empty_batch(size: int, spec: InputSpec) -> Batch:
    """Returns a writable batch of NumPy arrays with `size` padded rows, for `fill_row`.

    With t steps, f bins, s frames and h x w pixels of a face crop in `spec`, `audio` is float16 [size t f]
    and `faces` uint8 [size s h w 3]. `audio_features` is float16 [size feature_steps audio_features], and
    `face_features` float16 [size s face_features]; they (and the mask of the former) are None if `spec` has
    width 0 for them. `audio_mask` [size t], `face_mask` [size s] and `audio_features_mask` [size
    feature_steps] are bool, True at valid positions. `label`, `speaker` and `clip` (int32), `label_mask`
    (bool, True if the label may be used) and `weight` (float32, weight in losses and scores) have shape
    [size]. Values, weights and masks are zero; labels, speakers and clips are -1. `mixed_label` and
    `mixed_share` are None.
    """
    # a batch on the host has NumPy arrays in the fields that are annotated as JAX arrays
    fields: dict[str, Any] = {
        "audio": np.zeros((size, spec.t, spec.f), np.float16),
        "audio_mask": np.zeros((size, spec.t), bool),
        "faces": np.zeros((size, spec.s, spec.h, spec.w, 3), np.uint8),
        "face_mask": np.zeros((size, spec.s), bool),
        "label": np.full(size, -1, np.int32),
        "label_mask": np.zeros(size, bool),
        "weight": np.zeros(size, np.float32),
        "speaker": np.full(size, -1, np.int32),
        "clip": np.full(size, -1, np.int32),
    }
    if spec.audio_features:
        fields["audio_features"] = np.zeros((size, spec.feature_steps, spec.audio_features), np.float16)
        fields["audio_features_mask"] = np.zeros((size, spec.feature_steps), bool)
    if spec.face_features:
        fields["face_features"] = np.zeros((size, spec.s, spec.face_features), np.float16)
    return Batch(**fields)


def fill_row(batch: Batch, row: int, record: Record, speaker: int = -1, clip: int = -1) -> None:
    """Writes a record into a row of an `empty_batch` and sets the weight of the row to 1.

    A modality that failed in preprocessing stays masked. Audio that is longer than the batch is cropped to
    its middle; shorter audio starts at step 0. The label mask becomes True if the record has a label. Fields
    that have size 0 or are None in the batch are not read from the record.

    Args:
      batch: Changed in place.
      row: Index of the row.
      record: The clip.
      speaker: Index of the speaker in `Dataset.speakers`.
      clip: Index of the record in the dataset.

    Raises:
      ValueError: The record lacks a field that the batch needs, or has another number of frames (names the
        clip and the field); or an array has another number of bins, pixels or features than the batch.
    """
    if record.face_valid.shape != batch.face_mask.shape[1:]:
        raise ValueError(
            f"{record.clip_id}: field faces has {record.face_valid.shape[0]} frames,"
            f" expected {batch.face_mask.shape[1]}; prepare the clips again"
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
    """Writes an audio field of a record into a row of the batch and sets the mask of the written steps.

    Writes from step 0 on, also if the record's audio failed. A field with more steps than the batch is
    cropped to its middle. Nothing is written if the field of the batch is None or has 0 steps.

    Args:
      batch: Changed in place.
      row: Index of the row.
      record: The clip.
      record_field: Name of the field in the record, with time as its first axis.
      values_field: Name of the target field in the batch.
      mask_field: Name of its mask in the batch.

    Raises:
      ValueError: The record lacks the field (names the clip and the field), or the field has another width
        than the batch.
    """
    target = getattr(batch, values_field)
    if target is None or not target.shape[1]:
        return
    steps = crop_middle(require_field(record, record_field), target.shape[1])
    target[row, : len(steps)] = steps
    getattr(batch, mask_field)[row, : len(steps)] = True


def require_field(record: Record, field: str) -> Shaped[np.ndarray, "n *rest"]:
    """Returns the array of a record's field.

    `audio_features` may have length 0: the frozen encoder failed on this clip, and its row stays masked.

    Raises:
      ValueError: The field is None or empty, because the records were prepared without it; names the clip
        and the field.
    """
    array = getattr(record, field)
    if array is None or not (array.size or field == "audio_features"):
        raise ValueError(
            f"{record.clip_id}: field {field} is empty: the records were prepared without it; prepare the"
            " clips again with it (--audio_encoder, --face_encoder or --tensors=keep), or use an encoder that"
            " does not need it"
        )
    return array


def crop_middle(array: Shaped[np.ndarray, "n *rest"], length: int) -> Shaped[np.ndarray, "m *rest"]:
    """Returns a view of the middle `length` rows of `array`, or of all rows if there are fewer.

    If the number of rows that are cut is odd, one more is cut at the end than at the beginning.
    """
    start = max(0, (len(array) - length) // 2)
    return array[start : start + length]
