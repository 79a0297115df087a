"""RAVDESS speech (Livingstone & Russo 2018): 24 actors, 8 emotions, 1440 takes, each as up to three files."""

import collections
import hashlib
import itertools
import os
import re

from data_prep.corpora.classes import identity_class_map
from data_prep.corpora.find_files import find_files
from data_prep.corpora.reference_counts import ExpectedCounts, add_difference_notes
from emofuse_jax.data.writing.corpus import Clip, Corpus

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CALM_AS_NEUTRAL = {"neutral": "neutral", "calm": "neutral"}
CLASS_MAPS = {
    "8": identity_class_map(*CLASSES),
    "7": CALM_AS_NEUTRAL | identity_class_map(*CLASSES[2:]),
    "6": CALM_AS_NEUTRAL | identity_class_map("happy", "sad", "angry", "fearful", "disgust"),
    "4": CALM_AS_NEUTRAL | identity_class_map("happy", "sad", "angry"),
}
FILE_NAME_PATTERN = re.compile(
    r"(0[123])-((0[12])-(0[1-8])-0[12]-0[12]-0[12]-(\d\d))\.(mp4|wav|flac)$", re.IGNORECASE
)
"""modality-vocal channel-emotion-intensity-sentence-repetition-actor"""
MODALITY_PREFERENCE = {"01": 0, "03": 1, "02": 2}
"""Audio-video, then sound only, then video only: one file stands for the take."""
EXPECTED_TAKES = frozenset(
    f"01-{emotion:02d}-{intensity:02d}-{sentence:02d}-{repetition:02d}-{actor:02d}"
    for emotion, intensity, sentence, repetition, actor in itertools.product(
        range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
    )
    if (emotion, intensity) != (1, 2)  # there is no strong neutral
)
EXPECTED_COUNTS = ExpectedCounts(
    clips=1440,
    speakers=24,
    classes={"neutral": 96} | dict.fromkeys(CLASSES[1:], 192),
    clips_per_speaker=60,
    clip_ids=EXPECTED_TAKES,
)


def read_corpus(source: str) -> Corpus:
    """All speech takes below `source`, wherever they lie; the speaker is the actor's number, odd is male."""
    takes: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    song_count = 0
    for path in find_files(source):
        match = FILE_NAME_PATTERN.search(os.path.basename(path))
        if match and match[3] == "01":
            takes[match[2]].append((MODALITY_PREFERENCE[match[1]], path))
        song_count += bool(match and match[3] == "02")
    clips = tuple(_make_clip(take, min(takes[take])[1]) for take in sorted(takes))
    unused_files = sum(map(len, takes.values())) - len(clips)
    notes = (
        [f"{unused_files} further copies of takes (other modalities or folders) not used"]
        if unused_files
        else []
    )
    notes += [f"{song_count} songs not used: the corpus is the speech part"] if song_count else []
    notes += [f"identical to the byte: {' and '.join(clip_ids)}" for clip_ids in find_identical_clips(clips)]
    actors = sorted({clip.speaker for clip in clips})
    sex = {actor: "m" if int(actor) % 2 else "f" for actor in actors}
    return add_difference_notes(Corpus("ravdess", CLASSES, clips, sex, tuple(notes)), EXPECTED_COUNTS)


def _make_clip(take: str, path: str) -> Clip:
    _, emotion, _, _, _, actor = take.split("-")
    return Clip(take, path, int(emotion) - 1, actor)


def find_identical_clips(clips: tuple[Clip, ...]) -> list[list[str]]:
    """clip_ids of takes whose files are the same to the byte; only files of equal size are read."""
    by_size = collections.defaultdict(list)
    for clip in clips:
        by_size[os.path.getsize(clip.path)].append(clip)
    by_hash = collections.defaultdict(list)
    for group in by_size.values():
        for clip in group if len(group) > 1 else ():
            with open(clip.path, "rb") as file:
                by_hash[hashlib.file_digest(file, "sha256").digest()].append(clip.clip_id)
    return sorted(sorted(clip_ids) for clip_ids in by_hash.values() if len(clip_ids) > 1)
