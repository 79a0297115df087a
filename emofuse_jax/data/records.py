"""Encodes and decodes records: one clip is a serialised ``tf.train.Example`` in an ArrayRecord shard.

TFDS can open the same shards. Layout: text is UTF-8 in a bytes_list; ``label`` and the two flags are an
int64_list; every array is one bytes value, little-endian, in C order, as
``tfds.features.Tensor(encoding="bytes")`` reads it. docs/formats.md describes the files.
"""

import csv
import dataclasses
import os
from typing import TypeVar, cast

import numpy as np

from emofuse_jax.data.example_codec import (
    PASS_ENCODED_BYTES,
    Buffer,
    FeatureValues,
    parse_example,
    serialize_example,
)
from emofuse_jax.data.metadata import ClipStatus, ManifestStrings, PrepSettingsDict, RecordShapeDict

T = TypeVar("T")
RecordArrays = dict[str, np.ndarray]
"""Some of the arrays of a record, by the name of the field."""

SCHEMA_VERSION = 4
"""Schema of the records that are written, and the only one that can be read."""
TFDS_SPLIT = "clips"
"""Name of the only split that TFDS sees: all clips."""
ARRAYS_RECIPE = "arrays"
"""Recipe of records that `write_records` wrote from arrays; experiments of any recipe can train on them."""
ENCODER_PATHS_FILE = os.path.join(".prepare", "encoder_paths.json")
"""File with the paths of the ONNX models when the records were made; not part of prep.json, because the
records do not depend on these paths."""
WRITER_OPTIONS = "group_size:1,uncompressed"
"""Uncompressed records: random reads are about four times faster than with compression."""

REQUIRED_MANIFEST_COLUMNS = ("clip_id", "index", "speaker", "label", "status")
"""Columns that manifest.csv must have."""

_TEXT_FIELDS = ("clip_id", "speaker", "corpus")
_INTEGER_FIELDS = ("label", "audio_ok", "video_ok")
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
"""Arrays that records have only if the preparation was run with them."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One clip as arrays: `t` spectrogram frames of `f` bins, `s` face crops of `h` x `w`, `c` classes."""

    clip_id: str
    speaker: str
    corpus: str
    label: int
    """Index into the dataset's class names; -1 is unlabelled."""
    votes: np.ndarray  # f32 [c]
    spectrogram: np.ndarray  # f16 [t f], log magnitude; [0 f] if only features are stored
    faces: np.ndarray  # u8 [s h w 3]; zeros if no face was detected; [s 0 0 3] if only features are stored
    face_valid: np.ndarray  # bool [s]
    face_time: np.ndarray  # f32 [s], seconds
    face_box: np.ndarray  # f32 [s 4], x0 y0 x1 y1 in pixels of the source frame
    face_landmarks: np.ndarray  # f32 [s 5 2], x y in pixels of the source frame
    face_score: np.ndarray  # f32 [s]
    audio_ok: bool
    video_ok: bool
    notes: str = ""
    """Remarks of the preparation; stored in manifest.csv, not in the record."""
    audio_features: np.ndarray | None = None  # f16 [u d], of a frozen encoder; [0 d] if it failed
    face_features: np.ndarray | None = None  # f16 [s d], of a frozen encoder; zeros if no face was detected
    waveform: np.ndarray | None = None  # i16 [n], mono, full scale is 32767; [0] if the audio is masked

    @property
    def status(self) -> ClipStatus:
        """Status for manifest.csv: `kept` if `audio_ok` and `video_ok` are both True, otherwise `masked`."""
        return "kept" if self.audio_ok and self.video_ok else "masked"


@dataclasses.dataclass(frozen=True)
class Failure:
    """Result for a clip without a record."""

    reason: str
    """Why there is no record, in one line."""


@dataclasses.dataclass(frozen=True)
class RecordShape:
    """Dimensions that all records of a dataset share."""

    f: int
    """Number of frequency bins."""
    h: int
    """Height of a face crop in pixels."""
    w: int
    """Width of a face crop in pixels."""
    audio_features: int = 0
    """Width of the audio features; 0 if the records have none."""
    face_features: int = 0
    """Width of the face features; 0 if the records have none."""
    waveform: bool = False
    """True if the records have the waveform."""

    def to_dict(self) -> RecordShapeDict:
        """Returns a dict of all fields, as prep.json stores them.

        The keys are `f`, `h`, `w`, `audio_features`, `face_features` (sizes) and `waveform` (bool).
        """
        return cast(RecordShapeDict, dataclasses.asdict(self))


