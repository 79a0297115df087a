"""What frozen encoders make of one clip, beside its tensors or instead of them."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float16

from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import MediaInfo
from data_prep.onnx_models.encoders import EncoderFiles, encode_audio, encode_faces
from data_prep.settings import PrepSettings
from emofuse_jax.data.records import Record


def extract_audio_features(
    info: MediaInfo,
    start: float,
    end: float,
    spectrogram: Float[np.ndarray, "t f"],
    settings: PrepSettings,
    encoder_files: EncoderFiles,
) -> dict[str, Float16[np.ndarray, "u d"]]:
    """The field `audio_features`; nothing without an audio encoder. Raises EncoderError when it fails."""
    encoder = settings.features.audio
    if encoder is None:
        return {}
    if encoder.layout.layout == "spectrogram":
        features = encode_audio(spectrogram, encoder, encoder_files, settings.audio.hop_ms)
    else:  # decoded again: it is quick, and the spectrogram never holds the sound as a whole
        sample_rate = settings.audio.sample_rate
        samples = np.concatenate(list(read_audio_blocks(info, start, end, sample_rate)))
        features = encode_audio(samples, encoder, encoder_files, 1000 / sample_rate)
    return {"audio_features": features}


def extract_face_features(
    frames, faces, settings: PrepSettings, encoder_files: EncoderFiles
) -> dict[str, Float16[np.ndarray, "s d"]]:
    """The field `face_features`, zero where there is no face; nothing without a face encoder.

    Faces are cut from the frames at the encoder's own size. Raises EncoderError when the encoder fails.
    """
    encoder = settings.features.face
    if encoder is None:
        return {}
    from data_prep.faces.align import align_face

    frames_with_face = [i for i, face in enumerate(faces) if face is not None]
    crop_options = {"size": encoder.layout.size, "margin": settings.face.margin}
    crops = np.stack([align_face(frames[i], faces[i], **crop_options) for i in frames_with_face])
    features = np.zeros((len(faces), encoder.width), np.float16)
    features[frames_with_face] = encode_faces(crops, encoder, encoder_files)
    return {"face_features": features}


def zero_features(settings: PrepSettings) -> dict[str, Float16[np.ndarray, "n d"]]:
    """Zeros for both fields, as far as there are encoders."""
    features, shapes = settings.features, {}
    if features.audio is not None:
        shapes["audio_features"] = (1, features.audio.width)
    if features.face is not None:
        shapes["face_features"] = (settings.face.frames, features.face.width)
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def empty_audio_features(settings: PrepSettings) -> dict[str, Float16[np.ndarray, "0 d"]]:
    """The field `audio_features` of a sound that its encoder gives nothing for: no vector; it is masked."""
    return {"audio_features": np.zeros((0, settings.features.audio.width), np.float16)}


def drop_tensors(record: Record, settings: PrepSettings) -> Record:
    """The record without spectrogram [0 f] or crops [s 0 0 3], where the settings drop them."""
    empty_tensors = {}
    if settings.features.drops_audio:
        empty_tensors["spectrogram"] = record.spectrogram[:0]
    if settings.features.drops_faces:
        empty_tensors["faces"] = record.faces[:, :0, :0]
    return dataclasses.replace(record, **empty_tensors)
