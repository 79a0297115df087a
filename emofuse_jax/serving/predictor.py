"""Media in, answers out: windows of a file, each prepared exactly as training clips are, then one batch.

Media need the `prep` extra; it is imported only when a file is opened.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np

from emofuse_jax import onnx_files
from emofuse_jax.serving.bundle import Bundle
from emofuse_jax.serving.windows import cut_windows

BUCKETS = (1, 2, 4, 8)
"""Batch sizes that are compiled; a batch is padded to the next one."""
UNKNOWN = "unknown"
"""The label of an answer that is less sure than asked for."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one window of a file."""

    path: str
    start: float
    """Seconds from the beginning of the file."""
    end: float
    label: str
    confidence: float
    """The highest probability, calibrated on validation clips: that of `label` unless it is `unknown`."""
    probabilities: dict[str, float]
    voice_weight: float | None
    """How much the fusion let the voice count, 0 to 1; None where the fusion has no such weight."""
    face_weight: float | None
    audio_ok: bool
    """False: no usable sound; the answer rests on the face alone."""
    video_ok: bool
    notes: str = ""
    """Remarks of the preparation, such as which of several faces was used."""

    def to_json(self) -> dict:
        """The JSON line of design.md; `notes` only where there are any."""
        fields = dataclasses.asdict(self)
        return fields if self.notes else {k: v for k, v in fields.items() if k != "notes"}


@dataclasses.dataclass(frozen=True)
class Gap:
    """A window that has no answer, in a file whose other windows have."""

    path: str
    start: float
    end: float
    error: str

    def to_json(self) -> dict:
        """As a JSON line."""
        return dataclasses.asdict(self)


