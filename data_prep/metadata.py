"""What lies beside the shards: manifest.csv, prep.json, splits, statistics, and TFDS's description."""

import csv
import hashlib
import importlib.metadata
import io
import os

import numpy as np

from data_prep.corpora.base import Corpus, Protocol
from data_prep.encoders import EncoderFiles
from data_prep.settings import PrepSettings
from data_prep.shards import Plan, read_shard, write_atomic, write_json
from data_prep.splits import make_fold, protocols
from data_prep.stats import fold_statistics
from emofuse_jax import onnx_files
from emofuse_jax.data import records

COLUMNS = (
    "clip_id",
    "path",
    "speaker",
    "label",
    "status",
    "reason",
    "shard",
    "row",
    "index",
    "sha256",
    "take",
    "start",
    "end",
)
PACKAGES = ("emofuse", "av", "librosa", "soxr", "numpy", "jax", "mtcnn", "opencv-python-headless")
ENCODING = ("onnxruntime",)


def versions(settings: PrepSettings) -> dict[str, str]:
    """Versions of the packages that decide what a record holds."""
    encodes = any(getattr(settings.features, kind) for kind in onnx_files.FLAGS)
    return {name: importlib.metadata.version(name) for name in PACKAGES + ENCODING * bool(encodes)}


def record_shape(settings: PrepSettings) -> records.RecordShape:
    """The dimensions that all records of these settings share."""
    features = settings.features
    size = 0 if features.drops_faces else settings.face.size
    widths = (0 if encoder is None else encoder.width for encoder in (features.audio, features.face))
    return records.RecordShape(settings.audio.bins, size, size, *widths, waveform=settings.audio.waveform)


def write_manifest(output: str, rows: list[dict]) -> None:
    """manifest.csv: a row for each clip, in order."""
    text = io.StringIO(newline="")
    # A lone return is left bare by Python before 3.13, and ends the row where it is read.
    lone = any("\r" in str(value) for row in rows for value in row.values())
    quoting = csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(os.path.join(output, "manifest.csv"), text.getvalue().encode())


def write_prep(
    output: str,
    corpus: Corpus,
    settings: PrepSettings,
    plan: Plan,
    notes: list[dict],
    rows: list[dict],
) -> None:
    """prep.json: all that is needed to read the records, and to make them again."""
    sources = hashlib.sha256("".join(f"{row['path']}\0{row['sha256']}\n" for row in rows).encode())
    shape = record_shape(settings)
    optional = {k: v for k in records.OPTIONAL if (v := getattr(shape, k))}
    values = {
        "schema_version": shape.schema_version,
        "corpus": corpus.name,
        "dataset": plan.dataset,
        "classes": list(corpus.classes),
        "speakers": sorted({clip.speaker for clip in corpus.clips}),
        "sex": dict(sorted(corpus.sex.items())),
        "class_map": corpus.class_map,
        "settings": settings.to_dict(),
        "shape": {"f": shape.f, "h": shape.h, "w": shape.w, **optional},
        "frames": settings.face.frames,
        "versions": versions(settings),
        "sources_sha256": sources.hexdigest(),
        "notes": list(corpus.notes),
        "shards": [
            {"name": plan.name(i), "records": note["records"], "sha256": note["sha256"]}
            for i, note in enumerate(notes)
        ],
    }
    write_json(os.path.join(output, "prep.json"), values)


def write_encoder_paths(output: str, encoders: EncoderFiles) -> None:
    """Where an export may look for the ONNX files; their hashes stand in prep.json."""
    paths = {k: os.path.abspath(v) for k in onnx_files.FLAGS if (v := getattr(encoders, k))}
    if paths:
        write_json(os.path.join(output, records.ENCODER_PATHS), paths)


def write_splits(output: str, corpus: Corpus, rows: list[dict]) -> dict[tuple[str, int], dict]:
    """splits/<protocol>/fold_<i>.json and protocols/<protocol>.json; the folds by protocol and number."""
    os.makedirs(os.path.join(output, "splits"), exist_ok=True)
    folds = {}
    for protocol in protocols(corpus):
        write_json(os.path.join(output, "protocols", f"{protocol.name}.json"), _described(corpus, protocol))
        for i in range(len(protocol.folds)):
            parts = folds[protocol.name, i] = make_fold(protocol, i, rows, corpus.sex)
            write_json(os.path.join(output, "splits", protocol.name, f"fold_{i}.json"), parts)
    return folds


def _described(corpus: Corpus, protocol: Protocol) -> dict:
    """A protocol as data_prep/protocols/*.json have it."""
    values = {"corpus": corpus.name, "speakers": protocol.speakers, "folds": protocol.folds}
    return values | ({"validation": protocol.validation} if protocol.validation else {})


def write_stats(output: str, names: list[str], folds: dict, shape: records.RecordShape) -> None:
    """stats/<protocol>/fold_<i>.npz with `mean` and `std` [f] over the fold's training clips.

    `names`: the shards; `folds`: lists of clip_ids by protocol and number.
    """
    stored = (
        records.decode(data, shape) for name in names for data in read_shard(os.path.join(output, name))
    )
    for (protocol, i), values in fold_statistics(stored, folds, shape.f).items():
        file = io.BytesIO()
        np.savez(file, **values)
        write_atomic(os.path.join(output, "stats", protocol, f"fold_{i}.npz"), file.getvalue())


def write_tfds(output: str, corpus: Corpus, settings: PrepSettings, plan: Plan, notes: list[dict]) -> None:
    """features.json and dataset_info.json, so that `tfds.builder_from_directory` opens the shards."""
    os.environ.setdefault("TFDS_DISABLE_TELEMETRY", "1")
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=output, dataset_name=plan.dataset, split=records.SPLIT, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=records.SPLIT,
        shard_lengths=[note["records"] for note in notes],
        num_bytes=sum(note["bytes"] for note in notes),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=output,
        features=_features(tfds.features, len(corpus.classes), corpus.classes, settings),
        split_infos=[split],
        version="1.0.0",
        check_data=False,
    )


def _features(features, c: int, classes: tuple[str, ...], settings: PrepSettings):
    s, shape = settings.face.frames, record_shape(settings)

    def tensor(shape, dtype):
        return features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

    encoded = {}
    if shape.audio_features:
        encoded["audio_features"] = tensor((None, shape.audio_features), np.float16)
    if shape.face_features:
        encoded["face_features"] = tensor((s, shape.face_features), np.float16)
    if shape.waveform:
        encoded["waveform"] = tensor((None,), np.int16)
    return features.FeaturesDict(
        {
            "clip_id": features.Text(),
            "speaker": features.Text(),
            "corpus": features.Text(),
            "label": features.ClassLabel(names=list(classes)) if c else features.Scalar(np.int64),
            "votes": tensor((c,), np.float32),
            "spectrogram": tensor((None, settings.audio.bins), np.float16),
            "faces": tensor((s, shape.h, shape.w, 3), np.uint8),
            "face_valid": tensor((s,), np.bool_),
            "face_time": tensor((s,), np.float32),
            "face_box": tensor((s, 4), np.float32),
            "face_landmarks": tensor((s, 5, 2), np.float32),
            "face_score": tensor((s,), np.float32),
            "audio_ok": features.Scalar(np.bool_),
            "video_ok": features.Scalar(np.bool_),
            **encoded,
        }
    )
