"""One synthetic clip, from its states to the bytes of an mp4."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.settings import SAMPLE_RATE
from data_prep.synth import face, head, room, voice
from data_prep.synth.face import FRAME_RATE, SIZE
from data_prep.synth.media import encode_mp4

DAMAGES = ("no_face", "lost_track", "noise", "silence")
"""What may be wrong with a clip: no face in any frame; a face that a sheet of paper hides for half of the
time or more; noise in place of the voice; no sound at all."""
SECONDS = (2.0, 3.5)
"""Shortest and longest clip."""
_SHEET_TOP = 12
_GRAIN = 32  # pixels by which a frame's noise may be shifted


def render_clip(
    *, speaker: int, p: int, s_f: int, s_v: int, damage: str, corpus_seed: int, seed: int
) -> bytes:
    """The mp4 of speaker 1, 2, ... with face (p, s_f) and voice s_v; `damage` is one of DAMAGES or empty.

    Everything else about the clip follows from `seed`, its own number, and `corpus_seed`, which sets the
    speakers; equal arguments give equal bytes. Raises ValueError on an unknown damage.
    """
    if damage and damage not in DAMAGES:
        raise ValueError(f"damage: {damage!r}, expected one of {', '.join(DAMAGES)} or none")
    timing, seen, heard = (np.random.default_rng([corpus_seed, seed, i]) for i in range(3))
    n = int(timing.integers(round(SECONDS[0] * FRAME_RATE), round(SECONDS[1] * FRAME_RATE) + 1))
    speech = voice.draw_voice(speaker, corpus_seed)
    syllables = voice.draw_syllables(speech, n / FRAME_RATE, timing)
    sound = _sound(speech, s_v, syllables, n * SAMPLE_RATE // FRAME_RATE, damage, heard)
    lips = voice.lip_opening(syllables, np.arange(n) / FRAME_RATE)
    frames = _frames(head.draw_identity(speaker, corpus_seed), face.LOOKS[p, s_f], lips, damage, seen)
    return encode_mp4(frames, sound, frame_rate=FRAME_RATE, size=SIZE)


def _sound(speech, s_v: int, syllables, samples: int, damage: str, rng) -> Float[np.ndarray, " n"]:
    sound = voice.synthesize(speech, s_v, syllables, samples, rng)
    if damage == "silence":
        return np.zeros_like(sound)
    if damage == "noise":
        return rng.normal(0, rng.uniform(0.08, 0.2), samples).astype(np.float32)
    return sound


def _frames(identity, look, lips, damage: str, rng) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    light = head.draw_light(rng)
    take = face.draw_take(identity, look, lips, rng)
    wall = room.render_room(light, rng, SIZE)
    hidden = _hidden(len(lips), damage, rng)
    if damage == "no_face" and not hidden.any():  # an empty room
        return _grain((wall for _ in lips), rng)
    body = room.add_body(wall, identity, light, rng, face.rest_placing(take))
    frames = face.render(head.render_head(identity, light), body, identity, light.tint, take)
    if hidden.any():
        frames = _behind_sheet(frames, hidden, rng.uniform(200, 245))
    return _grain(frames, rng)


def _hidden(n: int, damage: str, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """How far a sheet of paper is held up in front of the face in each frame, 0 to 1."""
    if damage == "no_face":
        return np.full(n, float(rng.random() < 0.5))
    if damage != "lost_track":
        return np.zeros(n)
    shown = rng.uniform(0.3, 0.5) * n
    frames = np.arange(n) if rng.random() < 0.5 else np.arange(n)[::-1]
    return np.clip((frames - shown) / 5, 0, 1)


def _behind_sheet(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], hidden: Float[np.ndarray, " n"], white: float
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    for frame, share in zip(frames, hidden, strict=True):
        if share > 0:
            top = round(SIZE - share * (SIZE - _SHEET_TOP))
            cv2.rectangle(frame, (22, top), (SIZE - 22, SIZE), (white, white, 0.97 * white), -1)
            for line in range(top + 14, SIZE, 11):
                cv2.line(frame, (36, line), (SIZE - 40 - 37 * line % 60, line), (90, 90, 100), 2)
        yield frame


def _grain(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], rng: np.random.Generator
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Adds a sensor's noise: one field for a clip, shifted at random from frame to frame."""
    field = rng.normal(0, rng.uniform(1, 3), (SIZE + _GRAIN, SIZE + _GRAIN)).round().clip(-20, 20)
    brighter, darker = (
        cv2.cvtColor(np.maximum(sign * field, 0).astype(np.uint8), cv2.COLOR_GRAY2RGB) for sign in (1, -1)
    )
    for frame in frames:
        y, x = divmod(int(rng.integers(0, _GRAIN**2)), _GRAIN)
        window = np.s_[y : y + SIZE, x : x + SIZE]
        yield cv2.subtract(cv2.add(frame, brighter[window]), darker[window])
