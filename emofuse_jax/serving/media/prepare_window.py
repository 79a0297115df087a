"""Prepares one window of a media file as a Record with the fields that a bundle reads.

Needs the extra `prep`; `data_prep` is imported only when a file is opened.
"""

import dataclasses
import os
from typing import TYPE_CHECKING

from emofuse_jax.data.records import ARRAYS_RECIPE, Failure, Record
from emofuse_jax.serving.interfaces import MANIFEST_FILE, LoadedBundle
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.validation import validate_fields

if TYPE_CHECKING:
    from data_prep.onnx_models.encoders import EncoderFiles
    from data_prep.settings import PrepSettings


def check_encoders(bundle: LoadedBundle) -> None:
    """Raises ValueError if an ONNX file that the model needs, or a package that runs it, is missing.

    The packages are those of the extra `onnx`. A bundle whose model uses no ONNX files always passes. The
    message names the extra to install or the flag to pass.
    """
    from data_prep.optional_dependencies import require_onnx

    encoders = bundle.metadata.get("encoders", {})
    if encoders:
        require_onnx()
    for kind, encoder in encoders.items():
        if not bundle.encoders.get(kind):
            name = onnx_files.FLAG_NAMES[kind]
            raise ValueError(
                f"{bundle.path}: the bundle does not contain its {onnx_files.DISPLAY_NAMES[kind]}"
                f" {encoder['file']}; pass --{name}=FILE ({name}=FILE to `load` in Python) with sha256"
                f" {encoder['sha256']}"
            )


def prep_settings(bundle: LoadedBundle) -> "PrepSettings":
    """Returns the PrepSettings of a bundle for `process_clip`, without encoders that the model does not use.

    They have the name of the `recipe` and the settings of `audio` (spectrogram), `face` (frames, detection,
    crops) and `features` (frozen encoders and detector).

    Raises:
      ValueError: the settings in bundle.json are invalid, or the bundle was trained on arrays; the message is
        one line that names the file or the bundle.
    """
    from data_prep.settings import PrepSettings

    try:
        settings = PrepSettings.from_dict(bundle.metadata["settings"])
        validate_fields(dataclasses.asdict(settings), dataclasses.asdict(PrepSettings()), "settings")
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{bundle.path}/{MANIFEST_FILE}: field settings is invalid: {to_one_line(error)[:300]};"
            " export the bundle again"
        ) from error
    if settings.recipe == ARRAYS_RECIPE:
        raise ValueError(
            f"{bundle.path}: the model was trained on arrays and can't prepare media files; predict ef.Clip"
            " objects instead"
        )
    features = dataclasses.replace(
        settings.features,
        audio=settings.features.audio if "audio" in bundle.encoders else None,
        face=settings.features.face if "face" in bundle.encoders else None,
        detector=settings.features.detector if "detector" in bundle.encoders else None,
    )
    return dataclasses.replace(settings, features=features)


@dataclasses.dataclass(frozen=True)
class PrepRequirements:
    """Settings, encoders and inputs that the preparation of a window needs; picklable."""

    settings: "PrepSettings"
    """Settings of the preparation, without encoders that the model does not use."""
    encoders: dict[str, str]
    """Path of each ONNX file, by kind."""
    modalities: tuple[str, ...]
    """Modalities of the network: `voice`, `face` or both."""
    inputs: tuple[str, ...]
    """Names of the input arrays of the network."""


def prep_requirements(bundle: LoadedBundle) -> PrepRequirements:
    """Returns the settings, encoders and inputs that the preparation of a window of a bundle needs.

    These are `settings` (PrepSettings), `encoders` (path of each ONNX file, by kind), `modalities` (`voice`,
    `face` or both) and `inputs` (names of the input arrays). Raises ValueError if the bundle's settings are
    invalid or the bundle was trained on arrays.
    """
    return PrepRequirements(
        prep_settings(bundle), bundle.encoders, tuple(bundle.metadata["modalities"]), tuple(bundle.inputs)
    )


def prepare_window(
    requirements: PrepRequirements,
    path: str,
    start: float | None = None,
    end: float | None = None,
    person: int = 0,
) -> Record | Failure:
    """Prepares a part of a media file as a Record.

    Args:
      requirements: preparation settings, encoder files and inputs of the bundle.
      path: media file.
      start: start in seconds; None for the start of the file.
      end: end in seconds; None for the end of the file.
      person: which of several people to use; 0 is the main person, 1 the next one. If there are fewer people,
        no face is usable.

    Returns:
      The Record, with `clip_id` (name of the file), label -1, `spectrogram` float16 [t f], `faces` uint8 RGB
      [s h w 3], `face_valid` bool [s] (True: a face), as float32 `face_time` [s] in seconds from the start of
      the (trimmed) part, `face_box` [s 4] (x0 y0 x1 y1), `face_landmarks` [s 5 2] (x y), both in pixels of
      the frame, and `face_score` [s], `audio_features` float16 [u d] and `face_features` float16 [s d] (None
      without encoders), `audio_ok` and `video_ok` (False: not usable) and `notes`. Or a Failure with the
      `reason`, one line, if the file is missing or damaged, the part is longer than an hour, `start` is
      outside of the file, `end` is not after `start`, or the part has no usable audio or face that the
      network uses.

    Raises:
      ValueError: the settings are invalid, an encoder file is missing, has another SHA-256 or is not an ONNX
        model, the weights of MTCNN have another SHA-256, or the file changes while it is read.
      OSError: an encoder file or the weights of MTCNN cannot be read.
      ModuleNotFoundError: a package of the extra `prep`, or of `onnx` for a model of encoders, is not
        installed.
    """
    from data_prep.process_clip import process_clip
    from emofuse_jax.data.writing.corpus import MediaClip

    clip = MediaClip(os.path.basename(path), path, label=-1, speaker="", start=start, end=end)
    encoder_paths, find_faces = make_encoder_files(requirements), should_find_faces(requirements)
    result = process_clip(
        clip, requirements.settings, encoder_files=encoder_paths, should_find_faces=find_faces, person=person
    )
    return result if isinstance(result, Failure) else usable_record_or_failure(requirements, result)


def should_find_faces(requirements: PrepRequirements) -> bool:
    """Returns True if the network reads face crops or face features."""
    return bool({"faces", "face_features"} & {*requirements.inputs})


def make_encoder_files(requirements: PrepRequirements) -> "EncoderFiles":
    """Returns the EncoderFiles: the paths of the ONNX files, and 0 threads, which means all cores.

    The fields are `audio`, `face` and `detector`, "" for a file that is unknown or not needed, and `threads`.
    """
    from data_prep.onnx_models.encoders import EncoderFiles

    return EncoderFiles(**requirements.encoders, threads=0)


def usable_record_or_failure(requirements: PrepRequirements, record: Record) -> Record | Failure:
    """Returns the record, or a Failure with the `reason` if it has no usable modality that the network uses.

    The flags `audio_ok` and `video_ok` of the record say whether voice and face are usable. If the network
    reads audio features but no spectrogram, and the audio encoder failed (there are no vectors), `audio_ok`
    is set to False in a copy of the record first.
    """
    modalities, features = requirements.modalities, record.audio_features
    if "audio" not in requirements.inputs and features is not None and not len(features):  # encoder failed
        record = dataclasses.replace(record, audio_ok=False)
    if ("voice" in modalities and record.audio_ok) or ("face" in modalities and record.video_ok):
        return record
    return Failure(f"the model needs a {' or a '.join(modalities)}, but none is usable: {record.notes}")
