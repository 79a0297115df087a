"""`process_clip`: the only place where media become arrays; preparing, predicting and serving call it."""

import dataclasses

import numpy as np

from data_prep.face_fields import clip_faces, no_faces
from data_prep.feature_fields import failed_sound, no_features, sound_features, without_tensors
from data_prep.media.audio_track import Meter, kept, sound_blocks
from data_prep.media.probe import MediaError, MediaInfo, probe
from data_prep.media.video_clip import Film
from data_prep.onnx_models.encoders import NO_FILES, EncoderError, EncoderFiles
from data_prep.settings import AudioSettings, PrepSettings
from data_prep.spectrogram import SILENCE, log_spectrogram, sounding
from emofuse_jax.data.records import Record
from emofuse_jax.data.writing.corpus import Clip

MAX_SECONDS = 3600.0
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
    classes: int = 0,
    encoders: EncoderFiles = NO_FILES,
    faces: bool = True,
    person: int = 0,
) -> Record | Failure:
    """Decodes one clip into a record of `t` spectrogram frames and `s` aligned faces.

    A stream that is absent, silent, faceless or undecodable is masked and told in `Record.notes`. So is
    one that its encoder refuses, but for a sound whose spectrogram is kept: it stays, beside features of
    no vectors. Crops and features of faces share one mask, so that a failed encoder masks both. With
    `settings.audio.trim_db` the clip is what is left of it. `face_time` counts from the clip's start, as
    the spectrogram does: sound that begins later has silence before it, and where it ends before the
    picture, the spectrogram ends too. Heavily clipped sound is kept and told. With `classes` = 0
    (predicting) `votes` is empty. `encoders` says where the ONNX files of `settings.features` lie;
    without `faces` none are searched for, and `person` says which of several people (0: the one that the
    clip is about). Returns a Failure when the file can't be decoded or neither
    stream is of use; raises nothing for a bad file, ValueError for bad settings or a missing encoder.
    """
    try:
        info = probe(clip.path)
        start, end = span(clip, info)
    except MediaError as error:
        return Failure(clip.clip_id, clip.path, str(error))
    sound, sound_note, (start, end) = _sound(info, start, end, settings, encoders)
    film = Film(info, start, end, clip.half)
    found, face_note = clip_faces(film, settings, encoders, person) if faces else (None, "")
    notes = "; ".join(note for note in (sound_note, face_note) if note)
    if sound is None and found is None:
        return Failure(clip.clip_id, clip.path, notes)
    fields = {"spectrogram": np.zeros((1, settings.audio.bins), np.float16), **no_faces(settings.face)}
    if settings.audio.waveform:
        fields["waveform"] = np.zeros(0, np.int16)
    record = Record(
        clip_id=clip.clip_id,
        speaker=clip.speaker,
        corpus=corpus,
        label=clip.label,
        votes=(np.arange(classes) == clip.label).astype(np.float32),
        audio_ok=sound is not None,
        video_ok=found is not None,
        notes=notes,
        **(fields | no_features(settings) | (sound or {}) | (found or {})),
    )
    return without_tensors(record, settings)


def span(clip: Clip, info: MediaInfo) -> tuple[float, float]:
    """Start and end of the clip in seconds of the file; raises MediaError when they hold nothing."""
    start = clip.start or 0.0
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    if start < 0 or start >= info.duration:
        raise MediaError(f"start {start:g} s: the file has 0 to {info.duration:.2f} s")
    if end <= start:
        raise MediaError(f"end {end:g} s: expected more than start {start:g} s")
    if end - start > MAX_SECONDS:
        raise MediaError(f"{end - start:.0f} s long: at most {MAX_SECONDS:.0f} s; cut it by start and end")
    return start, end


def _sound(
    info: MediaInfo, start: float, end: float, settings: PrepSettings, encoders: EncoderFiles
) -> tuple[dict | None, str, tuple[float, float]]:
    """The sound fields of a record, or None and why there are none; start and end of the trimmed clip."""
    fields, note = _heard(info, start, end, settings.audio)
    if fields is None:
        return None, note, (start, end)
    fields, (start, end) = _trimmed(fields, start, end, settings.audio)
    try:
        features = sound_features(info, start, end, fields["spectrogram"], settings, encoders)
    except EncoderError as error:
        if settings.features.drops_sound:
            return None, str(error), (start, end)
        return fields | failed_sound(settings), "; ".join(filter(None, (note, str(error)))), (start, end)
    return fields | features, note, (start, end)


def _trimmed(
    fields: dict, start: float, end: float, audio: AudioSettings
) -> tuple[dict, tuple[float, float]]:
    """The fields cut to where there is sound (`trim_db`), and where in the file that is."""
    spectrogram = fields["spectrogram"]
    part = sounding(spectrogram, audio)
    if part == slice(0, len(spectrogram)):
        return fields, (start, end)
    cut, last, hop = {"spectrogram": spectrogram[part]}, part.stop - 1, audio.hop_ms / 1000
    if audio.waveform:
        samples = round(audio.sample_rate * hop)
        cut["waveform"] = fields["waveform"][part.start * samples : last * samples]
    return cut, (start + part.start * hop, min(end, start + last * hop))


def _heard(info: MediaInfo, start: float, end: float, settings: AudioSettings) -> tuple[dict | None, str]:
    """Spectrogram and waveform, decoded once, and a remark; or None and why there are none."""
    if info.sound is None:
        return None, "no sound stream"
    if info.sound.end <= start:
        return None, "no sound in this part"
    meter, samples = Meter(), bytearray()
    blocks = sound_blocks(info, start, end, settings.sample_rate, meter)
    try:
        spectrogram, level = log_spectrogram(kept(blocks, samples) if settings.waveform else blocks, settings)
    except MediaError as error:
        return None, str(error)
    if not np.isfinite(spectrogram).all():
        return None, "sound: too loud for numbers"
    if level < SILENCE:
        return None, "sound is silent"
    waveform = {"waveform": np.frombuffer(samples, np.int16)} if settings.waveform else {}
    return {"spectrogram": spectrogram} | waveform, meter.note()
