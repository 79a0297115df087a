"""Which clips a demo corpus has: states, labels, names, damages."""

import dataclasses
import itertools

import numpy as np

from data_prep.synth.clip import DAMAGES

DAMAGED_FRACTION = 0.05
STATES = tuple(itertools.product(range(3), range(2), range(2)))
"""All (p, s_f, s_v), each as likely as the others."""
EMOTION_CODES = (1, 3, 4, 5, 6, 8)
"""RAVDESS's code of each class."""


@dataclasses.dataclass(frozen=True)
class DemoClip:
    """A clip as it was made: a row of demo.csv."""

    clip_id: str
    """The file's name without the modality, as RAVDESS's takes."""
    path: str
    """Relative to the corpus."""
    label: int
    speaker: str
    p: int
    s_f: int
    s_v: int
    damage: str
    """One of DAMAGES, or empty."""
    seed: int


def class_of(p: int, s_f: int, s_v: int) -> int:
    """The class of a clip with these states: 2 p + m."""
    return 2 * p + (s_v if p == 0 else s_f ^ s_v)


def plan_corpus(num_speakers: int, clips_per_speaker: int, seed: int) -> tuple[DemoClip, ...]:
    """All clips of a corpus, ordered by speaker; each speaker goes through all states in turn, shuffled.

    A speaker with a multiple of twelve clips has every state equally often.
    """
    clips = []
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
    """Damage of each clip of a speaker; over all speakers at most DAMAGED_FRACTION, the kinds in turn."""
    previous_total, new_total = (int(DAMAGED_FRACTION * num_clips * s + 1e-9) for s in (speaker - 1, speaker))
    damages = [""] * num_clips
    for damage_number, clip_index in enumerate(rng.permutation(num_clips)[: new_total - previous_total]):
        damages[clip_index] = DAMAGES[(previous_total + damage_number) % len(DAMAGES)]
    return damages
