"""Writes TFDS metadata next to the shards, so that `tfds.builder_from_directory` can open the dataset."""

from __future__ import annotations

import os
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from emofuse_jax.data import records
from emofuse_jax.data.metadata import ShardFileFields
from emofuse_jax.data.writing.shards import ShardPlan

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def write_tfds_metadata(
    output: str,
    classes: tuple[str, ...],
    plan: ShardPlan,
    markers: Sequence[ShardFileFields],
    shape: records.RecordShape,
    frames: int,
) -> None:
    """Writes features.json and dataset_info.json into the directory of the records, so that TFDS can open it.

    features.json has the type, dtype and shape of each field of a record; dataset_info.json has the name, the
    version and the split `clips` with the number of records of each shard and all bytes. With classes, their
    names are written to label.labels.txt, one a line. Existing files are replaced.

    Args:
      output: Directory of the records.
      classes: Class names.
      plan: The shards: name of the dataset.
      markers: For each shard its number of `records` and of `bytes`.
      shape: Dimensions that all records share.
      frames: Number of face crops of a clip.

    Raises:
      ImportError: tensorflow_datasets is not installed.
      OSError: A file cannot be written.
      ValueError: A class name occurs twice, or `output` has no shards.
    """
    os.environ.setdefault("TFDS_DISABLE_TELEMETRY", "1")
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=output, dataset_name=plan.dataset, split=records.TFDS_SPLIT, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=records.TFDS_SPLIT,
        shard_lengths=[marker["records"] for marker in markers],
        num_bytes=sum(marker["bytes"] for marker in markers),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=output,
        features=_tfds_features(tfds.features, classes, shape, frames),
        split_infos=[split],
        version="1.0.0",
        check_data=False,
    )


def _tfds_features(
    features_module: types.ModuleType, classes: tuple[str, ...], shape: records.RecordShape, num_frames: int
) -> tfds.features.FeaturesDict:
    """Returns the TFDS FeaturesDict of a record: the type, dtype and shape of each field by its name.

    `features_module` is `tfds.features`, `num_frames` the number of face crops of a clip. Optional arrays are
    included if `shape` has a width for them. The label is a ClassLabel with the names of the classes, or an
    integer without classes. Raises ValueError if a class name occurs twice.
    """
    c = len(classes)

    def tensor(shape: tuple[int | None, ...], dtype: DTypeLike) -> tfds.features.Tensor:
        return features_module.Tensor(shape=shape, dtype=dtype, encoding="bytes")

    optional_features = {}
    if shape.audio_features:
        optional_features["audio_features"] = tensor((None, shape.audio_features), np.float16)
    if shape.face_features:
        optional_features["face_features"] = tensor((num_frames, shape.face_features), np.float16)
    if shape.waveform:
        optional_features["waveform"] = tensor((None,), np.int16)
    return features_module.FeaturesDict(
        {
            "clip_id": features_module.Text(),
            "speaker": features_module.Text(),
            "corpus": features_module.Text(),
            "label": features_module.ClassLabel(names=list(classes))
            if c
            else features_module.Scalar(np.int64),
            "votes": tensor((c,), np.float32),
            "spectrogram": tensor((None, shape.f), np.float16),
            "faces": tensor((num_frames, shape.h, shape.w, 3), np.uint8),
            "face_valid": tensor((num_frames,), np.bool_),
            "face_time": tensor((num_frames,), np.float32),
            "face_box": tensor((num_frames, 4), np.float32),
            "face_landmarks": tensor((num_frames, 5, 2), np.float32),
            "face_score": tensor((num_frames,), np.float32),
            "audio_ok": features_module.Scalar(np.bool_),
            "video_ok": features_module.Scalar(np.bool_),
            **optional_features,
        }
    )
