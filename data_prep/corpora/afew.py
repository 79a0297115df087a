"""Reads AFEW (Dhall et al. 2012; EmotiW): film clips of seven classes, in the official parts Train and Val.

Files as distributed: Train/<Class>/*.avi and Val/<Class>/*.avi. The labels of Test are not public.
"""

import os
from collections.abc import Iterator

from data_prep.corpora.classes import identity_class_map
from data_prep.corpora.find_files import file_stem, find_media_files
from emofuse_jax.data.writing.corpus import Corpus, EvaluationProtocol, MediaClip

FOLDER_TO_CLASS = {
    "Angry": "angry",
    "Disgust": "disgust",
    "Fear": "fearful",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
}
CLASSES = tuple(FOLDER_TO_CLASS.values())
CLASS_MAPS = {
    "7": identity_class_map(*CLASSES),
    "6": identity_class_map(*(name for name in CLASSES if name != "neutral")),
    "4": identity_class_map("angry", "happy", "neutral", "sad"),
}
SPLITS = ("Train", "Val")
EXPECTED_CLIPS = {"Train": 773, "Val": 383}
UNKNOWN_SPEAKERS_NOTE = (
    "actors and films of the clips are unknown: training and validation clips may share them"
)


def read_corpus(source: str) -> Corpus:
    """Returns a `Corpus` with the clips of Train and Val in the folder `source`, and seven original classes.

    The classes are, in this order, angry, disgust, fearful, happy, neutral, sad and surprised. A clip has a
    clip_id such as `Train/Angry/000046280`, its path, which begins with `source`, and a label, an index into
    the classes. Clips are ordered by part (Train first), class and path. Speakers are unknown: the speaker of
    each clip is its clip_id, and `sex` is empty. If both parts have clips, `protocols` has
    `afew_official`, one fold that trains on Train and tests on Val; otherwise it is empty. Notes say that
    speakers are unknown, and list differences from the published numbers. If `source` has neither part, the
    corpus has no clips, and no error is raised.
    """
    clips = [clip for split in SPLITS for clip in _list_clips(source, split)]
    speakers = {
        split: tuple(c.speaker for c in clips if c.speaker.startswith(f"{split}/")) for split in SPLITS
    }
    notes = [
        f"{split}: {len(speakers[split])} clips, expected {expected_clips}"
        for split, expected_clips in EXPECTED_CLIPS.items()
        if len(speakers[split]) != expected_clips
    ]
    official_protocol = EvaluationProtocol(
        "afew_official", speakers["Train"] + speakers["Val"], (speakers["Val"],)
    )
    protocols = (official_protocol,) if all(speakers.values()) else ()
    return Corpus("afew", CLASSES, tuple(clips), {}, (UNKNOWN_SPEAKERS_NOTE, *notes), protocols=protocols)


def _list_clips(source: str, split: str) -> Iterator[MediaClip]:
    for folder, class_name in FOLDER_TO_CLASS.items():
        for path in find_media_files(os.path.join(source, split, folder)):
            clip_id = f"{split}/{folder}/{file_stem(path)}"
            yield MediaClip(clip_id, path, CLASSES.index(class_name), clip_id)
