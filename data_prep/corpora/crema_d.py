"""Reads CREMA-D (Cao et al. 2014): 91 actors, 12 sentences, 6 emotions, 7442 clips with votes of raters.

Files as in its repository: VideoFlash/*.flv, AudioWAV/*.wav, processedResults/summaryTable.csv (votes of the
raters) and VideoDemographics.csv (sex of the actors). They may be in any folder below the source, and some
may be missing.
"""

import csv
import dataclasses
import os
import re

from data_prep.corpora.classes import identity_class_map
from data_prep.corpora.find_files import file_stem, find_files
from data_prep.corpora.reference_counts import ExpectedCounts, add_difference_notes, format_names
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.utils.files import open_csv

CODE_TO_CLASS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
CLASSES = tuple(CODE_TO_CLASS.values())
CLASS_MAPS = {"6": identity_class_map(*CLASSES), "4": identity_class_map("angry", "happy", "neutral", "sad")}
LABELS = ("intended", "perceived")
FILE_NAME_PATTERN = re.compile(
    r"((1\d{3})_[A-Z]{3}_([A-Z]{3})_(?:LO|MD|HI|XX|X))\.(flv|mp4|wav|mp3)$", re.IGNORECASE
)
"""File names: actor_sentence_emotion_intensity."""
EXTENSION_PREFERENCE = ("flv", "mp4", "wav", "mp3")
BROKEN_CLIPS = ("1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD")
"""Clips that are broken or mislabelled in the distributed corpus."""
EXPECTED_COUNTS = ExpectedCounts(
    clips=7442, speakers=91, classes=dict.fromkeys(CLASSES, 1271) | {"neutral": 1087}
)
VOTES_FILE, ACTORS_FILE = "summaryTable.csv", "VideoDemographics.csv"


def read_corpus(source: str, labels: str = "intended") -> Corpus:
    """Returns a `Corpus` with the clips below `source`; video files are preferred to audio files.

    The classes are, in this order, angry, disgust, fearful, happy, neutral and sad; `sex` has `f` or `m` by
    actor, and is empty without VideoDemographics.csv. Clips are ordered by clip_id; there are none if no file
    name fits. A clip has a clip_id such as `1001_DFA_ANG_XX`, its path, which
    begins with `source`, a label, an index into the classes, and the actor, such as `1001`, as speaker. Four
    clips that are known to be broken are left out. Notes list left out and missing clips and differences from
    the published numbers.

    Args:
      source: folder of the corpus.
      labels: `intended`: the emotion that the actor had to show; `perceived` (or any other text): the
        majority vote of raters who saw video with audio. Clips without a majority are left out, and a note
        names them.

    Raises:
      ValueError: a table is not a CSV file in UTF-8 or lacks a column or a value, or `labels` is `perceived`
        and summaryTable.csv is missing or has no rows.
      OSError: summaryTable.csv or VideoDemographics.csv can't be read.
    """
    best_files: dict[str, tuple[int, str, re.Match[str]]] = {}
    paths = list(find_files(source))
    for path in paths:
        match = FILE_NAME_PATTERN.search(os.path.basename(path))
        if match and match[3].upper() in CODE_TO_CLASS:
            rank = (EXTENSION_PREFERENCE.index(match[4].lower()), path, match)
            best_files[match[1]] = min(best_files.get(match[1], rank), rank, key=lambda r: r[:2])
    clips = tuple(_make_clip(name, *best_files[name][1:]) for name in sorted(best_files))
    votes = _read_columns(paths, VOTES_FILE, "FileName", "MultiModalVote")
    sex = {
        actor: sex_text[:1].lower()
        for actor, sex_text in _read_columns(paths, ACTORS_FILE, "ActorID", "Sex").items()
    }
    notes = format_names("missing according to summaryTable.csv", votes.keys() - best_files.keys())
    corpus = _without_broken_clips(
        add_difference_notes(Corpus("crema_d", CLASSES, clips, sex, tuple(notes)), EXPECTED_COUNTS)
    )
    return corpus if labels == "intended" else _with_perceived_labels(corpus, votes)


def _without_broken_clips(corpus: Corpus) -> Corpus:
    clips = tuple(clip for clip in corpus.clips if clip.clip_id not in BROKEN_CLIPS)
    notes = format_names(
        "known to be broken or mislabelled, left out", {c.clip_id for c in corpus.clips} & set(BROKEN_CLIPS)
    )
    return dataclasses.replace(corpus, clips=clips, notes=corpus.notes + tuple(notes))


def _make_clip(name: str, path: str, match: re.Match[str]) -> MediaClip:
    return MediaClip(name, path, CLASSES.index(CODE_TO_CLASS[match[3].upper()]), match[2])


def _read_columns(paths: list[str], file_name: str, key_column: str, value_column: str) -> dict[str, str]:
    """Returns a dict from each text in `key_column` of a CSV file to the text in `value_column`.

    If a key is a path, folder and extension are removed. The last row of a key counts. The CSV file is the
    first of `paths` with the name `file_name`; the dict is empty if there is none. Raises ValueError if the
    file is not a CSV file in UTF-8 or a column or value is missing, OSError if it can't be read.
    """
    path = next((path for path in paths if os.path.basename(path) == file_name), None)
    if path is None:
        return {}
    with open_csv(path, "download it again") as file:
        rows = list(csv.DictReader(file))
    if rows and not {key_column, value_column} <= rows[0].keys():
        raise ValueError(
            f"{path}: row 1: expected the columns {key_column} and {value_column}; download it again"
        )
    for row_number, row in enumerate(rows, 2):
        if row[key_column] is None or row[value_column] is None:
            raise ValueError(
                f"{path}: row {row_number}: expected a {key_column} and a {value_column}; download it again"
            )
    return {file_stem(row[key_column]): row[value_column] for row in rows}


def _with_perceived_labels(corpus: Corpus, votes: dict[str, str]) -> Corpus:
    if not votes:
        raise ValueError(
            f"labels='perceived': expected {VOTES_FILE} of CREMA-D below the source, not found; copy it there"
        )
    letter_to_label = {name[0].upper(): i for i, name in enumerate(CLASSES)}
    labels = {
        clip.clip_id: letter_to_label.get(votes.get(clip.clip_id, "").upper(), -1) for clip in corpus.clips
    }
    tie_notes = format_names(
        "without a majority of raters, left out", (name for name, i in labels.items() if i < 0)
    )
    relabelled = (dataclasses.replace(clip, label=labels[clip.clip_id]) for clip in corpus.clips)
    clips = tuple(clip for clip in relabelled if clip.label >= 0)
    return dataclasses.replace(corpus, clips=clips, notes=corpus.notes + tuple(tie_notes))
