"""Records of made features, as of frozen encoders: a class shifts a few of the numbers of both streams."""

import csv
import dataclasses
import json
import os

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_prep.onnx_models.encoder_settings import EncoderSettings, FeatureSettings
from data_prep.onnx_models.layouts import AudioLayout, FaceLayout
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data import records


@dataclasses.dataclass(frozen=True)
class Made:
    """Sizes of a made corpus."""

    clips: int
    speakers: int
    folds: int
    classes: int
    steps: int
    """Vectors of sound a clip."""
    audio: int
    frames: int
    face: int
    shift: float = 0.6


def write_features(path: str, made: Made, shards: int = 1) -> str:
    """Writes shards of equal size, prep.json, manifest.csv, and the protocol `made_folds`, its statistics.

    Speakers are tested in groups, one group a fold; the next group's first speaker is validation.
    """
    os.makedirs(path, exist_ok=True)
    rows, size = [], made.clips // shards
    for shard in range(shards):
        name = records.shard_name("made", shard, shards)
        writer = ArrayRecordWriter(os.path.join(path, name), records.WRITER_OPTIONS)
        for i in range(shard * size, (shard + 1) * size):
            record = make_clip(made, i)
            writer.write(records.encode(record))
            rows.append((record.clip_id, i, record.speaker, "kept", record.label))
        writer.close()
    with open(os.path.join(path, "manifest.csv"), "w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "index", "speaker", "status", "label"), *rows])
    write_json(os.path.join(path, "prep.json"), prep(made, [size] * shards))
    names = [f"s{i:02d}" for i in range(made.speakers)]
    for fold in range(made.folds):
        tested = set(names[fold :: made.folds])
        who = {"test": tested, "validation": set(names[(fold + 1) % made.folds :: made.folds][:2])}
        who["train"] = set(names) - tested - who["validation"]
        lists = {part: [row[0] for row in rows if row[2] in chosen] for part, chosen in who.items()}
        write_json(os.path.join(path, "splits", "made_folds", f"fold_{fold}.json"), lists)
        os.makedirs(os.path.join(path, "stats", "made_folds"), exist_ok=True)
        name = os.path.join(path, "stats", "made_folds", f"fold_{fold}.npz")
        np.savez(name, mean=np.zeros(200, np.float32), std=np.ones(200, np.float32))
    return path


def make_clip(made: Made, i: int) -> records.Record:
    """Clip `i`; every class of a speaker comes in turn."""
    rng, label = np.random.default_rng(i), i % made.classes
    steps = int(rng.integers(max(1, made.steps // 2), made.steps + 1))
    audio, face = rng.normal(size=(steps, made.audio)), rng.normal(size=(made.frames, made.face))
    for stream in (audio, face):
        stream[:, label :: made.classes] += made.shift
    s = made.frames
    return records.Record(
        clip_id=f"clip{i:05d}",
        speaker=f"s{i // made.classes % made.speakers:02d}",
        corpus="made",
        label=label,
        votes=np.eye(made.classes, dtype=np.float32)[label],
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


def prep(made: Made, shards: list[int]) -> dict:
    """prep.json of records that hold features alone; `shards`: how many records each has."""
    sound = AudioLayout("x", "y", "waveform", "none", hop_ms=20.0, minimum_ms=25.0)
    crops = FaceLayout("x", "y", "nchw", 112, "rgb", 1 / 255, mean=[0.0] * 3, std=[1.0] * 3)
    encoders = {
        "audio": EncoderSettings("made.onnx", "0" * 64, made.audio, sound),
        "face": EncoderSettings("made.onnx", "0" * 64, made.face, crops),
    }
    settings = PrepSettings(
        "features", face=FaceSettings(frames=made.frames), features=FeatureSettings("drop", **encoders)
    )
    return {
        "schema_version": records.SCHEMA_VERSION,
        "corpus": "made",
        "classes": [f"class{i}" for i in range(made.classes)],
        "speakers": [f"s{i:02d}" for i in range(made.speakers)],
        "shape": {"f": 200, "h": 0, "w": 0, "audio_features": made.audio, "face_features": made.face},
        "settings": settings.to_dict(),
        "shards": [{"records": size} for size in shards],
        **{"sex": {}, "notes": [], "sources_sha256": "", "versions": {}},
    }


def write_json(path: str, value: dict) -> None:
    """Writes a JSON file in a folder that is made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(value, file)
