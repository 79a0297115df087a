"""CREMA-D (Cao et al. 2014): 91 actors, 12 sentences, 6 emotions, 7442 clips with votes of raters.

As in its repository: VideoFlash/*.flv, AudioWAV/*.wav, processedResults/summaryTable.csv (the raters' votes)
and VideoDemographics.csv (the actors' sex); folders may be left out or lie elsewhere below the source.
"""

import csv
import dataclasses
import os
import re

from data_prep.corpora.classes import same
from data_prep.corpora.find_files import files_below, stem
from data_prep.corpora.reference_counts import Expected, checked, listed
from emofuse_jax.data.writing.corpus import Clip, Corpus

CODES = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
CLASSES = tuple(CODES.values())
CLASS_MAPS = {"6": same(*CLASSES), "4": same("angry", "happy", "neutral", "sad")}
LABELS = ("intended", "perceived")
NAME = re.compile(r"((1\d{3})_[A-Z]{3}_([A-Z]{3})_(?:LO|MD|HI|XX|X))\.(flv|mp4|wav|mp3)$", re.IGNORECASE)
"""actor_sentence_emotion_intensity"""
PREFERENCE = ("flv", "mp4", "wav", "mp3")
BAD = ("1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD")
"""Broken or mislabelled as distributed."""
EXPECTED = Expected(clips=7442, speakers=91, classes=dict.fromkeys(CLASSES, 1271) | {"neutral": 1087})
VOTES, ACTORS = "summaryTable.csv", "VideoDemographics.csv"


def read_corpus(source: str, labels: str = "intended") -> Corpus:
    """The clips below `source`; label: what the actor was told to show, or what raters saw and heard.

    Perceived is the majority of those who had picture and sound; clips without one are left out and named.
    """
    found: dict[str, tuple[int, str, re.Match]] = {}
    paths = list(files_below(source))
    for path in paths:
        match = NAME.search(os.path.basename(path))
        if match and match[3].upper() in CODES:
            rank = (PREFERENCE.index(match[4].lower()), path, match)
            found[match[1]] = min(found.get(match[1], rank), rank, key=lambda r: r[:2])
    clips = tuple(_clip(name, *found[name][1:]) for name in sorted(found))
    votes = _table(paths, VOTES, "FileName", "MultiModalVote")
    sex = {actor: kind[:1].lower() for actor, kind in _table(paths, ACTORS, "ActorID", "Sex").items()}
    notes = listed("missing, by summaryTable.csv", votes.keys() - found.keys())
    corpus = _without_bad(checked(Corpus("crema_d", CLASSES, clips, sex, tuple(notes)), EXPECTED))
    return corpus if labels == "intended" else _perceived(corpus, votes)


def _without_bad(corpus: Corpus) -> Corpus:
    kept = tuple(clip for clip in corpus.clips if clip.clip_id not in BAD)
    notes = listed("known to be broken, left out", {c.clip_id for c in corpus.clips} & set(BAD))
    return dataclasses.replace(corpus, clips=kept, notes=corpus.notes + tuple(notes))


def _clip(name: str, path: str, match: re.Match) -> Clip:
    return Clip(name, path, CLASSES.index(CODES[match[3].upper()]), match[2])


def _table(paths: list[str], name: str, key: str, value: str) -> dict[str, str]:
    """Two columns of the CSV of that name among `paths`; empty where it is not there."""
    path = next((path for path in paths if os.path.basename(path) == name), None)
    if path is None:
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if rows and not {key, value} <= rows[0].keys():
        raise ValueError(f"{path}: row 1: expected the columns {key} and {value}")
    return {stem(row[key]): row[value] for row in rows}


def _perceived(corpus: Corpus, votes: dict[str, str]) -> Corpus:
    if not votes:
        raise ValueError(f"labels='perceived': {VOTES} of CREMA-D is not below the source")
    letters = {name[0].upper(): i for i, name in enumerate(CLASSES)}
    labels = {clip.clip_id: letters.get(votes.get(clip.clip_id, "").upper(), -1) for clip in corpus.clips}
    tied = listed("without a majority of raters, left out", (name for name, i in labels.items() if i < 0))
    kept = (dataclasses.replace(clip, label=labels[clip.clip_id]) for clip in corpus.clips)
    clips = tuple(clip for clip in kept if clip.label >= 0)
    return dataclasses.replace(corpus, clips=clips, notes=corpus.notes + tuple(tied))
