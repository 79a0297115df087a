"""Turns one clip into a record of arrays; used by preparation, prediction and serving alike."""

import numpy as np

from data_prep.face_fields import extract_face_fields, zero_face_fields
from data_prep.feature_fields import (
    drop_tensors,
    empty_audio_features,
    extract_audio_features,
    zero_features,
)
from data_prep.media.audio_track import ClippingMeter, read_audio_blocks, tee_int16
from data_prep.media.probe import MediaError, MediaInfo, probe_media
from data_prep.media.video_clip import VideoClip
from data_prep.onnx_models.encoders import NO_ENCODER_FILES, EncoderError, EncoderFiles
from data_prep.settings import AudioSettings, PrepSettings
from data_prep.spectrogram import SILENCE_RMS, log_spectrogram, loud_span
from emofuse_jax.data.records import Failure, Record, RecordArrays
from emofuse_jax.data.writing.corpus import MediaClip

MAX_CLIP_SECONDS = 3600.0
"""Longest clip in seconds; longer files must be cut into clips by `start` and `end`."""


def process_clip(
    clip: MediaClip,
    settings: PrepSettings,
    *,
    corpus: str = "",
    num_classes: int = 0,
    encoder_files: EncoderFiles = NO_ENCODER_FILES,
    should_find_faces: bool = True,
    person: int = 0,
) -> Record | Failure:
    """Decodes one clip into a record with a spectrogram and aligned faces.

    Audio or video that is missing, silent, without a face, or undecodable is masked, with the reason in
    `Record.notes`. A modality is also masked if its frozen encoder fails, with one exception: audio whose
    spectrogram is stored stays valid, with `audio_features` of no vectors. Crops and features of faces share
    one mask, so a failed face encoder masks both. Heavily clipped audio is used, with a note.

    If `settings.audio.trim_db` is above 0, the record covers only the loud part of the clip. `face_time`
    counts seconds from the start of the (trimmed) clip, as the spectrogram does: audio that begins later is
    preceded by silence, and if it ends before the video, the spectrogram ends too.

    Args:
      clip: the clip.
      settings: settings of the preparation.
      corpus: name of the corpus, stored in the record.
      num_classes: length of the one-hot `votes`; 0, for prediction: `votes` is empty.
      encoder_files: paths of the ONNX files that `settings.features` names.
      should_find_faces: False: video is masked without being decoded.
      person: which of several people to follow; 0: the one with the highest weight by size, position and
        speech, 1: the second, and so on.

    Returns:
      A Record, with c = `num_classes`, t spectrogram frames of f bins, and s frames of the video:

      - `clip_id`, `speaker`, `corpus`, and `label` (index of the class; -1: unlabelled)
      - `votes` float32 [c] (zeros if unlabelled), `spectrogram` float16 [t f]
      - `faces` uint8 RGB [s h w 3], `face_valid` bool [s], True if the person was found in the frame
      - float32 `face_time` [s] in seconds, `face_box` [s 4] (left, top, right, bottom), `face_landmarks`
        [s 5 2] (x, y of the eye at the image's left, the eye at its right, the nose, the left and the right
        corner of the mouth), both in pixels from the top left corner of the source frame, and `face_score`
        [s] of the detector (0 to 1 for MTCNN)
      - `audio_ok` and `video_ok`, False if the modality is masked, and `notes`, a line
      - if the settings require them, otherwise None: `audio_features` float16 [u d], `face_features` float16
        [s d], and `waveform` int16 [n], mono at `settings.audio.sample_rate` Hz

      Masked arrays are zero, a masked waveform is empty. If the settings drop tensors, `spectrogram` is [0 f]
      or `faces` [s 0 0 3]. Instead a Failure with the reason if the file can't be decoded, the start or end
      of the clip is wrong, or neither audio nor video can be used. A damaged file never raises.

    Raises:
      ValueError: the settings name an unknown frontend, window, detector or sampling, have too many bins, or
        a wrong `min_face` or `normalisation`, `clip.half` is unknown, an ONNX file that the settings name has
        no path, is missing, has another SHA-256 or is not an ONNX model, the weights of MTCNN have another
        SHA-256, lz4 is not installed, or the file changes while it is read (MediaError).
      librosa.ParameterError: `hop_ms` is below one sample, or the window is longer than the DFT.
      OSError: an ONNX file, or the weights of MTCNN, can't be read.
      ModuleNotFoundError: a package of the extra `prep` (such as librosa, or the `mtcnn` wheel with the
        weights), joblib or onnxruntime is needed, but not installed.
    """
    try:
        info = probe_media(clip.path)
        start, end = clip_span(clip, info)
    except MediaError as error:
        return Failure(str(error))
    audio_fields, audio_note, (start, end) = _extract_audio_fields(info, start, end, settings, encoder_files)
    video_clip = VideoClip(info, start, end, clip.half)
    face_fields, face_note = (
        extract_face_fields(video_clip, settings, encoder_files, person) if should_find_faces else (None, "")
    )
    notes = "; ".join(note for note in (audio_note, face_note) if note)
    if audio_fields is None and face_fields is None:
        return Failure(notes)
    fields: RecordArrays = {
        "spectrogram": np.zeros((1, settings.audio.bins), np.float16),
        **zero_face_fields(settings.face),
    }
    if settings.audio.waveform:
        fields["waveform"] = np.zeros(0, np.int16)
    record = Record(
        clip_id=clip.clip_id,
        speaker=clip.speaker,
        corpus=corpus,
        label=clip.label,
        votes=(np.arange(num_classes) == clip.label).astype(np.float32),
        audio_ok=audio_fields is not None,
        video_ok=face_fields is not None,
        notes=notes,
        **(fields | zero_features(settings) | (audio_fields or {}) | (face_fields or {})),
    )
    return drop_tensors(record, settings)


