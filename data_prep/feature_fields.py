"""Computes the features of one clip with frozen encoders, stored with its tensors or instead of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float16, UInt8

from data_prep.faces.face import Face
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
    """Runs the audio encoder on one clip.

    Args:
      info: path and tracks of the file, from `probe_media`; encoders with the layout `waveform` decode it.
      start: start of the clip in seconds of the file.
      end: end of the clip in seconds of the file.
      spectrogram: the stored spectrogram of the clip, float16, t frames of f bins; encoders with the layout
        `spectrogram` read it.
      settings: settings of the preparation.
      encoder_files: paths of the ONNX files; `encoder_files.audio` is used.

    Returns:
      `{"audio_features": features}`, float16 with u vectors of width d, about one for every `hop_ms` of the
      encoder; an empty dict if the settings have no audio encoder.

    Raises:
      EncoderError: the encoder failed on this clip.
      MediaError: the audio can't be decoded again.
      ValueError: the encoder's ONNX file has no path, does not exist, has another SHA-256, or is not an ONNX
        model; the `normalisation` in its layout is unknown or does not fit; or there is no audio from `start`
        to `end`.
      OSError: the ONNX file can't be read.
      ModuleNotFoundError: there is an encoder, but onnxruntime is not installed.
    """
    encoder = settings.features.audio
    if encoder is None:
        return {}
    if encoder.layout.layout == "spectrogram":
        features = encode_audio(spectrogram, encoder, encoder_files, settings.audio.hop_ms)
    else:  # decode again: this is fast, and the spectrogram is computed without storing all samples
        sample_rate = settings.audio.sample_rate
        samples = np.concatenate(list(read_audio_blocks(info, start, end, sample_rate)))
        features = encode_audio(samples, encoder, encoder_files, 1000 / sample_rate)
    return {"audio_features": features}


def extract_face_features(
    frames: UInt8[np.ndarray, "s h w 3"],
    faces: Sequence[Face | None],
    settings: PrepSettings,
    encoder_files: EncoderFiles,
) -> dict[str, Float16[np.ndarray, "s d"]]:
    """Runs the face encoder on the faces of one clip, cut from the frames at the size that the encoder needs.

    Args:
      frames: s RGB frames of h x w pixels.
      faces: the `Face` in each frame, or None; at least one is not None. A `Face` has `box` [4] (left, top,
        right, bottom), `landmarks` [5 2] (x, y; the two eyes first) in pixels of the frames, and `score`.
      settings: settings of the preparation.
      encoder_files: paths of the ONNX files; `encoder_files.face` is used.

    Returns:
      `{"face_features": features}`, float16 with one vector of width d for each frame, zero in frames without
      a face; an empty dict if the settings have no face encoder.

    Raises:
      EncoderError: the encoder failed on this clip.
      ValueError: the encoder's ONNX file has no path, does not exist, has another SHA-256, or is not an ONNX
        model; or all of `faces` are None.
      OSError: the ONNX file can't be read.
      ModuleNotFoundError: there is an encoder, but onnxruntime is not installed.

    """
    encoder = settings.features.face
    if encoder is None:
        return {}
    from data_prep.faces.align import align_face

    size, margin = encoder.layout.size, settings.face.margin
    crop_by_frame = {
        i: align_face(frames[i], face, size=size, margin=margin)
        for i, face in enumerate(faces)
        if face is not None
    }
    crops = np.stack(list(crop_by_frame.values()))
    features = np.zeros((len(faces), encoder.width), np.float16)
    features[list(crop_by_frame)] = encode_faces(crops, encoder, encoder_files)
    return {"face_features": features}


def zero_features(settings: PrepSettings) -> dict[str, Float16[np.ndarray, "n d"]]:
    """Returns the dict `{"audio_features": zeros [1 d], "face_features": zeros [s d]}` of float16 arrays.

    d is the width of the encoder, s the number of frames of a clip. A key is left out if the settings have no
    encoder for it.
    """
    features = settings.features
    shapes: dict[str, tuple[int, int]] = {}
    if features.audio is not None:
        shapes["audio_features"] = (1, features.audio.width)
    if features.face is not None:
        shapes["face_features"] = (settings.face.frames, features.face.width)
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def empty_audio_features(settings: PrepSettings) -> dict[str, Float16[np.ndarray, "0 d"]]:
    """Returns `{"audio_features": array}` with no vectors, for audio on which the encoder failed.

    The array is float16 [0 d], where d is the width of the encoder. The dict is empty if the settings have
    no audio encoder.
    """
    encoder = settings.features.audio
    return {} if encoder is None else {"audio_features": np.zeros((0, encoder.width), np.float16)}


def drop_tensors(record: Record, settings: PrepSettings) -> Record:
    """Returns the record without the tensors that the settings drop, because features replace them.

    If the settings drop the spectrogram, it becomes [0 f]; if they drop the face crops, these become
    [s 0 0 3]. All else is unchanged, and so is the given record.
    """
    if settings.features.drops_audio:
        record = dataclasses.replace(record, spectrogram=record.spectrogram[:0])
    if settings.features.drops_faces:
        record = dataclasses.replace(record, faces=record.faces[:, :0, :0])
    return record
