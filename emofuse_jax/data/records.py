"""One clip as bytes: a serialised ``tf.train.Example``, in ArrayRecord shards that TFDS can open too.

Layout: text is UTF-8 in a bytes_list; ``label`` and the two flags are an int64_list; every array is one bytes
value, little-endian, C order, so that ``tfds.features.Tensor(encoding="bytes")`` reads the same bytes.
"""

import csv
import dataclasses
import os

import numpy as np

from emofuse_jax.data.example_codec import parse_example, serialize_example

SCHEMA_VERSION = 4
"""The schema that is written, and the only one that is read."""
TFDS_SPLIT = "clips"
ENCODER_PATHS_FILE = os.path.join(".prepare", "encoder_paths.json")
"""Where the ONNX files lay when the records were made; beside them, for it says nothing about them."""
WRITER_OPTIONS = "group_size:1,uncompressed"
"""Raw records: random reads are about four times faster than compressed ones."""

_TEXT_FIELDS = ("clip_id", "speaker", "corpus")
_INTEGER_FIELDS = {"label": int, "audio_ok": bool, "video_ok": bool}
_ARRAY_DTYPES = {
    "votes": np.float32,
    "spectrogram": np.float16,
    "faces": np.uint8,
    "face_valid": np.bool_,
    "face_time": np.float32,
    "face_box": np.float32,
    "face_landmarks": np.float32,
    "face_score": np.float32,
}
OPTIONAL_ARRAY_DTYPES = {"audio_features": np.float16, "face_features": np.float16, "waveform": np.int16}
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


def encode(record: Record) -> bytes:
    """Serialises a record; equal records give equal bytes."""
    values = {name: getattr(record, name).encode() for name in _TEXT_FIELDS}
    values |= {name: int(getattr(record, name)) for name in _INTEGER_FIELDS}
    optional = {
        name: dtype for name, dtype in OPTIONAL_ARRAY_DTYPES.items() if getattr(record, name) is not None
    }
    for name, dtype in (_ARRAY_DTYPES | optional).items():
        array = np.ascontiguousarray(getattr(record, name))
        if array.dtype != dtype:
            raise ValueError(f"{record.clip_id}: field {name} is {array.dtype}, expected {np.dtype(dtype)}")
        values[name] = array
    return serialize_example(values)


def decode(data: bytes, shape: RecordShape) -> Record:
    """Parses a record; arrays are read-only views of `data`. Raises ValueError naming the wrong field."""
    features = parse_example(data)
    values = {name: _decode_text(features, name) for name in _TEXT_FIELDS}
    values |= {name: convert(_single_value(features, name, int)) for name, convert in _INTEGER_FIELDS.items()}
    arrays = _ARRAY_DTYPES | {
        name: dtype for name, dtype in OPTIONAL_ARRAY_DTYPES.items() if getattr(shape, name)
    }
    raw_arrays = {name: _single_value(features, name, memoryview) for name in arrays}
    s = len(raw_arrays["face_valid"])
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
    values["label"] = _validate_label(values, len(raw_arrays["votes"]) // 4)
    for name, dtype in arrays.items():
        try:
            values[name] = np.frombuffer(raw_arrays[name], dtype).reshape(shapes[name])
        except ValueError as error:
            raise ValueError(f"{values['clip_id']}: field {name}: {error}") from error
    return Record(**values)


def _decode_text(features: dict[str, list], name: str) -> str:
    try:
        return str(_single_value(features, name, memoryview), "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not a record: field {name}: {error}") from error


def _validate_label(values: dict, class_count: int) -> int:
    if not -1 <= values["label"] < max(class_count, 1):
        raise ValueError(
            f"{values['clip_id']}: field label: {values['label']}, expected -1 to {class_count - 1}"
        )
    return values["label"]


def _single_value(features: dict[str, list], name: str, expected_type: type):
    values = features.get(name, [])
    if len(values) != 1 or not isinstance(values[0], expected_type):
        raise ValueError(
            f"not a record: field {name} has {len(values)} values, expected one {expected_type.__name__}"
        )
    return values[0]


def comparable_settings(settings: dict) -> dict:
    """Returns settings of prep.json as they are compared: without names of ONNX files, whose hash decides."""
    features = settings["features"]
    encoders = {kind: encoder for kind, encoder in features.items() if isinstance(encoder, dict)}
    encoders_without_files = {
        kind: {k: v for k, v in encoder.items() if k != "file"} for kind, encoder in encoders.items()
    }
    return settings | {"features": features | encoders_without_files}


def shard_name(dataset: str, index: int, shard_count: int) -> str:
    """File name of a shard as TFDS names it; `dataset` holds no dash."""
    return f"{dataset}-{TFDS_SPLIT}.array_record-{index:05d}-of-{shard_count:05d}"


def shard_paths(directory: str) -> list[str]:
    """All shards of a dataset in order; raises FileNotFoundError when none or not all are there."""
    marker = f"-{TFDS_SPLIT}.array_record-"
    names = sorted(name for name in os.listdir(directory) if marker in name and not name.endswith(".tmp"))
    if not names:
        raise FileNotFoundError(f"{directory}: no '*{marker}*' shards; run emofuse prepare first")
    shard_count = int(names[0].rsplit("-of-", 1)[1])
    dataset = names[0].split(marker)[0]
    expected = [shard_name(dataset, i, shard_count) for i in range(shard_count)]
    missing_shards = sorted(set(expected) - set(names))
    if missing_shards:
        raise FileNotFoundError(
            f"{directory}: shard {missing_shards[0]} is missing ({len(missing_shards)} of {shard_count})"
        )
    return [os.path.join(directory, name) for name in expected]


def read_manifest(directory: str) -> list[dict[str, str]]:
    """Rows of manifest.csv, one for each clip, failed ones too; values as they stand in the file."""
    with open(os.path.join(directory, "manifest.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
