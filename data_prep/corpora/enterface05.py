"""eNTERFACE'05 (Martin et al. 2006): subjects say five sentences in each of six emotions.

As distributed: "subject 1/anger/sentence 1/s1_an_1.avi"; the folders of some subjects lack a level.
"""

import os
import re

from data_prep.corpora.classes import BASIC, same
from data_prep.corpora.find_files import media_below, stem
from data_prep.corpora.reference_counts import Expected, checked, listed
from emofuse_jax.data.writing.corpus import Clip, Corpus

CODES = dict(zip(("an", "di", "fe", "ha", "sa", "su"), BASIC, strict=True))
CLASSES = BASIC
CLASS_MAPS = {"6": same(*BASIC)}
NAME = re.compile(r"s_?(\d{1,2})_(an|di|fe|ha|sa|su)_?(\d)", re.IGNORECASE)
"""s<subject>_<emotion>_<sentence>, with the slips of the distributed names."""
SUBJECT = re.compile(r"subject ?(\d{1,2})(?!\d)", re.IGNORECASE)
EXPECTED = Expected(clips=1263, speakers=43)


def read_corpus(source: str) -> Corpus:
    """All clips below `source`; subject, emotion and sentence are those of the file's name.

    A note names the media whose names say nothing, and those whose folder says another subject.
    """
    clips, strange, moved = [], [], []
    for path in media_below(source):
        match, place = NAME.match(stem(path)), SUBJECT.search(os.path.relpath(path, source))
        if not match:
            strange.append(os.path.relpath(path, source))
            continue
        subject = f"{int(match[1]):02d}"
        if place and int(place[1]) != int(subject):
            moved.append(os.path.relpath(path, source))
        code = match[2].lower()
        clips.append(Clip(f"s{subject}_{code}_{match[3]}", path, CLASSES.index(CODES[code]), subject))
    notes = listed("names that say no subject, emotion and sentence, left out", strange)
    notes += listed("in the folder of another subject, taken by their names", moved)
    return checked(Corpus("enterface05", CLASSES, tuple(clips), {}, tuple(notes)), EXPECTED)
