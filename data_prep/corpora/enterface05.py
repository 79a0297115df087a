"""Reads eNTERFACE'05 (Martin et al. 2006): subjects say five sentences in each of six emotions.

Files as distributed: "subject 1/anger/sentence 1/s1_an_1.avi"; some subjects have fewer levels of folders.
"""

import os
import re

from data_prep.corpora.classes import BASIC_EMOTIONS, identity_class_map
from data_prep.corpora.find_files import file_stem, find_media_files
from data_prep.corpora.reference_counts import ExpectedCounts, add_difference_notes, format_names
from emofuse_jax.data.writing.corpus import Corpus, MediaClip

CODE_TO_CLASS = dict(zip(("an", "di", "fe", "ha", "sa", "su"), BASIC_EMOTIONS, strict=True))
CLASSES = BASIC_EMOTIONS
CLASS_MAPS = {"6": identity_class_map(*BASIC_EMOTIONS)}
FILE_NAME_PATTERN = re.compile(r"s_?(\d{1,2})_(an|di|fe|ha|sa|su)_?(\d)", re.IGNORECASE)
"""File names: s<subject>_<emotion>_<sentence>, with the typing errors of the distributed names."""
SUBJECT_FOLDER_PATTERN = re.compile(r"subject ?(\d{1,2})(?!\d)", re.IGNORECASE)
EXPECTED_COUNTS = ExpectedCounts(clips=1263, speakers=43)


def read_corpus(source: str) -> Corpus:
    """Returns a `Corpus` with all clips below `source` and the six original classes.

    These are, in this order, angry, disgust, fearful, happy, sad and surprised. Subject, emotion and sentence
    are read from the file names. A clip has a clip_id such as `s01_an_1`, its path, which begins with
    `source`, a label, an index into the classes, and the subject, such as `01`, as speaker. Clips have the
    order of `find_media_files`, by folder and name. Notes list files with other names, which are left out,
    files in the folder of another subject, and differences from the published numbers. If no file name fits,
    or `source` is not a folder that can be read, the corpus has no clips.
    """
    clips, unrecognised, misplaced = [], [], []
    for path in find_media_files(source):
        match, folder_match = (
            FILE_NAME_PATTERN.match(file_stem(path)),
            SUBJECT_FOLDER_PATTERN.search(os.path.relpath(path, source)),
        )
        if not match:
            unrecognised.append(os.path.relpath(path, source))
            continue
        subject = f"{int(match[1]):02d}"
        if folder_match and int(folder_match[1]) != int(subject):
            misplaced.append(os.path.relpath(path, source))
        code = match[2].lower()
        clips.append(
            MediaClip(f"s{subject}_{code}_{match[3]}", path, CLASSES.index(CODE_TO_CLASS[code]), subject)
        )
    notes = format_names("file names without subject, emotion and sentence, left out", unrecognised)
    notes += format_names("in another subject's folder, subject read from the file name", misplaced)
    return add_difference_notes(
        Corpus("enterface05", CLASSES, tuple(clips), {}, tuple(notes)), EXPECTED_COUNTS
    )
