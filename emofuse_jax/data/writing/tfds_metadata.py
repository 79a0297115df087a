"""TFDS metadata beside the shards: `tfds.builder_from_directory` opens the dataset."""

import os

import numpy as np

from emofuse_jax.data import records
from emofuse_jax.data.writing.shards import ShardPlan


def write_tfds_metadata(
    output: str,
    classes: tuple[str, ...],
    plan: ShardPlan,
    markers: list[dict],
    shape: records.RecordShape,
    frames: int,
) -> None:
    """Writes features.json and dataset_info.json.

    Args:
      output: directory of the records.
      classes: class names.
      plan: names of the shards.
      markers: of each shard: number of records and bytes.
      shape: dimensions that all records share.
      frames: face crops of a clip.
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


def _tfds_features(features_module, classes: tuple[str, ...], shape: records.RecordShape, num_frames: int):
    c = len(classes)

    def tensor(shape, dtype):
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
