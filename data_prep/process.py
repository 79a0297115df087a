"""`process_clip`: the only place where media become arrays; preparing, predicting and serving call it."""

import dataclasses
import functools

import numpy as np
from jaxtyping import UInt8

from data_prep.audio import SILENCE, log_spectrogram
from data_prep.clip_features import (
    face_features,
    failed_sound,
    no_features,
    sound_features,
    without_tensors,
)
from data_prep.corpora.base import Clip
from data_prep.encoders import NO_FILES, EncoderError, EncoderFiles
from data_prep.frames import read_frames
from data_prep.media import MediaError, MediaInfo, probe
from data_prep.sampling import frame_times
from data_prep.settings import FaceSettings, PrepSettings
from data_prep.sound import sound_blocks
from emofuse_jax.data.records import Record

MAX_SECONDS = 600.0
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
) -> Record | Failure:
    """Decodes one clip into a record of `t` spectrogram frames and `s` aligned faces.

    A stream that is absent, silent, faceless or undecodable is masked and told in `Record.notes`. So is one
    that its encoder refuses, but for a sound whose spectrogram is kept: it stays, beside features of no
    vectors. Crops and features of faces share one mask, so that a failed encoder masks both. `face_time`
    counts from the clip's start, as the spectrogram does. With `classes` = 0 (predicting) `votes` is empty.
    `encoders` says where the ONNX files of `settings.features` lie. Returns a Failure when the file can't be
    decoded or neither stream is of use; raises nothing for a bad file, ValueError for bad settings or a
    missing encoder.
    """
    try:
        info = probe(clip.path)
        start, end = span(clip, info)
    except MediaError as error:
        return Failure(clip.clip_id, clip.path, str(error))
    sound, sound_note = _sound(info, start, end, settings, encoders)
    faces, face_note = _faces(info, start, end, clip.half, settings, encoders)
    if sound is None and faces is None:
        return Failure(clip.clip_id, clip.path, f"{sound_note}; {face_note}")
    fields = {"spectrogram": np.zeros((1, settings.audio.bins), np.float16), **_no_faces(settings.face)}
    record = Record(
        clip_id=clip.clip_id,
        speaker=clip.speaker,
        corpus=corpus,
        label=clip.label,
        votes=(np.arange(classes) == clip.label).astype(np.float32),
        audio_ok=sound is not None,
        video_ok=faces is not None,
        notes="; ".join(note for note in (sound_note, face_note) if note),
        **(fields | no_features(settings) | (sound or {}) | (faces or {})),
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
) -> tuple[dict | None, str]:
    """The sound fields of a record, or None and why there are none."""
    if info.sound is None:
        return None, "no sound stream"
    try:
        blocks = sound_blocks(info, start, end, settings.audio.sample_rate)
        spectrogram, level = log_spectrogram(blocks, settings.audio)
    except MediaError as error:
        return None, str(error)
    if not np.isfinite(spectrogram).all():
        return None, "sound: too loud for numbers"
    if level < SILENCE:
        return None, "sound is silent"
    try:
        features = sound_features(info, start, end, spectrogram, settings, encoders)
    except EncoderError as error:
        if settings.features.drops_sound:
            return None, str(error)
        return {"spectrogram": spectrogram} | failed_sound(settings), str(error)
    return {"spectrogram": spectrogram} | features, ""


def _faces(
    info: MediaInfo, start: float, end: float, half: str, settings: PrepSettings, encoders: EncoderFiles
) -> tuple[dict | None, str]:
    """The face fields of a record, or None and why there are none; and a remark."""
    if info.video is None:
        return None, "no video stream"
    first, last = max(start, float(info.video.times.min())), min(end, info.video.end)
    if last <= first:
        return None, "no video in this part"
    times = frame_times(info.video, first, last, settings.face)
    try:
        frames, shown, scale = read_frames(info, times)
    except MediaError as error:
        return None, str(error)
    frames, left = in_half(frames, half)
    faces, people = _track(frames, shown, settings.face)
    if not any(face is not None for face in faces):
        return None, f"no face in {len(frames)} frames"
    note = f"{people} people; used the largest, steadiest face" if people > 1 else ""
    try:
        features = face_features(frames, faces, settings, encoders)
    except EncoderError as error:
        return None, str(error)  # crops too: they share the mask
    return _face_fields(frames, faces, shown - start, scale, left, settings.face) | features, note


def _track(frames: np.ndarray, times: np.ndarray, settings: FaceSettings):
    """One face or None for each frame, and how many people there are."""
    from data_prep.faces.between import track_snippets
    from data_prep.faces.detect import detect_faces  # JAX and the weights, which sound alone can do without
    from data_prep.faces.track import choose_track

    if settings.detector != "mtcnn_v1":
        raise ValueError(f"face detector {settings.detector!r}: expected 'mtcnn_v1'")
    search = functools.partial(detect_faces, min_face=settings.min_face, min_score=settings.min_score)
    if settings.sampling == "snippets":
        return track_snippets(frames, times, settings.snippet, search)
    return choose_track(search(frames))


def in_half(frames: UInt8[np.ndarray, "s h w 3"], half: str) -> tuple[UInt8[np.ndarray, "s h _ 3"], int]:
    """The named half of each frame, or all of it; and the column where it begins."""
    middle = frames.shape[2] // 2
    if half not in ("", "left", "right"):
        raise ValueError(f"clip half {half!r}: expected 'left', 'right' or ''")
    columns = {"": slice(None), "left": slice(middle), "right": slice(middle, None)}[half]
    return frames[:, :, columns], middle if half == "right" else 0


def _face_fields(frames, faces, times, scale: float, left: int, settings: FaceSettings) -> dict:
    from data_prep.faces.align import align_face

    fields, corner = _no_faces(settings), np.array([left, 0])
    fields["face_time"] = times.astype(np.float32)
    for i, face in enumerate(faces):
        if face is None:
            continue
        fields["faces"][i] = align_face(frames[i], face, size=settings.size, margin=settings.margin)
        fields["face_valid"][i] = True
        fields["face_box"][i] = (np.asarray(face.box) + np.tile(corner, 2)) / scale
        fields["face_landmarks"][i] = (np.asarray(face.landmarks) + corner) / scale
        fields["face_score"][i] = face.score
    return fields


def _no_faces(settings: FaceSettings) -> dict:
    s, size = settings.frames, settings.size
    return {
        "faces": np.zeros((s, size, size, 3), np.uint8),
        "face_valid": np.zeros(s, bool),
        "face_time": np.zeros(s, np.float32),
        "face_box": np.zeros((s, 4), np.float32),
        "face_landmarks": np.zeros((s, 5, 2), np.float32),
        "face_score": np.zeros(s, np.float32),
    }
