"""Types of the files in a directory of records: prep.json, the rows of manifest.csv, the shard markers.

docs/formats.md describes their fields. The classes describe JSON objects, which are plain dicts at run time.
"""

from collections.abc import Sequence
from typing import Generic, Literal, NotRequired, TypedDict, TypeVar, get_args

ManifestStrings = dict[str, str]
"""A row of manifest.csv as it is read: the text of each column, by column name; numbers are not converted."""
ClipStatus = Literal["kept", "masked", "failed"]
"""`kept`: audio and video are usable; `masked`: only one of them is; `failed`: there is no record."""
Split = Literal["train", "validation", "test"]
"""Name of a split of a fold."""
SPLITS: tuple[Split, ...] = get_args(Split)


class AudioSettingsDict(TypedDict):
    """Settings of an audio frontend; the fields of `data_prep.settings.AudioSettings`."""

    frontend: str
    sample_rate: int
    window_ms: float
    hop_ms: float
    window: str
    dft: int
    bins: int
    floor: float
    waveform: bool
    trim_db: float


class FaceSettingsDict(TypedDict):
    """Settings of frame sampling, face detection and alignment; as `data_prep.settings.FaceSettings`."""

    detector: str
    frames: int
    sampling: str
    size: int
    margin: float
    min_face: float
    min_score: float
    snippet: int
    device: str


class NormalisationDict(TypedDict):
    """Mean and standard deviation of an audio encoder's input: one number, or one for each bin."""

    mean: float | list[float]
    std: float | list[float]


class AudioLayoutDict(TypedDict):
    """Layout of an audio encoder; the fields of `data_prep.onnx_models.layouts.AudioLayout`."""

    input: str
    output: str
    layout: str
    normalisation: str | NormalisationDict
    hop_ms: float
    minimum_ms: float


class FaceLayoutDict(TypedDict):
    """Layout of a face encoder; the fields of `data_prep.onnx_models.layouts.FaceLayout`."""

    input: str
    output: str
    layout: str
    size: int
    channels: str
    scale: float
    mean: list[float]
    std: list[float]


class DetectorLayoutDict(TypedDict):
    """Layout of a face detector; the fields of `data_prep.onnx_models.layouts.DetectorLayout`."""

    input: str
    boxes: str
    scores: str
    landmarks: str
    units: str
    score: float
    layout: str
    size: list[int]
    channels: str
    scale: float
    mean: list[float]
    std: list[float]


LayoutT = TypeVar("LayoutT", AudioLayoutDict, FaceLayoutDict, DetectorLayoutDict)
"""One of the three kinds of layout."""


class EncoderSettingsDict(TypedDict, Generic[LayoutT]):
    """Settings of one frozen encoder or detector; as `data_prep.onnx_models.encoder_settings`."""

    file: str
    sha256: str
    width: int
    layout: LayoutT


class FeatureSettingsDict(TypedDict):
    """Settings of all frozen encoders; None for each that is not used."""

    tensors: str
    audio: EncoderSettingsDict[AudioLayoutDict] | None
    face: EncoderSettingsDict[FaceLayoutDict] | None
    detector: EncoderSettingsDict[DetectorLayoutDict] | None


class PrepSettingsDict(TypedDict):
    """All settings of a preparation (`data_prep.settings.PrepSettings`); also in checkpoints and bundles."""

    recipe: str
    audio: AudioSettingsDict
    face: FaceSettingsDict
    features: FeatureSettingsDict


class RecordShapeDict(TypedDict):
    """Dimensions that all records share; the fields of `data.records.RecordShape`."""

    f: int
    h: int
    w: int
    audio_features: int
    face_features: int
    waveform: bool


class ShardEntry(TypedDict):
    """One shard in prep.json."""

    name: str
    """File name."""
    records: int
    """Number of records."""
    sha256: str


class PrepMetadata(TypedDict):
    """Content of prep.json."""

    schema_version: int
    corpus: str
    dataset: str
    """First part of the shards' file names."""
    classes: list[str]
    """Class names in the order of the labels."""
    speakers: list[str]
    """Sorted names of all speakers."""
    sex: dict[str, str]
    """'f' or 'm' for each speaker whose sex is known."""
    class_map: dict[str, str]
    """Name of a class in `classes` for each class name of the corpus."""
    settings: PrepSettingsDict
    shape: RecordShapeDict
    frames: int
    """Number of face crops of a clip."""
    versions: dict[str, str]
    """Versions of the packages that determine the content of the records."""
    sources_sha256: str
    """Hash over the paths and hashes of all source files."""
    notes: list[str]
    """Remarks on the corpus, such as missing files."""
    shards: list[ShardEntry]


class ManifestRow(TypedDict):
    """A row of manifest.csv before it is written, and in a shard marker; see also `ManifestStrings`."""

    clip_id: str
    path: str
    """Path of the media file, relative to the folder of the corpus; empty for clips that were arrays."""
    speaker: str
    take: str
    """Name of the recording, which several clips may share."""
    label: int
    """Index into the classes; -1 is unlabelled."""
    status: ClipStatus
    reason: str
    sha256: str
    """Hash of the media file; empty for clips that were arrays."""
    start: NotRequired[float | None]
    """Start of the clip in seconds of the file; None: its beginning."""
    end: NotRequired[float | None]
    """End of the clip in seconds of the file; None: its end."""
    shard: NotRequired[int]
    """Number of the shard; -1 without a record. This and the next two are not in shard markers."""
    row: NotRequired[int]
    """Number of the record in its shard; -1 without a record."""
    index: NotRequired[int]
    """Number of the record in the dataset; -1 without a record."""


class ShardFileFields(TypedDict):
    """Contents of the marker file of a complete shard."""

    records: int
    """Number of records."""
    bytes: int
    """Size of the file."""
    sha256: str


class ShardMarker(ShardFileFields):
    """Content of the marker file of a complete shard."""

    rows: list[ManifestRow]
    """Rows of the manifest for all clips of the shard, also for those without a record."""


class FoldParts(TypedDict):
    """Content of splits/<protocol>/fold_<i>.json: the clip_ids of each part of a fold."""

    train: list[str]
    validation: list[str]
    test: list[str]
    leaks: NotRequired[list[str]]
    """Accepted leaks between the parts, one text each; only in custom splits."""


class ProtocolDict(TypedDict):
    """Content of protocols/<protocol>.json: test speakers of each fold of an evaluation protocol."""

    corpus: str
    speakers: Sequence[str]
    """All speakers that the protocol uses."""
    folds: Sequence[Sequence[str]]
    """Test speakers of each fold."""
    validation: NotRequired[Sequence[Sequence[str]]]
    """Validation speakers of each fold; if absent, a seeded selection."""


PrepIdentity = TypedDict(
    "PrepIdentity",
    {
        "schema_version": int,
        "corpus": str,
        "settings": PrepSettingsDict,
        "number of clips": int,
        "classes": list[str],
        "list of clips (sha256)": str,
        "shards": int,
        "versions": dict[str, str],
    },
)
"""Content of .prepare/identity.json: everything that must not change while a preparation is resumed."""
