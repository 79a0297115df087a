"""Prepares one window of a media file as a record, for what a bundle reads.

Needs the `prep` extra; `data_prep` is imported only when a file is opened.
"""

import dataclasses
import os

from emofuse_jax.serving.interfaces import MANIFEST_FILE, LoadedBundle
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.validation import validate_fields


def check_encoders(bundle: LoadedBundle) -> None:
    """ValueError, one line, where an encoder that the model reads, or what runs it, is not at hand."""
    from data_prep.optional_dependencies import require_onnx

    encoders = bundle.metadata.get("encoders", {})
    if encoders:
        require_onnx()
    for kind, encoder in encoders.items():
        if not bundle.encoders.get(kind):
            raise ValueError(
                f"{bundle.path}: does not carry its {onnx_files.DISPLAY_NAMES[kind]} {encoder['file']}: give"
                f" --{onnx_files.FLAG_NAMES[kind]}=FILE with sha256 {encoder['sha256']}"
            )


def prep_settings(bundle: LoadedBundle):
    """Returns the PrepSettings of `process_clip`, without the encoders whose features the model does not
    read.

    Raises:
      ValueError: bundle.json has settings that are none; one line that names the file.
    """
    from data_prep.settings import PrepSettings

    try:
        settings = PrepSettings.from_dict(bundle.metadata["settings"])
        validate_fields(dataclasses.asdict(settings), dataclasses.asdict(PrepSettings()), "settings")
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{bundle.path}/{MANIFEST_FILE}: field settings: {to_one_line(error)[:300]}"
        ) from error
    used = {kind: kind in bundle.encoders for kind in onnx_files.FLAG_NAMES}
    encoders = {kind: getattr(settings.features, kind) if used[kind] else None for kind in used}
    return dataclasses.replace(settings, features=dataclasses.replace(settings.features, **encoders))


@dataclasses.dataclass(frozen=True)
class PrepRequirements:
    """What a bundle needs to know of a window; it can be sent to another process."""

    settings: object
    """PrepSettings, of data_prep, which a bundle of arrays can do without."""
    encoders: dict[str, str]
    modalities: tuple[str, ...]
    inputs: tuple[str, ...]


def prep_requirements(bundle: LoadedBundle) -> PrepRequirements:
    """Those of a bundle."""
    return PrepRequirements(
        prep_settings(bundle), bundle.encoders, tuple(bundle.metadata["modalities"]), tuple(bundle.inputs)
    )


def prepare_window(
    requirements: PrepRequirements,
    path: str,
    start: float | None = None,
    end: float | None = None,
    person: int = 0,
):
    """The Record of a part of a file, or in a line why it has no answer; `person` as in `process_clip`."""
    from data_prep.process_clip import Failure, process_clip
    from emofuse_jax.data.writing.corpus import Clip

    clip = Clip(os.path.basename(path), path, label=-1, speaker="", start=start, end=end)
    encoder_paths, find_faces = make_encoder_files(requirements), should_find_faces(requirements)
    record = process_clip(
        clip, requirements.settings, encoder_files=encoder_paths, should_find_faces=find_faces, person=person
    )
    return record.reason if isinstance(record, Failure) else usable_record_or_error(requirements, record)


def should_find_faces(requirements: PrepRequirements) -> bool:
    """Whether faces are looked for."""
    return bool({"faces", "face_features"} & {*requirements.inputs})


def make_encoder_files(requirements: PrepRequirements):
    """Where the ONNX files lie (EncoderFiles); they run on one thread."""
    from data_prep.onnx_models.encoders import EncoderFiles

    return EncoderFiles(**requirements.encoders, threads=0)


def usable_record_or_error(requirements: PrepRequirements, record):
    """The record, or why a network of these modalities has nothing to go by in it."""
    modalities, features = requirements.modalities, record.audio_features
    if (
        "audio" not in requirements.inputs and features is not None and not len(features)
    ):  # its encoder failed
        record = dataclasses.replace(record, audio_ok=False)
    if ("voice" in modalities and record.audio_ok) or ("face" in modalities and record.video_ok):
        return record
    return f"the model needs a {' or a '.join(modalities)}: {record.notes}"
