"""`process_clip`: the only place where media become arrays; preparing, predicting and serving call it."""

import dataclasses

import numpy as np
from jaxtyping import Float

from data_prep.audio import SILENCE, log_spectrogram
from data_prep.corpora.base import Clip
from data_prep.frames import read_frames
from data_prep.media import MediaError, MediaInfo, probe
from data_prep.settings import AudioSettings, FaceSettings, PrepSettings
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
    clip: Clip, settings: PrepSettings, *, corpus: str = "", classes: int = 0
) -> Record | Failure:
    """Decodes one clip into a record of `t` spectrogram frames and `s` aligned faces.

    A stream that is absent, silent, faceless or undecodable is masked and told in `Record.notes`.
    `face_time` counts from the clip's start, as the spectrogram does. With `classes` = 0 (predicting)
    `votes` is empty. Returns a Failure when the file can't be decoded or neither stream is of use;
    raises nothing for a bad file, ValueError for bad settings.
    """
    try:
        info = probe(clip.path)
        start, end = span(clip, info)
    except MediaError as error:
        return Failure(clip.clip_id, clip.path, str(error))
    sound, sound_note = _sound(info, start, end, settings.audio)
    faces, face_note = _faces(info, start, end, settings.face)
    if sound is None and faces is None:
        return Failure(clip.clip_id, clip.path, f"{sound_note}; {face_note}")
    nothing = np.zeros((1, settings.audio.bins), np.float16)
    return Record(
        clip_id=clip.clip_id,
        speaker=clip.speaker,
        corpus=corpus,
        label=clip.label,
        votes=(np.arange(classes) == clip.label).astype(np.float32),
        spectrogram=nothing if sound is None else sound,
        audio_ok=sound is not None,
        video_ok=faces is not None,
        notes="; ".join(note for note in (sound_note, face_note) if note),
        **(_no_faces(settings.face) if faces is None else faces),
    )


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
    info: MediaInfo, start: float, end: float, settings: AudioSettings
) -> tuple[Float[np.ndarray, "t f"] | None, str]:
    """The spectrogram, or None and why there is none."""
    if info.sound is None:
        return None, "no sound stream"
    try:
        blocks = sound_blocks(info, start, end, settings.sample_rate)
        spectrogram, level = log_spectrogram(blocks, settings)
    except MediaError as error:
        return None, str(error)
    if not np.isfinite(spectrogram).all():
        return None, "sound: too loud for numbers"
    if level < SILENCE:
        return None, "sound is silent"
    return spectrogram, ""


def _faces(info: MediaInfo, start: float, end: float, settings: FaceSettings) -> tuple[dict | None, str]:
    """The face fields of a record, or None and why there are none; and a remark."""
    if info.video is None:
        return None, "no video stream"
    if settings.sampling != "even":
        raise ValueError(f"frame sampling {settings.sampling!r}: expected 'even'")
    first, last = max(start, float(info.video.times.min())), min(end, info.video.end)
    if last <= first:
        return None, "no video in this part"
    times = first + (np.arange(settings.frames) + 0.5) * (last - first) / settings.frames
    try:
        frames, shown, scale = read_frames(info, times)
    except MediaError as error:
        return None, str(error)
    faces, people = _track(frames, settings)
    if not any(face is not None for face in faces):
        return None, f"no face in {len(frames)} frames"
    note = f"{people} people; used the largest, steadiest face" if people > 1 else ""
    return _face_fields(frames, faces, shown - start, scale, settings), note


def _track(frames: np.ndarray, settings: FaceSettings):
    """One face or None for each frame, and how many people there are."""
    from data_prep.faces.detect import detect_faces  # JAX and the weights, which sound alone can do without
    from data_prep.faces.track import choose_track

    if settings.detector != "mtcnn_v1":
        raise ValueError(f"face detector {settings.detector!r}: expected 'mtcnn_v1'")
    return choose_track(detect_faces(frames, min_face=settings.min_face, min_score=settings.min_score))


def _face_fields(frames, faces, times, scale: float, settings: FaceSettings) -> dict:
    from data_prep.faces.align import align_face

    fields = _no_faces(settings)
    fields["face_time"] = times.astype(np.float32)
    for i, face in enumerate(faces):
        if face is None:
            continue
        fields["faces"][i] = align_face(frames[i], face, size=settings.size, margin=settings.margin)
        fields["face_valid"][i] = True
        fields["face_box"][i] = np.asarray(face.box) / scale
        fields["face_landmarks"][i] = np.asarray(face.landmarks) / scale
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
