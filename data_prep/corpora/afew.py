"""AFEW (Dhall et al. 2012; EmotiW): film clips of seven classes, in the official parts Train and Val.

As distributed: Train/<Class>/*.avi and Val/<Class>/*.avi; the labels of Test are not public.
"""

import os
from collections.abc import Iterator

from data_prep.corpora.classes import same
from data_prep.corpora.find_files import media_below, stem
from emofuse_jax.data.writing.corpus import Clip, Corpus, Protocol

FOLDERS = {
    "Angry": "angry",
    "Disgust": "disgust",
    "Fear": "fearful",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
}
CLASSES = tuple(FOLDERS.values())
CLASS_MAPS = {
    "7": same(*CLASSES),
    "6": same(*(name for name in CLASSES if name != "neutral")),
    "4": same("angry", "happy", "neutral", "sad"),
}
PARTS = ("Train", "Val")
COUNTS = {"Train": 773, "Val": 383}
UNKNOWN = "who is seen, and in which film, is not known: validation clips may share both with training clips"


def read_corpus(source: str) -> Corpus:
    """Train and Val below `source`; each clip counts as a speaker of its own, and Val is the test."""
    clips = [clip for part in PARTS for clip in _clips(source, part)]
    of = {part: tuple(c.speaker for c in clips if c.speaker.startswith(f"{part}/")) for part in PARTS}
    notes = [
        f"{part}: {len(of[part])} clips, expected {n}" for part, n in COUNTS.items() if len(of[part]) != n
    ]
    official = Protocol("afew_official", of["Train"] + of["Val"], (of["Val"],))
    protocols = (official,) if all(of.values()) else ()
    return Corpus("afew", CLASSES, tuple(clips), {}, (UNKNOWN, *notes), protocols=protocols)


def _clips(source: str, part: str) -> Iterator[Clip]:
    for folder, name in FOLDERS.items():
        for path in media_below(os.path.join(source, part, folder)):
            clip_id = f"{part}/{folder}/{stem(path)}"
            yield Clip(clip_id, path, CLASSES.index(name), clip_id)
