"""Reads RAVDESS speech (Livingstone & Russo 2018): 24 actors, 8 emotions, 1440 takes of up to three files."""

import collections
import hashlib
import itertools
import os
import re

from data_prep.corpora.classes import identity_class_map
from data_prep.corpora.find_files import find_files
from data_prep.corpora.reference_counts import ExpectedCounts, add_difference_notes
from emofuse_jax.data.writing.corpus import Corpus, MediaClip

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
"""File names: modality-vocal channel-emotion-intensity-sentence-repetition-actor."""
MODALITY_PREFERENCE = {"01": 0, "03": 1, "02": 2}
"""Rank of each modality: audio with video, audio only, video only; the best file represents the take."""
EXPECTED_TAKES = frozenset(
    f"01-{emotion:02d}-{intensity:02d}-{sentence:02d}-{repetition:02d}-{actor:02d}"
    for emotion, intensity, sentence, repetition, actor in itertools.product(
        range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
    )
    if (emotion, intensity) != (1, 2)  # the corpus has no strong neutral
)
EXPECTED_COUNTS = ExpectedCounts(
    clips=1440,
    speakers=24,
    classes={"neutral": 96} | dict.fromkeys(CLASSES[1:], 192),
    clips_per_speaker=60,
    clip_ids=EXPECTED_TAKES,
)


def read_corpus(source: str) -> Corpus:
    """Returns a `Corpus` with all speech takes in any folder below `source`, and the eight original classes.

    The classes are, in this order, neutral, calm, happy, sad, angry, fearful, disgust and surprised. Each
    take is one clip: clip_id such as `01-05-01-01-01-12`; path of its best file (audio with video, else
    audio, else video), which begins with `source`; label, an index into the classes; and the actor's number,
    such as `12`, as speaker. Clips are ordered by clip_id; `sex` is `m` for odd numbers, otherwise `f`. Notes
    list unused and identical files and differences from the published numbers. Raises OSError if a file is a
    broken link, or one of several files of equal size can't be read.
    """
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
        [f"{unused_files} more files of the same takes (other modalities or folders), not used"]
        if unused_files
        else []
    )
    notes += [f"{song_count} songs, not used: only the speech part is read"] if song_count else []
    notes += [f"identical files: {' and '.join(clip_ids)}" for clip_ids in find_identical_clips(clips)]
    actors = sorted({clip.speaker for clip in clips})
    sex = {actor: "m" if int(actor) % 2 else "f" for actor in actors}
    return add_difference_notes(Corpus("ravdess", CLASSES, clips, sex, tuple(notes)), EXPECTED_COUNTS)


def _make_clip(take: str, path: str) -> MediaClip:
    _, emotion, _, _, _, actor = take.split("-")
    return MediaClip(take, path, int(emotion) - 1, actor)


def find_identical_clips(clips: tuple[MediaClip, ...]) -> list[list[str]]:
    """Returns a sorted list of groups, sorted lists of the clip_ids whose files are identical.

    A file is read at `clip.path`, which is absolute or relative to the working directory, and only if another
    file has the same size. The list is empty if all files differ. Raises OSError if a file does not exist or
    can't be read.
    """
    by_size = collections.defaultdict(list)
    for clip in clips:
        by_size[os.path.getsize(clip.path)].append(clip)
    by_hash = collections.defaultdict(list)
    for group in by_size.values():
        for clip in group if len(group) > 1 else ():
            with open(clip.path, "rb") as file:
                by_hash[hashlib.file_digest(file, "sha256").digest()].append(clip.clip_id)
    return sorted(sorted(clip_ids) for clip_ids in by_hash.values() if len(clip_ids) > 1)
