"""Writes records of synthetic features, as if from frozen encoders; each class shifts some features."""

import csv
import dataclasses
import os

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_prep.onnx_models.encoder_settings import EncoderSettings, FeatureSettings
from data_prep.onnx_models.layouts import AudioLayout, FaceLayout
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data import records
from emofuse_jax.utils.files import write_json


@dataclasses.dataclass(frozen=True)
class CorpusSpec:
    """Sizes of a synthetic corpus."""

    clips: int
    """Number of clips."""
    speakers: int
    """Number of speakers."""
    folds: int
    """Number of folds."""
    classes: int
    """Number of classes."""
    steps: int
    """Largest number of audio feature vectors of a clip."""
    audio: int
    """Width of the audio features."""
    frames: int
    """Number of frames of a clip."""
    face: int
    """Width of the face features."""
    shift: float = 0.6
    """Difference that a class makes to some features, whose standard deviation is 1."""


def write_features(path: str, corpus_spec: CorpusSpec, shards: int = 1) -> str:
    """Writes a directory of records with the protocol `made_folds` and returns `path`.

    Each fold tests another group of speakers; the first two speakers of the next group are its validation
    speakers.

    Args:
      path: The directory, which is created.
      corpus_spec: Sizes of the corpus.
      shards: Number of shards of equal size; clips that do not fill a shard are dropped.
    """
    os.makedirs(path, exist_ok=True)
    rows, shard_size = [], corpus_spec.clips // shards
    for shard in range(shards):
        name = records.shard_name("made", shard, shards)
        writer = ArrayRecordWriter(os.path.join(path, name), records.WRITER_OPTIONS)
        for i in range(shard * shard_size, (shard + 1) * shard_size):
            record = make_clip(corpus_spec, i)
            writer.write(records.encode(record))
            rows.append((record.clip_id, i, record.speaker, "kept", record.label))
        writer.close()
    with open(os.path.join(path, "manifest.csv"), "w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "index", "speaker", "status", "label"), *rows])
    write_json(os.path.join(path, "prep.json"), make_prep(corpus_spec, [shard_size] * shards))
    speaker_names = [f"s{i:02d}" for i in range(corpus_spec.speakers)]
    for fold in range(corpus_spec.folds):
        test_speakers = set(speaker_names[fold :: corpus_spec.folds])
        speakers_by_split = {
            "test": test_speakers,
            "validation": set(speaker_names[(fold + 1) % corpus_spec.folds :: corpus_spec.folds][:2]),
        }
        speakers_by_split["train"] = set(speaker_names) - test_speakers - speakers_by_split["validation"]
        clip_ids_by_split = {
            split: [row[0] for row in rows if row[2] in speakers]
            for split, speakers in speakers_by_split.items()
        }
        write_json(os.path.join(path, "splits", "made_folds", f"fold_{fold}.json"), clip_ids_by_split)
        os.makedirs(os.path.join(path, "stats", "made_folds"), exist_ok=True)
        name = os.path.join(path, "stats", "made_folds", f"fold_{fold}.npz")
        np.savez(name, mean=np.zeros(200, np.float32), std=np.ones(200, np.float32))
    return path


def make_clip(corpus_spec: CorpusSpec, i: int) -> records.Record:
    """Returns the record of clip `i`; its class is `i` modulo the number of classes."""
    rng, label = np.random.default_rng(i), i % corpus_spec.classes
    steps = int(rng.integers(max(1, corpus_spec.steps // 2), corpus_spec.steps + 1))
    audio, face = (
        rng.normal(size=(steps, corpus_spec.audio)),
        rng.normal(size=(corpus_spec.frames, corpus_spec.face)),
    )
    for stream in (audio, face):
        stream[:, label :: corpus_spec.classes] += corpus_spec.shift
    s = corpus_spec.frames
    return records.Record(
        clip_id=f"clip{i:05d}",
        speaker=f"s{i // corpus_spec.classes % corpus_spec.speakers:02d}",
        corpus="made",
        label=label,
        votes=np.eye(corpus_spec.classes, dtype=np.float32)[label],
        spectrogram=np.zeros((0, 200), np.float16),
        faces=np.zeros((s, 0, 0, 3), np.uint8),
        face_valid=np.ones(s, bool),
        face_time=np.arange(s, dtype=np.float32),
        face_box=np.zeros((s, 4), np.float32),
        face_landmarks=np.zeros((s, 5, 2), np.float32),
        face_score=np.ones(s, np.float32),
        audio_ok=True,
        video_ok=True,
        audio_features=audio.astype(np.float16),
        face_features=face.astype(np.float16),
    )


def make_prep(corpus_spec: CorpusSpec, shard_sizes: list[int]) -> dict:
    """Returns the content of prep.json for records that store only features.

    `shard_sizes` are the numbers of records of the shards.
    """
    audio_layout = AudioLayout("x", "y", "waveform", "none", hop_ms=20.0, minimum_ms=25.0)
    face_layout = FaceLayout("x", "y", "nchw", 112, "rgb", 1 / 255, mean=[0.0] * 3, std=[1.0] * 3)
    encoders = {
        "audio": EncoderSettings("made.onnx", "0" * 64, corpus_spec.audio, audio_layout),
        "face": EncoderSettings("made.onnx", "0" * 64, corpus_spec.face, face_layout),
    }
    settings = PrepSettings(
        "features", face=FaceSettings(frames=corpus_spec.frames), features=FeatureSettings("drop", **encoders)
    )
    return {
        "schema_version": records.SCHEMA_VERSION,
        "corpus": "made",
        "classes": [f"class{i}" for i in range(corpus_spec.classes)],
        "speakers": [f"s{i:02d}" for i in range(corpus_spec.speakers)],
        "shape": dataclasses.asdict(records.RecordShape(200, 0, 0, corpus_spec.audio, corpus_spec.face)),
        "settings": settings.to_dict(),
        "shards": [{"records": size} for size in shard_sizes],
        **{"sex": {}, "notes": [], "sources_sha256": "", "versions": {}},
    }
