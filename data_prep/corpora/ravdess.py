"""RAVDESS speech (Livingstone & Russo 2018): 24 actors, 8 emotions, 1440 takes, each as up to three files."""

import collections
import hashlib
import itertools
import os
import re

from data_prep.corpora.classes import same
from data_prep.corpora.find_files import files_below
from data_prep.corpora.reference_counts import Expected, checked
from emofuse_jax.data.writing.corpus import Clip, Corpus

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CALM = {"neutral": "neutral", "calm": "neutral"}
CLASS_MAPS = {
    "8": same(*CLASSES),
    "7": CALM | same(*CLASSES[2:]),
    "6": CALM | same("happy", "sad", "angry", "fearful", "disgust"),
    "4": CALM | same("happy", "sad", "angry"),
}
NAME = re.compile(r"(0[123])-((0[12])-(0[1-8])-0[12]-0[12]-0[12]-(\d\d))\.(mp4|wav|flac)$", re.IGNORECASE)
"""modality-vocal channel-emotion-intensity-sentence-repetition-actor"""
PREFERENCE = {"01": 0, "03": 1, "02": 2}
"""Audio-video, then sound only, then video only: one file stands for the take."""
TAKES = frozenset(
    f"01-{emotion:02d}-{intensity:02d}-{sentence:02d}-{repetition:02d}-{actor:02d}"
    for emotion, intensity, sentence, repetition, actor in itertools.product(
        range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
    )
    if (emotion, intensity) != (1, 2)  # there is no strong neutral
)
EXPECTED = Expected(
    clips=1440,
    speakers=24,
    classes={"neutral": 96} | dict.fromkeys(CLASSES[1:], 192),
    per_speaker=60,
    takes=TAKES,
)


def read_corpus(source: str) -> Corpus:
    """All speech takes below `source`, wherever they lie; the speaker is the actor's number, odd is male."""
    takes: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    songs = 0
    for path in files_below(source):
        match = NAME.search(os.path.basename(path))
        if match and match[3] == "01":
            takes[match[2]].append((PREFERENCE[match[1]], path))
        songs += bool(match and match[3] == "02")
    clips = tuple(_clip(take, min(takes[take])[1]) for take in sorted(takes))
    copies = sum(map(len, takes.values())) - len(clips)
    notes = [f"{copies} further copies of takes (other modalities or folders) not used"] if copies else []
    notes += [f"{songs} songs not used: the corpus is the speech part"] if songs else []
    notes += [f"identical to the byte: {' and '.join(same)}" for same in identical(clips)]
    actors = sorted({clip.speaker for clip in clips})
    sex = {actor: "m" if int(actor) % 2 else "f" for actor in actors}
    return checked(Corpus("ravdess", CLASSES, clips, sex, tuple(notes)), EXPECTED)


def _clip(take: str, path: str) -> Clip:
    _, emotion, _, _, _, actor = take.split("-")
    return Clip(take, path, int(emotion) - 1, actor)


def identical(clips: tuple[Clip, ...]) -> list[list[str]]:
    """clip_ids of takes whose files are the same to the byte; only files of equal size are read."""
    by_size = collections.defaultdict(list)
    for clip in clips:
        by_size[os.path.getsize(clip.path)].append(clip)
    by_hash = collections.defaultdict(list)
    for group in by_size.values():
        for clip in group if len(group) > 1 else ():
            with open(clip.path, "rb") as file:
                by_hash[hashlib.file_digest(file, "sha256").digest()].append(clip.clip_id)
    return sorted(sorted(same) for same in by_hash.values() if len(same) > 1)
