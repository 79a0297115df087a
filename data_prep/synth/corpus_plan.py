"""Plans the clips of a demo corpus: states, labels, names and damages."""

import dataclasses
import itertools

import numpy as np

from data_prep.synth.clip import DAMAGES

DAMAGED_FRACTION = 0.05
"""Fraction of damaged clips."""
STATES = tuple(itertools.product(range(3), range(2), range(2)))
"""All states (p, s_f, s_v), which are equally likely."""
EMOTION_CODES = (1, 3, 4, 5, 6, 8)
"""Emotion code of each class in the file names of RAVDESS."""


@dataclasses.dataclass(frozen=True)
class DemoClip:
    """A clip of the demo corpus: a row of demo.csv."""

    clip_id: str
    """File name without the modality, like the takes of RAVDESS."""
    path: str
    """Path relative to the folder of the corpus."""
    label: int
    speaker: str
    p: int
    s_f: int
    s_v: int
    damage: str
    """One of DAMAGES, or empty."""
    seed: int


def class_of(p: int, s_f: int, s_v: int) -> int:
    """Returns the class, 0 to 5, of a clip: `2 p + m`.

    p is the family of the face (0 to 2), s_f the state of the face and s_v the state of the voice (0 or
    1); m is s_v if p is 0, else 1 if s_f and s_v differ, else 0.
    """
    return 2 * p + (s_v if p == 0 else s_f ^ s_v)


def plan_corpus(num_speakers: int, clips_per_speaker: int, seed: int) -> tuple[DemoClip, ...]:
    """Returns all clips of a corpus, ordered by speaker; `seed` determines states and damages.

    Each `DemoClip` has `clip_id`, such as `01-04-01-01-01-01`; `path`, relative to the corpus, such as
    `Actor_01/01-01-04-01-01-01-01.mp4`; `speaker`, "01", "02", ...; `p`, the family of the face (0 to 2), and
    `s_f` and `s_v`, the states of the face and of the voice (0 or 1); `label`, the class 2 p + m: m is s_v if
    p is 0, else 1 if s_f and s_v differ, else 0; `damage`, `no_face`, `lost_track` (the face is hidden for
    half of the clip or more), `noise` or `silence` instead of the voice, or empty; and `seed`, the number of
    the clip in the corpus, from 0. Each speaker has all twelve combinations of p, s_f and s_v in random
    order, then all again, and so on. The tuple is empty if `num_speakers` is below 1. Raises ValueError if
    `clips_per_speaker` is below 1 or `seed` is negative.
    """
    clips: list[DemoClip] = []
    for speaker in range(1, num_speakers + 1):
        rng = np.random.default_rng([seed, 1, speaker])
        rounds = -(-clips_per_speaker // len(STATES))
        order = np.concatenate([rng.permutation(len(STATES)) for _ in range(rounds)])[:clips_per_speaker]
        damages = _draw_damages(speaker, clips_per_speaker, rng)
        takes: dict[int, int] = {}
        for state, damage in zip(order, damages, strict=True):
            p, s_f, s_v = STATES[state]
            label = class_of(p, s_f, s_v)
            take = takes[label] = takes.get(label, -1) + 1
            name = f"{EMOTION_CODES[label]:02d}-01-{take % 2 + 1:02d}-{take // 2 + 1:02d}-{speaker:02d}"
            clip_id, path = f"01-{name}", f"Actor_{speaker:02d}/01-01-{name}.mp4"
            clips.append(DemoClip(clip_id, path, label, f"{speaker:02d}", p, s_f, s_v, damage, len(clips)))
    return tuple(clips)


def _draw_damages(speaker: int, num_clips: int, rng: np.random.Generator) -> list[str]:
    """Draws the damage of each clip of speaker 1, 2, ...; an empty string means none.

    A damage is `no_face`, `lost_track`, `noise` or `silence` (DAMAGES). Over all speakers, at most the
    fraction 0.05 (DAMAGED_FRACTION) is damaged, and the four kinds follow each other in turn.
    """
    previous_total, new_total = (int(DAMAGED_FRACTION * num_clips * s + 1e-9) for s in (speaker - 1, speaker))
    damages = [""] * num_clips
    for damage_number, clip_index in enumerate(rng.permutation(num_clips)[: new_total - previous_total]):
        damages[clip_index] = DAMAGES[(previous_total + damage_number) % len(DAMAGES)]
    return damages