def predict_file(bundle: Bundle, path: str, *, min_confidence: float = 0.0) -> list[Prediction | Gap]:
    """Answers for every window of a media file, in order.

    Args:
      bundle: a loaded one.
      path: of the file.
      min_confidence: an answer whose highest probability is lower has the label `unknown`.

    Raises:
      ValueError: the file cannot be used at all (missing, empty, not media, truncated, nothing to hear or
        see), or the `prep` extra is not installed; one line that names the file.
    """
    from data_prep.extras import require_media

    require_media()
    check_encoders(bundle)
    if not 0.0 <= min_confidence <= 1.0:
        raise ValueError(f"min_confidence: {min_confidence}, expected a probability")
    try:
        answers = [surer(answer, min_confidence) for answer in _answers(bundle, path)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if all(isinstance(answer, Gap) for answer in answers):
        raise ValueError(f"{path}: {answers[0].error}")
    return answers


def surer(answer: Prediction | Gap, least: float) -> Prediction | Gap:
    """The answer, with the label `unknown` where its confidence is below `least`."""
    unsure = isinstance(answer, Prediction) and answer.confidence < least
    return dataclasses.replace(answer, label=UNKNOWN) if unsure else answer


def check_encoders(bundle: Bundle) -> None:
    """ValueError, one line, where an encoder that the model reads, or what runs it, is not at hand."""
    from data_prep.extras import require_onnx

    encoders = bundle.metadata.get("encoders", {})
    if encoders:
        require_onnx()
    for kind, named in encoders.items():
        if not bundle.encoders.get(kind):
            raise ValueError(
                f"{bundle.path}: does not carry its {onnx_files.NAMES[kind]} {named['file']}: give"
                f" --{onnx_files.FLAGS[kind]}=FILE with sha256 {named['sha256']}"
            )


def preparation(bundle: Bundle):
    """The settings of `process_clip`, and the spec of its batches, for what the model reads."""
    from data_prep.settings import PrepSettings
    from emofuse_jax.types import InputSpec

    settings = PrepSettings.from_dict(bundle.metadata["settings"])
    used = {kind: kind in bundle.encoders for kind in onnx_files.FLAGS}
    encoders = {kind: getattr(settings.features, kind) if used[kind] else None for kind in used}
    features = dataclasses.replace(settings.features, **encoders)
    given = bundle.metadata["spec"]
    absent = {
        "audio": {"t": 0},
        "faces": {"h": 0, "w": 0},
        "audio_features": {"audio_features": 0, "feature_steps": 0},
        "face_features": {"face_features": 0},
    }
    unread = {k: v for name, fields in absent.items() if name not in bundle.inputs for k, v in fields.items()}
    return dataclasses.replace(settings, features=features), InputSpec(**{**given, **unread})


def _answers(bundle: Bundle, path: str) -> Iterator[Prediction | Gap]:
    """Prepares windows and answers them in batches, so that memory stays flat in the file's length."""
    pending = []
    for window in _prepared(bundle, path):
        pending.append(window)
        if len(pending) == BUCKETS[-1]:
            yield from _answer_batch(bundle, path, pending)
            pending = []
    if pending:
        yield from _answer_batch(bundle, path, pending)


def _prepared(bundle: Bundle, path: str) -> Iterator[tuple]:
    """(start, end, Record or error text) of each window."""
    from data_prep.media import probe

    needs = needs_of(bundle)
    windows = cut_windows(probe(path).duration, bundle.metadata["window"]["seconds"])
    for start, end in windows:
        part = {} if len(windows) == 1 else {"start": start, "end": end}
        yield start, end, prepare_window(needs, path, **part)


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a bundle needs to know of a window; it can be sent to another process."""

    settings: object
    """PrepSettings, of data_prep, which a bundle of arrays can do without."""
    encoders: dict[str, str]
    modalities: tuple[str, ...]
    inputs: tuple[str, ...]


def needs_of(bundle: Bundle) -> Needs:
    """Those of a bundle."""
    settings, _ = preparation(bundle)
    return Needs(settings, bundle.encoders, tuple(bundle.metadata["modalities"]), tuple(bundle.inputs))


def prepare_window(needs: Needs, path: str, *, start: float | None = None, end: float | None = None):
    """The Record of a part of a file, or in a line why it has no answer."""
    from data_prep.corpora.base import Clip
    from data_prep.encoders import EncoderFiles
    from data_prep.process import Failure, process_clip

    clip = Clip(os.path.basename(path), path, label=-1, speaker="", start=start, end=end)
    faces = bool({"faces", "face_features"} & {*needs.inputs})
    record = process_clip(
        clip, needs.settings, encoders=EncoderFiles(**needs.encoders, threads=0), faces=faces
    )
    return record.reason if isinstance(record, Failure) else usable(needs, record)


def usable(needs: Needs, record):
    """The record, or why a network of these modalities has nothing to go by in it."""
    used, features = needs.modalities, record.audio_features
    if "audio" not in needs.inputs and features is not None and not len(features):  # its encoder failed
        record = dataclasses.replace(record, audio_ok=False)
    if ("voice" in used and record.audio_ok) or ("face" in used and record.video_ok):
        return record
    return f"the model needs a {' or a '.join(used)}: {record.notes}"


def rows_of(bundle: Bundle, found: Sequence, size: int) -> dict[str, np.ndarray]:
    """The model's inputs for records, in `size` rows; a text in place of a record leaves its row masked."""
    from emofuse_jax.data.assemble import empty_batch, fill_row

    batch = empty_batch(size, preparation(bundle)[1])
    for row, record in enumerate(found):
        if not isinstance(record, str):
            fill_row(batch, row, record)
    return {name: getattr(batch, name) for name in bundle.inputs}


def _answer_batch(bundle: Bundle, path: str, windows: list[tuple]) -> Iterator[Prediction | Gap]:
    """One batch, padded to the next bucket; failed windows stay masked rows and become gaps."""
    size = next(bucket for bucket in BUCKETS if bucket >= len(windows))
    outputs = bundle.run(rows_of(bundle, [found for _, _, found in windows], size))
    for row, (start, end, found) in enumerate(windows):
        yield answer_of(bundle.classes, path, start, end, found, outputs, row)


def answer_of(
    classes: Sequence[str], path: str, start: float, end: float, found, outputs: dict | None, row: int
) -> Prediction | Gap:
    """The answer for a window: its Record and row of outputs, or in a line why it has none."""
    if isinstance(found, str):
        return Gap(path, round(start, 3), round(end, 3), found)
    return prediction(
        classes,
        {name: array[row] for name, array in outputs.items()},
        path=path,
        start=start,
        end=end,
        audio_ok=bool(found.audio_ok),
        video_ok=bool(found.video_ok),
        notes=found.notes,
    )


def prediction(
    classes: Sequence[str],
    answer: dict[str, np.ndarray],
    *,
    path: str = "",
    start: float = 0.0,
    end: float = 0.0,
    audio_ok: bool,
    video_ok: bool,
    notes: str = "",
) -> Prediction:
    """The answer for a clip, from its row of the model's outputs."""
    probabilities = answer["probabilities"]
    best = int(np.argmax(probabilities))
    weights = answer.get("modality_weights")
    voice, face = (None, None) if weights is None else map(float, weights)
    return Prediction(
        path=path,
        start=round(start, 3),
        end=round(end, 3),
        label=classes[best],
        confidence=float(probabilities[best]),
        probabilities={name: float(p) for name, p in zip(classes, probabilities, strict=True)},
        voice_weight=voice,
        face_weight=face,
        audio_ok=audio_ok,
        video_ok=video_ok,
        notes=notes,
    )
