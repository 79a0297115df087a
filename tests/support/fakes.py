"""A tiny prepared directory, written through the real codec: labels can be learned from both streams."""

import csv
import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_prep.settings import AudioSettings, FaceSettings, PrepSettings
from emofuse_jax.data import records

CLASSES = ("angry", "happy", "sad")


def make_record(i: int, *, bins=70, frames=4, size=16, num_speakers=4) -> records.Record:
    rng = np.random.default_rng(i)
    label, num_steps = i % len(CLASSES), int(rng.integers(90, 130))
    spectrogram = rng.normal(-4, 1, (num_steps, bins)).astype(np.float16)
    spectrogram[:, label * 10 : label * 10 + 10] += 3
    faces = rng.integers(0, 80, (frames, size, size, 3), dtype=np.uint8)
    faces[:, :, :, label] += 100
    valid = np.ones(frames, bool)
    valid[0] = i % 5 != 0
    return records.Record(
        clip_id=f"clip{i:03d}",
        speaker=f"s{i // len(CLASSES) % num_speakers}",
        corpus="fake",
        label=label,
        votes=np.eye(len(CLASSES), dtype=np.float32)[label],
        spectrogram=spectrogram,
        faces=faces * valid[:, None, None, None],
        face_valid=valid,
        face_time=np.arange(frames, dtype=np.float32),
        face_box=np.zeros((frames, 4), np.float32),
        face_landmarks=np.zeros((frames, 5, 2), np.float32),
        face_score=valid.astype(np.float32),
        audio_ok=True,
        video_ok=True,
    )


EMPTY_PREP_FIELDS = {"sex": {}, "notes": [], "sources_sha256": "", "versions": {}}
"""Fields of prep.json that made records have nothing to say in."""


def write_dataset(path: str, num_clips: int = 36, num_shards: int = 2) -> str:
    """Writes shards, prep.json, manifest.csv, one protocol of one fold, and its statistics."""
    fake_records = [make_record(i) for i in range(num_clips)]
    os.makedirs(path, exist_ok=True)
    for shard in range(num_shards):
        name = os.path.join(path, records.shard_name("fake", shard, num_shards))
        writer = ArrayRecordWriter(name, records.WRITER_OPTIONS)
        for record in fake_records[shard * num_clips // num_shards : (shard + 1) * num_clips // num_shards]:
            writer.write(records.encode(record))
        writer.close()
    settings = PrepSettings(audio=AudioSettings(bins=70), face=FaceSettings(frames=4, size=16))
    prep = {
        "schema_version": records.SCHEMA_VERSION,
        "corpus": "fake",
        "classes": list(CLASSES),
        "speakers": sorted({r.speaker for r in fake_records}),
        "shape": dataclasses.asdict(records.RecordShape(f=70, h=16, w=16)),
        "settings": settings.to_dict(),
        "shards": [
            {"records": (i + 1) * num_clips // num_shards - i * num_clips // num_shards}
            for i in range(num_shards)
        ],
        **EMPTY_PREP_FIELDS,
    }
    _write_json(os.path.join(path, "prep.json"), prep)
    with open(os.path.join(path, "manifest.csv"), "w", newline="") as file:
        csv_writer = csv.writer(file)
        csv_writer.writerow(["clip_id", "index", "speaker", "status", "label"])
        csv_writer.writerows([r.clip_id, i, r.speaker, "kept", r.label] for i, r in enumerate(fake_records))
    part_speakers = {"train": ("s0", "s1"), "validation": ("s2",), "test": ("s3",)}
    clip_ids = {
        part: [r.clip_id for r in fake_records if r.speaker in speakers]
        for part, speakers in part_speakers.items()
    }
    _write_json(os.path.join(path, "splits", "fake_1fold", "fold_0.json"), clip_ids)
    train_spectrograms = np.concatenate(
        [r.spectrogram for r in fake_records if r.speaker in part_speakers["train"]]
    ).astype(np.float32)
    os.makedirs(os.path.join(path, "stats", "fake_1fold"))
    np.savez(
        os.path.join(path, "stats", "fake_1fold", "fold_0.npz"),
        mean=train_spectrograms.mean(0),
        std=train_spectrograms.std(0),
    )
    return path


def add_folds(path: str, num_clips: int = 36, num_speakers: int = 4) -> None:
    """Adds `fake_folds`: every speaker is tested once, validated on by the one before; fold 0 has two."""
    fake_records = [make_record(i, num_speakers=num_speakers) for i in range(num_clips)]
    for fold in range(num_speakers - 1):
        test_speakers = {f"s{fold}"} if fold else {"s0", f"s{num_speakers - 1}"}
        validation_speaker = f"s{fold + 1}"
        part_speakers = {"test": test_speakers, "validation": {validation_speaker}}
        part_speakers["train"] = {r.speaker for r in fake_records} - test_speakers - {validation_speaker}
        clip_ids = {
            part: [r.clip_id for r in fake_records if r.speaker in speakers]
            for part, speakers in part_speakers.items()
        }
        _write_json(os.path.join(path, "splits", "fake_folds", f"fold_{fold}.json"), clip_ids)
        train_spectrograms = [r.spectrogram for r in fake_records if r.speaker in part_speakers["train"]]
        train_spectrograms = np.concatenate(train_spectrograms).astype(np.float32)
        os.makedirs(os.path.join(path, "stats", "fake_folds"), exist_ok=True)
        name = os.path.join(path, "stats", "fake_folds", f"fold_{fold}.npz")
        np.savez(name, mean=train_spectrograms.mean(0), std=train_spectrograms.std(0))


def _write_json(path: str, value: dict) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(value, file)


def tiny_config(path: str, fusion: str = "am_fbp", **fields):
    """A config small enough to train in seconds on the fake dataset; `fields` are dotted overrides."""
    import emofuse_jax as ef

    config = ef.settings.small(fusion)
    config.data.path, config.data.batch_size, config.data.audio_steps = path, 8, 140
    config.augment.frames, config.augment.shift = 3, 1
    config.model.audio.widths = (4, 8, 8, 8, 8)
    config.model.video.update(width=4, blocks=(1, 1), stem_kernel=3)
    fusion_sizes = {"width": 16, "factors": 2}.items()
    config.model.fusion.update({name: size for name, size in fusion_sizes if name in config.model.fusion})
    config.train.epochs, config.train.eval_batch_size = 4, 8
    config.update_from_flattened_dict(fields)
    return config


def random_parameters(model, seed: int) -> tuple[dict, dict]:
    """Parameters and statistics none of which is zero or one; compiling `init` would take seconds."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(("var", "std")):
            return jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype)
        fan_in = max(1, np.prod(leaf.shape[:-1], dtype=int))
        return jnp.asarray(rng.normal(0.0, fan_in**-0.5, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))
