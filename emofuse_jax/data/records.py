"""One clip as bytes: a serialised ``tf.train.Example``, in ArrayRecord shards that TFDS can open too.

Layout (design.md, "Record"): text is UTF-8 in a bytes_list; ``label`` and the two flags are an int64_list;
every array is one bytes value, little-endian, C order, so that
``tfds.features.Tensor(encoding="bytes")`` reads the same bytes.
"""

import csv
import dataclasses
import os

import numpy as np

from emofuse_jax.data.example_codec import parse_example, serialise_example

SCHEMA_VERSION = 3
"""The newest that is read: 2 added the features of frozen encoders, 3 the waveform; without both it is 1."""
SPLIT = "clips"
ENCODER_PATHS = os.path.join(".prepare", "encoder_paths.json")
"""Where the ONNX files lay when the records were made; beside them, for it says nothing about them."""
WRITER_OPTIONS = "group_size:1,uncompressed"
"""Raw records: random reads are about four times faster than compressed ones (dependencies.md)."""

_TEXT = ("clip_id", "speaker", "corpus")
_INTEGERS = {"label": int, "audio_ok": bool, "video_ok": bool}
_ARRAYS = {
    "votes": np.float32,
    "spectrogram": np.float16,
    "faces": np.uint8,
    "face_valid": np.bool_,
    "face_time": np.float32,
    "face_box": np.float32,
    "face_landmarks": np.float32,
    "face_score": np.float32,
}
OPTIONAL = {"audio_features": np.float16, "face_features": np.float16, "waveform": np.int16}
"""Arrays that a record has where the preparation was asked for them."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One clip as arrays: `t` spectrogram frames of `f` bins, `s` face crops of `h` x `w`, `c` classes."""

    clip_id: str
    speaker: str
    corpus: str
    label: int
    """Index into the dataset's class names; -1 is unlabelled."""
    votes: np.ndarray  # f32 [c]
    spectrogram: np.ndarray  # f16 [t f], log magnitude; [0 f] where only features are stored
    faces: np.ndarray  # u8 [s h w 3]; zeros where no face was found; [s 0 0 3] where only features are stored
    face_valid: np.ndarray  # bool [s]
    face_time: np.ndarray  # f32 [s], seconds
    face_box: np.ndarray  # f32 [s 4], x0 y0 x1 y1 in pixels of the source frame
    face_landmarks: np.ndarray  # f32 [s 5 2], x y in pixels of the source frame
    face_score: np.ndarray  # f32 [s]
    audio_ok: bool
    video_ok: bool
    notes: str = ""
    """Remarks of the preparation; goes to the manifest, not to disk."""
    audio_features: np.ndarray | None = None  # f16 [u d], of a frozen encoder; [0 d] where it failed
    face_features: np.ndarray | None = None  # f16 [s d], of a frozen encoder; zeros where no face was found
    waveform: np.ndarray | None = None  # i16 [n], mono, full scale is 32767; [0] where the sound is masked


@dataclasses.dataclass(frozen=True)
class RecordShape:
    """The dimensions that are fixed over a dataset."""

    f: int
    h: int
    w: int
    audio_features: int = 0
    """Width of the features; 0 where there are none."""
    face_features: int = 0
    waveform: bool = False

    @property
    def schema_version(self) -> int:
        """What prep.json says, so that an older emofuse refuses only what it can't read."""
        if self.waveform:
            return 3
        return 2 if self.audio_features or self.face_features else 1


def encode(record: Record) -> bytes:
    """Serialises a record; equal records give equal bytes."""
    values = {name: getattr(record, name).encode() for name in _TEXT}
    values |= {name: int(getattr(record, name)) for name in _INTEGERS}
    optional = {name: dtype for name, dtype in OPTIONAL.items() if getattr(record, name) is not None}
    for name, dtype in (_ARRAYS | optional).items():
        array = np.ascontiguousarray(getattr(record, name))
        if array.dtype != dtype:
            raise ValueError(f"{record.clip_id}: field {name} is {array.dtype}, expected {np.dtype(dtype)}")
        values[name] = array
    return serialise_example(values)


def decode(data: bytes, shape: RecordShape) -> Record:
    """Parses a record; arrays are read-only views of `data`. Raises ValueError naming the wrong field."""
    found = parse_example(data)
    values = {name: _text(found, name) for name in _TEXT}
    values |= {name: kind(_one(found, name, int)) for name, kind in _INTEGERS.items()}
    arrays = _ARRAYS | {name: dtype for name, dtype in OPTIONAL.items() if getattr(shape, name)}
    raw = {name: _one(found, name, memoryview) for name in arrays}
    s = len(raw["face_valid"])
    shapes = {
        "votes": (-1,),
        "spectrogram": (-1, shape.f),
        "faces": (s, shape.h, shape.w, 3),
        "face_valid": (s,),
        "face_time": (s,),
        "face_box": (s, 4),
        "face_landmarks": (s, 5, 2),
        "face_score": (s,),
        "audio_features": (-1, shape.audio_features),
        "face_features": (s, shape.face_features),
        "waveform": (-1,),
    }
    values["label"] = _label(values, len(raw["votes"]) // 4)
    for name, dtype in arrays.items():
        try:
            values[name] = np.frombuffer(raw[name], dtype).reshape(shapes[name])
        except ValueError as error:
            raise ValueError(f"{values['clip_id']}: field {name}: {error}") from error
    return Record(**values)


def _text(found: dict[str, list], name: str) -> str:
    try:
        return str(_one(found, name, memoryview), "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not a record: field {name}: {error}") from error


def _label(values: dict, classes: int) -> int:
    if not -1 <= values["label"] < max(classes, 1):
        raise ValueError(f"{values['clip_id']}: field label: {values['label']}, expected -1 to {classes - 1}")
    return values["label"]


def _one(found: dict[str, list], name: str, kind: type):
    values = found.get(name, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise ValueError(f"not a record: field {name} has {len(values)} values, expected one {kind.__name__}")
    return values[0]


def comparable(settings: dict) -> dict:
    """Settings of prep.json as they are compared: without the names of ONNX files, whose hash decides."""
    features = settings.get("features")
    if not features:
        return settings
    named = {kind: one for kind, one in features.items() if isinstance(one, dict)}
    unnamed = {kind: {k: v for k, v in one.items() if k != "file"} for kind, one in named.items()}
    return settings | {"features": features | unnamed}


def shard_name(dataset: str, index: int, count: int) -> str:
    """File name of a shard as TFDS names it; `dataset` holds no dash."""
    return f"{dataset}-{SPLIT}.array_record-{index:05d}-of-{count:05d}"


def shard_paths(directory: str) -> list[str]:
    """All shards of a dataset in order; raises FileNotFoundError when none or not all are there."""
    marker = f"-{SPLIT}.array_record-"
    names = sorted(name for name in os.listdir(directory) if marker in name and not name.endswith(".tmp"))
    if not names:
        raise FileNotFoundError(f"{directory}: no '*{marker}*' shards; run emofuse prepare first")
    count = int(names[0].rsplit("-of-", 1)[1])
    dataset = names[0].split(marker)[0]
    expected = [shard_name(dataset, i, count) for i in range(count)]
    missing = sorted(set(expected) - set(names))
    if missing:
        raise FileNotFoundError(f"{directory}: shard {missing[0]} is missing ({len(missing)} of {count})")
    return [os.path.join(directory, name) for name in expected]


def read_manifest(directory: str) -> list[dict[str, str]]:
    """Rows of manifest.csv, one for each clip, failed ones too; values as they stand in the file."""
    with open(os.path.join(directory, "manifest.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
