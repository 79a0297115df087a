"""Media in, answers out: windows of a file, each prepared exactly as training clips are, then one batch.

Media need the `prep` extra; it is imported only when a file is opened.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emofuse_jax import onnx_files
from emofuse_jax.checked import check_fields
from emofuse_jax.serving.answers import Answers, Gap, Prediction, Window, answer_of, is_probability, surer
from emofuse_jax.serving.bundle import Bundle
from emofuse_jax.serving.manifest import MANIFEST
from emofuse_jax.serving.windows import cut_windows
from emofuse_jax.told import one_line

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes that are compiled; a batch is padded to the next one."""


def predict_file(bundle: Bundle, path: str, *, min_confidence: float = 0.0) -> Answers:
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
    if not is_probability(min_confidence):
        raise ValueError(f"min_confidence: {min_confidence}, expected a probability")
    try:
        answers = Answers(answer_windows(bundle, _windows(bundle, path), min_confidence))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if all(isinstance(answer, Gap) for answer in answers):
        raise ValueError(f"{path}: {answers[0].error}")
    return answers


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

    try:
        settings = PrepSettings.from_dict(bundle.metadata["settings"])
        check_fields(dataclasses.asdict(settings), dataclasses.asdict(PrepSettings()), "settings")
    except (AttributeError, TypeError, ValueError) as error:  # of what bundle.json says
        raise ValueError(f"{bundle.path}/{MANIFEST}: field settings: {one_line(error)[:300]}") from error
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


def answer_windows(
    bundle: Bundle, windows: Iterable[Window], least: float, buckets: Sequence[int] = BUCKETS
) -> Iterator[Prediction | Gap]:
    """Answers windows in batches of the sizes `buckets`, in order; memory stays flat in their number.

    An answer whose confidence is below `least` has the label `unknown`.
    """
    windows = iter(windows)
    while batch := list(itertools.islice(windows, buckets[-1])):
        size = next(bucket for bucket in buckets if bucket >= len(batch))
        outputs = bundle.run(rows_of(bundle, [window.found for window in batch], size))
        for row, window in enumerate(batch):
            output = {name: array[row] for name, array in outputs.items()}
            yield surer(answer_of(bundle.classes, window, output), least)


def _windows(bundle: Bundle, path: str) -> Iterator[Window]:
    from data_prep.media import probe

    needs = needs_of(bundle)
    for start, end, part in spans(probe(path).duration, bundle):
        yield Window(path, start, end, prepare_window(needs, path, *part))


def spans(duration: float, bundle: Bundle) -> list[tuple[float, float, tuple]]:
    """Start and end of a file's windows, and the part to open: (None, None) where it is the whole file."""
    cut = cut_windows(duration, bundle.metadata["window"]["seconds"])
    return [(start, end, (None, None) if len(cut) == 1 else (start, end)) for start, end in cut]


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


def prepare_window(
    needs: Needs, path: str, start: float | None = None, end: float | None = None, person: int = 0
):
    """The Record of a part of a file, or in a line why it has no answer; `person` as in `process_clip`."""
    from data_prep.corpora.base import Clip
    from data_prep.process import Failure, process_clip

    clip = Clip(os.path.basename(path), path, label=-1, speaker="", start=start, end=end)
    files, faces = encoder_files(needs), needs_faces(needs)
    record = process_clip(clip, needs.settings, encoders=files, faces=faces, person=person)
    return record.reason if isinstance(record, Failure) else usable(needs, record)


def needs_faces(needs: Needs) -> bool:
    """Whether faces are looked for."""
    return bool({"faces", "face_features"} & {*needs.inputs})


def encoder_files(needs: Needs):
    """Where the ONNX files lie (EncoderFiles); they run on one thread."""
    from data_prep.encoders import EncoderFiles

    return EncoderFiles(**needs.encoders, threads=0)


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