def clip_span(clip: MediaClip, info: MediaInfo) -> tuple[float, float]:
    """Returns (start, end) of the clip in seconds of the file.

    If the clip has none, they are 0 and the end of the file. A later end is cut to the end of the file.
    Raises MediaError if the start is outside the file, the end is not after the start, or the clip is longer
    than 3600 s (MAX_CLIP_SECONDS).
    """
    start = clip.start or 0.0
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    if start < 0 or start >= info.duration:
        raise MediaError(
            f"start {start:g} s: expected 0 to {info.duration:.2f} s, the length of the file; correct the"
            " start of the clip"
        )
    if end <= start:
        raise MediaError(f"end {end:g} s: expected more than start {start:g} s; correct one of them")
    if end - start > MAX_CLIP_SECONDS:
        raise MediaError(
            f"the clip is {end - start:.0f} s long, expected at most {MAX_CLIP_SECONDS:.0f} s; cut it by"
            " start and end"
        )
    return start, end


def _extract_audio_fields(
    info: MediaInfo, start: float, end: float, settings: PrepSettings, encoder_files: EncoderFiles
) -> tuple[RecordArrays | None, str, tuple[float, float]]:
    """Returns the audio fields of a record, a note, and (start, end) of the trimmed clip in seconds.

    The times are seconds of the file. The fields are a dict with `spectrogram`, float16 [t f], and as the
    settings require, `waveform`, int16 [n], and `audio_features`, float16 [u d]. The note is empty, or says
    that audio is clipped or that the encoder failed (then u is 0). If the audio can't be used, the fields are
    None, the note is the reason, and the times are `start` and `end` (trimmed if only the encoder failed).

    Raises:
      ValueError: the settings name an unknown frontend or window, have too many bins or a wrong
        `normalisation`, the encoder's ONNX file has no path, is missing, has another SHA-256 or is not an
        ONNX model, or the file changes while it is read (MediaError).
      librosa.ParameterError: `hop_ms` is below one sample, or the window is longer than the DFT.
      OSError: the ONNX file can't be read.
      ModuleNotFoundError: librosa, or onnxruntime for an encoder, is not installed.
    """
    fields, note = _decode_audio(info, start, end, settings.audio)
    if fields is None:
        return None, note, (start, end)
    fields, (start, end) = _trim_fields(fields, start, end, settings.audio)
    try:
        features = extract_audio_features(info, start, end, fields["spectrogram"], settings, encoder_files)
    except EncoderError as error:
        if settings.features.drops_audio:
            return None, str(error), (start, end)
        return (
            fields | empty_audio_features(settings),
            "; ".join(filter(None, (note, str(error)))),
            (start, end),
        )
    return fields | features, note, (start, end)


def _trim_fields(
    fields: RecordArrays, start: float, end: float, audio_settings: AudioSettings
) -> tuple[RecordArrays, tuple[float, float]]:
    """Cuts the audio fields, a dict with `spectrogram` and possibly `waveform`, to the loud part.

    It reaches from 0.1 s before the first to 0.1 s after the last frame that is at most `trim_db` dB quieter
    than the loudest; if `trim_db` is 0, it is everything. Returns the dict of cut fields, and (start, end) of
    the loud part in seconds of the file. Raises ValueError if `trim_db` is not 0 and the frontend is unknown.
    """
    spectrogram = fields["spectrogram"]
    loud_frames = loud_span(spectrogram, audio_settings)
    if loud_frames == slice(0, len(spectrogram)):
        return fields, (start, end)
    trimmed_fields, last_frame, hop_seconds = (
        {"spectrogram": spectrogram[loud_frames]},
        loud_frames.stop - 1,
        audio_settings.hop_ms / 1000,
    )
    if audio_settings.waveform:
        hop_samples = round(audio_settings.sample_rate * hop_seconds)
        trimmed_fields["waveform"] = fields["waveform"][
            loud_frames.start * hop_samples : last_frame * hop_samples
        ]
    return trimmed_fields, (
        start + loud_frames.start * hop_seconds,
        min(end, start + last_frame * hop_seconds),
    )


def _decode_audio(
    info: MediaInfo, start: float, end: float, settings: AudioSettings
) -> tuple[RecordArrays | None, str]:
    """Decodes audio once; returns its fields and a note, or None and the reason.

    The fields are a dict with `spectrogram`, float16 [t f], and `waveform`, int16 [n], if the settings store
    it. The note is empty unless at least 1 % of samples are clipped. The reason is missing or undecodable
    audio, a file that has changed since it was probed, silence (below -80 dB), or values too large for
    float16. Raises ValueError if the frontend or window is unknown or there are too many bins,
    librosa.ParameterError if `hop_ms` is below one sample or the window is longer than the DFT,
    ModuleNotFoundError if librosa is not installed.
    """
    if info.audio is None:
        return None, "no audio stream"
    if info.audio.end <= start:
        return None, "no audio in this part of the file"
    meter, waveform_bytes = ClippingMeter(), bytearray()
    blocks = read_audio_blocks(info, start, end, settings.sample_rate, meter)
    try:
        spectrogram, rms = log_spectrogram(
            tee_int16(blocks, waveform_bytes) if settings.waveform else blocks, settings
        )
    except MediaError as error:
        return None, str(error)
    if not np.isfinite(spectrogram).all():
        return None, "audio: values too large for float16"
    if rms < SILENCE_RMS:
        return None, "audio is silent"
    waveform = {"waveform": np.frombuffer(waveform_bytes, np.int16)} if settings.waveform else {}
    return {"spectrogram": spectrogram} | waveform, meter.clipping_note()