def encode(record: Record) -> bytes:
    """Returns a record as bytes, a serialised `tf.train.Example`; equal records give equal bytes.

    They contain all fields except `notes` and the optional arrays that are None.

    Raises:
      ValueError: An array has another dtype than the schema (names the clip and the field), or a name cannot
        be encoded as UTF-8.
    """
    values: dict[str, Buffer | int] = {name: getattr(record, name).encode() for name in _TEXT_FIELDS}
    values |= {name: int(getattr(record, name)) for name in _INTEGER_FIELDS}
    optional = {
        name: dtype for name, dtype in OPTIONAL_ARRAY_DTYPES.items() if getattr(record, name) is not None
    }
    for name, dtype in (_ARRAY_DTYPES | optional).items():
        array = np.ascontiguousarray(getattr(record, name))
        if array.dtype != dtype:
            raise ValueError(f"{record.clip_id}: field {name} is {array.dtype}, expected {np.dtype(dtype)}")
        values[name] = array.data
    return serialize_example(values)


def decode(data: bytes, shape: RecordShape) -> Record:
    """Returns the record that `encode` wrote; its arrays are read-only views of `data`.

    `audio_features`, `face_features` or `waveform` is None if `shape` says that the records have none;
    `notes` is empty.

    Raises:
      ValueError: `data` is not a record, or a field is missing or does not fit `shape`; names the field.
    """
    features = parse_example(data)
    texts = {name: _decode_text(features, name) for name in _TEXT_FIELDS}
    integers = {name: _single_value(features, name, int) for name in _INTEGER_FIELDS}
    dtypes = _ARRAY_DTYPES | {
        name: dtype for name, dtype in OPTIONAL_ARRAY_DTYPES.items() if getattr(shape, name)
    }
    raw_arrays = {name: _single_value(features, name, memoryview) for name in dtypes}
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
    _validate_label(texts["clip_id"], integers["label"], len(raw_arrays["votes"]) // 4)
    arrays: dict[str, np.ndarray] = {}
    for name, dtype in dtypes.items():
        try:
            arrays[name] = np.frombuffer(raw_arrays[name], dtype).reshape(shapes[name])
        except ValueError as error:
            raise ValueError(
                f"{texts['clip_id']}: field {name} does not fit the shape in prep.json: {error}; use the"
                " prep.json of the preparation that wrote this record, or prepare the clips again"
            ) from error
    return Record(
        clip_id=texts["clip_id"],
        speaker=texts["speaker"],
        corpus=texts["corpus"],
        label=integers["label"],
        votes=arrays["votes"],
        spectrogram=arrays["spectrogram"],
        faces=arrays["faces"],
        face_valid=arrays["face_valid"],
        face_time=arrays["face_time"],
        face_box=arrays["face_box"],
        face_landmarks=arrays["face_landmarks"],
        face_score=arrays["face_score"],
        audio_ok=bool(integers["audio_ok"]),
        video_ok=bool(integers["video_ok"]),
        audio_features=arrays.get("audio_features"),
        face_features=arrays.get("face_features"),
        waveform=arrays.get("waveform"),
    )


def _decode_text(features: dict[str, FeatureValues], name: str) -> str:
    """Returns the text of the feature `name`; raises ValueError if it is missing or not UTF-8."""
    try:
        return str(_single_value(features, name, memoryview), "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not a record or damaged: field {name} is not UTF-8: {error}; {PASS_ENCODED_BYTES}"
        ) from error


def _validate_label(clip_id: str, label: int, class_count: int) -> None:
    """Raises ValueError if a label is neither -1 nor an index of one of `class_count` classes.

    Without classes, 0 is valid too.
    """
    if not -1 <= label < max(class_count, 1):
        raise ValueError(
            f"{clip_id}: field label: {label}, expected -1 (no label) to {max(class_count, 1) - 1}, the last"
            " class in field votes; correct the label and encode the record again"
        )


def _single_value(features: dict[str, FeatureValues], name: str, expected_type: type[T]) -> T:
    """Returns the only value of the feature `name`.

    Raises ValueError if the feature is missing or does not have exactly one value of type `expected_type`.
    """
    values = features.get(name, [])
    if len(values) == 1 and isinstance(values[0], expected_type):
        return values[0]
    raise ValueError(
        f"not a record or damaged: field {name} has {len(values)} values, expected exactly one of type"
        f" {expected_type.__name__}; {PASS_ENCODED_BYTES}"
    )


def comparable_settings(settings: PrepSettingsDict) -> dict[str, object]:
    """Returns a copy of the settings of prep.json without `file` of each frozen encoder and detector.

    Two preparations are compared by these copies, so that only the hashes of the model files matter, not
    their names. Keys are those of `settings`: `recipe`, `audio`, `face` and `features`.
    """
    features = settings["features"]
    encoders = {kind: encoder for kind, encoder in features.items() if isinstance(encoder, dict)}
    encoders_without_files = {
        kind: {k: v for k, v in encoder.items() if k != "file"} for kind, encoder in encoders.items()
    }
    return {**settings, "features": {**features, **encoders_without_files}}


def shard_name(dataset: str, index: int, shard_count: int) -> str:
    """Returns the TFDS file name of a shard: `<dataset>-clips.array_record-<index>-of-<shard_count>`.

    Both numbers have five digits; `dataset` must not contain a dash, with which TFDS could not read the name;
    this is not checked.
    """
    return f"{dataset}-{TFDS_SPLIT}.array_record-{index:05d}-of-{shard_count:05d}"


def shard_paths(directory: str) -> list[str]:
    """Returns the paths of all shards in a directory, in order; each path begins with `directory`.

    Raises:
      FileNotFoundError: The directory does not exist, has no shards, or a shard is missing.
      OSError: The directory cannot be read.
      ValueError: The name of the first shard does not end in `-of-<number of shards>`, such as `-of-00005`.
    """
    marker = f"-{TFDS_SPLIT}.array_record-"
    names = sorted(name for name in os.listdir(directory) if marker in name and not name.endswith(".tmp"))
    if not names:
        raise FileNotFoundError(f"{directory}: no '*{marker}*' shards; run emofuse prepare first")
    count_text = names[0].rpartition("-of-")[2]
    if not count_text.isdecimal():
        raise ValueError(
            f"{directory}/{names[0]}: expected a name that ends in -of-<number of shards>; restore the name,"
            " or prepare the clips again"
        )
    shard_count = int(count_text)
    dataset = names[0].split(marker)[0]
    expected = [shard_name(dataset, i, shard_count) for i in range(shard_count)]
    missing_shards = sorted(set(expected) - set(names))
    if missing_shards:
        raise FileNotFoundError(
            f"{directory}: shard {missing_shards[0]} is missing ({len(missing_shards)} of {shard_count}"
            " shards are missing); run emofuse prepare again"
        )
    return [os.path.join(directory, name) for name in expected]


def read_manifest(directory: str) -> list[ManifestStrings]:
    """Returns the rows of manifest.csv as dicts of strings, one for each clip, including failed clips.

    The keys are the columns of the file; `clip_id`, `index`, `speaker`, `label` and `status` are always
    present. `emofuse prepare` also writes `path`, `reason`, `shard`, `row`, `sha256`, `take`, `start` and
    `end`. Values are not validated.

    Raises:
      OSError: The file is missing or cannot be read.
      ValueError: The file is not a CSV file in UTF-8, one of these five columns is missing, or a row has
        another number of columns than the first row; the message begins with the path of the file.
    """
    path = os.path.join(directory, "manifest.csv")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8: {error}; prepare the clips again") from error
    for column in REQUIRED_MANIFEST_COLUMNS:
        if column not in columns:
            raise ValueError(f"{path}: no column {column!r}; prepare the clips again")
    for line_number, row in rows:
        if None in row or None in row.values():
            raise ValueError(
                f"{path}: row {line_number}: expected {len(columns)} columns, as in row 1; prepare the clips"
                " again"
            )
    return [row for _, row in rows]
