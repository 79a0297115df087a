"""`process_clip`: the only place where media become arrays; preparing, predicting and serving call it."""

import dataclasses

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
from emofuse_jax.data.records import Record
from emofuse_jax.data.writing.corpus import Clip

MAX_CLIP_SECONDS = 3600.0
"""Longest clip that one record holds; a longer file is cut by `start` and `end`."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that gave no record, and why, in one line."""

    clip_id: str
    path: str
    reason: str


def process_clip(
    clip: Clip,
    settings: PrepSettings,
    *,
    corpus: str = "",
    num_classes: int = 0,
    encoder_files: EncoderFiles = NO_ENCODER_FILES,
    should_find_faces: bool = True,
    person: int = 0,
) -> Record | Failure:
    """Decodes one clip into a record of `t` spectrogram frames and `s` aligned faces.

    A stream that is absent, silent, faceless or undecodable is masked and told in `Record.notes`. So is
    one that its encoder refuses, but for a sound whose spectrogram is kept: it stays, beside features of
    no vectors. Crops and features of faces share one mask, so that a failed encoder masks both. With
    `settings.audio.trim_db` the clip is what is left of it. `face_time` counts from the clip's start, as
    the spectrogram does: sound that begins later has silence before it, and where it ends before the
    picture, the spectrogram ends too. Heavily clipped sound is kept and told. With `num_classes` = 0
    (predicting) `votes` is empty. `encoder_files` says where the ONNX files of `settings.features` lie;
    without `should_find_faces` none are searched for, and `person` says which of several people (0: the one
    that the clip is about). Returns a Failure when the file can't be decoded or neither
    stream is of use; raises nothing for a bad file, ValueError for bad settings or a missing encoder.
    """
    try:
        info = probe_media(clip.path)
        start, end = clip_span(clip, info)
    except MediaError as error:
        return Failure(clip.clip_id, clip.path, str(error))
    audio_fields, audio_note, (start, end) = _extract_audio_fields(info, start, end, settings, encoder_files)
    video_clip = VideoClip(info, start, end, clip.half)
    face_fields, face_note = (
        extract_face_fields(video_clip, settings, encoder_files, person) if should_find_faces else (None, "")
    )
    notes = "; ".join(note for note in (audio_note, face_note) if note)
    if audio_fields is None and face_fields is None:
        return Failure(clip.clip_id, clip.path, notes)
    fields = {
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


def clip_span(clip: Clip, info: MediaInfo) -> tuple[float, float]:
    """Start and end of the clip in seconds of the file; raises MediaError when they hold nothing."""
    start = clip.start or 0.0
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    if start < 0 or start >= info.duration:
        raise MediaError(f"start {start:g} s: the file has 0 to {info.duration:.2f} s")
    if end <= start:
        raise MediaError(f"end {end:g} s: expected more than start {start:g} s")
    if end - start > MAX_CLIP_SECONDS:
        raise MediaError(
            f"{end - start:.0f} s long: at most {MAX_CLIP_SECONDS:.0f} s; cut it by start and end"
        )
    return start, end


def _extract_audio_fields(
    info: MediaInfo, start: float, end: float, settings: PrepSettings, encoder_files: EncoderFiles
) -> tuple[dict | None, str, tuple[float, float]]:
    """The sound fields of a record, or None and why there are none; start and end of the trimmed clip."""
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
    fields: dict, start: float, end: float, audio_settings: AudioSettings
) -> tuple[dict, tuple[float, float]]:
    """The fields cut to where there is sound (`trim_db`), and where in the file that is."""
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
) -> tuple[dict | None, str]:
    """Spectrogram and waveform, decoded once, and a remark; or None and why there are none."""
    if info.audio is None:
        return None, "no sound stream"
    if info.audio.end <= start:
        return None, "no sound in this part"
    meter, waveform_bytes = ClippingMeter(), bytearray()
    blocks = read_audio_blocks(info, start, end, settings.sample_rate, meter)
    try:
        spectrogram, rms = log_spectrogram(
            tee_int16(blocks, waveform_bytes) if settings.waveform else blocks, settings
        )
    except MediaError as error:
        return None, str(error)
    if not np.isfinite(spectrogram).all():
        return None, "sound: too loud for numbers"
    if rms < SILENCE_RMS:
        return None, "sound is silent"
    waveform = {"waveform": np.frombuffer(waveform_bytes, np.int16)} if settings.waveform else {}
    return {"spectrogram": spectrogram} | waveform, meter.clipping_note()
