"""Renders one synthetic clip from its states to the bytes of an mp4 file."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.settings import SAMPLE_RATE
from data_prep.synth import face, head, room, voice
from data_prep.synth.face import FRAME_RATE, FRAME_SIZE
from data_prep.synth.media import encode_mp4

DAMAGES = ("no_face", "lost_track", "noise", "silence")
"""Kinds of damage: no face in any frame; a face hidden by a sheet of paper for half of the time or more;
noise instead of the voice; digital silence."""
CLIP_SECONDS_RANGE = (2.0, 3.5)
"""Shortest and longest clip in seconds."""
_PAPER_TOP_PIXELS = 12
_MAX_NOISE_SHIFT_PIXELS = 32  # range in pixels of the random shift of a frame's noise


def render_clip(
    *, speaker: int, p: int, s_f: int, s_v: int, damage: str, corpus_seed: int, seed: int
) -> bytes:
    """Renders a clip and returns the bytes of an mp4 file; equal arguments give equal bytes.

    The clip is 2 to 3.5 s long, with 25 frames of 224 x 224 pixels per second and mono audio at 16 kHz.

    Args:
      speaker: number of the speaker, from 1.
      p: family of the face, 0 to 2; each family has two expressions.
      s_f: state of the face, 0 or 1: the expression within the family.
      s_v: state of the voice, 0 (falling pitch, breathy) or 1 (rising pitch, tense).
      damage: `no_face`; `lost_track` (the face is hidden for half of the clip or more); `noise` or `silence`
        instead of the voice; or an empty string for none.
      corpus_seed: seed of the corpus, which determines the faces and voices of the speakers.
      seed: number of the clip, which determines all other variation.

    Raises:
      ValueError: `damage` is unknown, or `speaker` or a seed is negative.
      KeyError: `p` or `s_f` is out of range.
      IndexError: `s_v` is out of range.
      av.FFmpegError: FFmpeg can't encode H.264 or AAC.
    """
    if damage and damage not in DAMAGES:
        raise ValueError(f"damage: {damage!r}, expected one of {', '.join(DAMAGES)} or an empty string")
    timing_rng, video_rng, audio_rng = (np.random.default_rng([corpus_seed, seed, i]) for i in range(3))
    frame_count = int(
        timing_rng.integers(
            round(CLIP_SECONDS_RANGE[0] * FRAME_RATE), round(CLIP_SECONDS_RANGE[1] * FRAME_RATE) + 1
        )
    )
    speaker_voice = voice.draw_voice(speaker, corpus_seed)
    syllables = voice.draw_syllables(speaker_voice, frame_count / FRAME_RATE, timing_rng)
    waveform = _render_audio(
        speaker_voice, s_v, syllables, frame_count * SAMPLE_RATE // FRAME_RATE, damage, audio_rng
    )
    lip_opening = voice.compute_lip_opening(syllables, np.arange(frame_count) / FRAME_RATE)
    frames = _render_frames(
        head.draw_identity(speaker, corpus_seed), face.EXPRESSIONS[p, s_f], lip_opening, damage, video_rng
    )
    return encode_mp4(frames, waveform, frame_rate=FRAME_RATE, size=FRAME_SIZE)


def _render_audio(
    speaker_voice: voice.Voice,
    s_v: int,
    syllables: voice.Syllables,
    sample_count: int,
    damage: str,
    rng: np.random.Generator,
) -> Float[np.ndarray, " n"]:
    waveform = voice.synthesize(speaker_voice, s_v, syllables, sample_count, rng)
    if damage == "silence":
        return np.zeros_like(waveform)
    if damage == "noise":
        return rng.normal(0, rng.uniform(0.08, 0.2), sample_count).astype(np.float32)
    return waveform


def _render_frames(
    identity: head.Identity,
    expression: face.Expression,
    lip_opening: Float[np.ndarray, " n"],
    damage: str,
    rng: np.random.Generator,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    light = head.draw_light(rng)
    motion = face.draw_motion(identity, expression, lip_opening, rng)
    background = room.render_room(light, rng, FRAME_SIZE)
    occlusion = _draw_occlusion(len(lip_opening), damage, rng)
    if damage == "no_face" and not occlusion.any():  # show an empty room
        return _add_sensor_noise((background for _ in lip_opening), rng)
    body = room.add_body(background, identity, light, rng, face.mean_transform(motion))
    frames = face.render_frames(head.render_head(identity, light), body, identity, light.tint, motion)
    if occlusion.any():
        frames = _cover_with_paper(frames, occlusion, rng.uniform(200, 245))
    return _add_sensor_noise(frames, rng)


def _draw_occlusion(n: int, damage: str, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Draws how far a sheet of paper covers each of n frames, from 0 (not at all) to 1.

    With the damage `lost_track`, it covers half of the frames or more, at the end or the beginning; with
    `no_face`, all frames or, with equal chance, none (the clip then shows an empty room); with any other,
    none.
    """
    if damage == "no_face":
        return np.full(n, float(rng.random() < 0.5))
    if damage != "lost_track":
        return np.zeros(n)
    visible_frames = rng.uniform(0.3, 0.5) * n
    frame_indices = np.arange(n) if rng.random() < 0.5 else np.arange(n)[::-1]
    return np.clip((frame_indices - visible_frames) / 5, 0, 1)


def _cover_with_paper(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], occlusion: Float[np.ndarray, " n"], paper_brightness: float
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    for frame, covered_fraction in zip(frames, occlusion, strict=True):
        if covered_fraction > 0:
            top = round(FRAME_SIZE - covered_fraction * (FRAME_SIZE - _PAPER_TOP_PIXELS))
            cv2.rectangle(
                frame,
                (22, top),
                (FRAME_SIZE - 22, FRAME_SIZE),
                (paper_brightness, paper_brightness, 0.97 * paper_brightness),
                -1,
            )
            for line_y in range(top + 14, FRAME_SIZE, 11):
                cv2.line(frame, (36, line_y), (FRAME_SIZE - 40 - 37 * line_y % 60, line_y), (90, 90, 100), 2)
        yield frame


def _add_sensor_noise(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], rng: np.random.Generator
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames with sensor noise: one noise image for the clip, shifted at random in each frame.

    h and w are 224 (FRAME_SIZE).
    """
    noise = (
        rng.normal(
            0, rng.uniform(1, 3), (FRAME_SIZE + _MAX_NOISE_SHIFT_PIXELS, FRAME_SIZE + _MAX_NOISE_SHIFT_PIXELS)
        )
        .round()
        .clip(-20, 20)
    )
    brighter, darker = (
        cv2.cvtColor(np.maximum(sign * noise, 0).astype(np.uint8), cv2.COLOR_GRAY2RGB) for sign in (1, -1)
    )
    for frame in frames:
        y, x = divmod(int(rng.integers(0, _MAX_NOISE_SHIFT_PIXELS**2)), _MAX_NOISE_SHIFT_PIXELS)
        window = np.s_[y : y + FRAME_SIZE, x : x + FRAME_SIZE]
        yield cv2.subtract(cv2.add(frame, brighter[window]), darker[window])
