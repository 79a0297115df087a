"""Reads IEMOCAP (Busso et al. 2008): utterances of ten actors in dialogues, labelled by raters.

Files as distributed: Session<i>/dialog/EmoEvaluation/<dialogue>.txt,
Session<i>/dialog/avi/DivX/<dialogue>.avi, and if the latter is missing, Session<i>/dialog/wav/<dialogue>.wav.
"""

import dataclasses
import os
import re
from collections.abc import Iterator

from data_prep.corpora.classes import identity_class_map
from data_prep.corpora.reference_counts import ExpectedCounts, add_difference_notes, format_names
from emofuse_jax.data.writing.corpus import Corpus, MediaClip

CODE_TO_CLASS = {
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgust",
    "oth": "other",
    "xxx": "no agreement",
}
CLASSES = tuple(CODE_TO_CLASS.values())
FOUR_CLASSES = identity_class_map("neutral", "happy", "sad", "angry")
CLASS_MAPS = {
    "4": FOUR_CLASSES | {"excited": "happy"},
    "4_without_excited": FOUR_CLASSES,
    "6": FOUR_CLASSES | identity_class_map("excited", "frustrated"),
}
SUBSETS = ("all", "improvised")
CLASS_COUNTS = (1708, 595, 1084, 1103, 1041, 1849, 107, 40, 2, 3, 2507)
EXPECTED_COUNTS = ExpectedCounts(
    clips=10039, speakers=10, classes=dict(zip(CLASSES, CLASS_COUNTS, strict=True))
)
EXPECTED_IMPROVISED_COUNTS = ExpectedCounts(
    clips=0, speakers=10, classes={"angry": 289, "happy": 284, "sad": 608, "neutral": 1099}
)
SESSIONS = tuple(f"Session{i}" for i in range(1, 6))
UTTERANCE_PATTERN = re.compile(r"\[(\d+\.\d+) - (\d+\.\d+)\]\t((Ses0\d)([FM])_\w+)_([FM])(\w*\d+)\t(\w{3})\t")
"""Lines of an evaluation file: [start - end], dialogue_speaker-and-number, label."""


def read_corpus(source: str, subset: str = "all") -> Corpus:
    """Returns a `Corpus` with the utterances of all sessions in `source`, one clip for each.

    The 11 classes are, in this order, neutral, happy, sad, angry, excited, frustrated, surprised, fearful,
    disgust, other and no agreement; `sex` has `f` or `m` for each speaker. Clips are ordered by session,
    dialogue and line. A clip has a clip_id such as
    `Ses01F_impro01_F000`, the path of its dialogue, which begins with `source`, a label, an index into the
    classes, start and end in seconds of the dialogue, and the speaker's half of the picture, `left` or
    `right`. A speaker is a session with the letter of the utterance (F or M), such as `Ses01F`. The name of a
    dialogue contains the letter of the actor with face markers, who sits on the left. Notes list dialogues
    without a media file, which are left out, and differences from the published numbers. There are no clips
    if there is no session.

    Args:
      source: folder of the corpus, with the folders Session1 to Session5.
      subset: `all`, or `improvised` (or any other text) for improvised dialogues only.

    Raises:
      ValueError: an evaluation file has no readable line or an unknown label.
      OSError: an evaluation file, or a folder of them, can't be read.
    """
    clips: list[MediaClip] = []
    missing_dialogues: list[str] = []
    for evaluation_path in _find_evaluation_files(source):
        media_path = _find_media(evaluation_path)
        utterances = list(_read_utterances(evaluation_path, media_path or ""))
        clips += utterances if media_path else []
        missing_dialogues += (
            [] if media_path else [f"{os.path.basename(evaluation_path)[:-4]} ({len(utterances)} utterances)"]
        )
    notes = format_names("dialogues without avi and wav file, left out", missing_dialogues)
    sex = {clip.speaker: clip.speaker[-1].lower() for clip in clips}
    corpus = Corpus("iemocap", CLASSES, tuple(clips), sex, tuple(notes))
    if subset == "all":
        return add_difference_notes(corpus, EXPECTED_COUNTS)
    improvised = tuple(clip for clip in clips if "_impro" in clip.clip_id)
    return add_difference_notes(dataclasses.replace(corpus, clips=improvised), EXPECTED_IMPROVISED_COUNTS)


def _find_evaluation_files(source: str) -> list[str]:
    folders = (os.path.join(source, session, "dialog", "EmoEvaluation") for session in SESSIONS)
    names = (
        (folder, name) for folder in folders if os.path.isdir(folder) for name in sorted(os.listdir(folder))
    )
    return [
        os.path.join(folder, name)
        for folder, name in names
        if name.startswith("Ses") and name.endswith(".txt")
    ]


def _find_media(evaluation_path: str) -> str | None:
    """Returns the path of the video file of a dialogue, else of its audio file, or None if neither exists.

    For the evaluation file `evaluation_path`, `<folder>/<name>.txt`, these are
    `<folder>/../avi/DivX/<name>.avi` and `<folder>/../wav/<name>.wav`.
    """
    dialog_folder, name = (
        os.path.dirname(os.path.dirname(evaluation_path)),
        os.path.basename(evaluation_path)[:-4],
    )
    candidates = (
        os.path.join(dialog_folder, "avi", "DivX", f"{name}.avi"),
        os.path.join(dialog_folder, "wav", f"{name}.wav"),
    )
    return next((path for path in candidates if os.path.exists(path)), None)


def _read_utterances(evaluation_path: str, media_path: str) -> Iterator[MediaClip]:
    with open(evaluation_path, encoding="utf-8", errors="replace") as file:
        matches = [match for line in file if (match := UTTERANCE_PATTERN.match(line))]
    if not matches:
        raise ValueError(
            f"{evaluation_path}: no line of the form '[start - end] utterance label [..]', expected at least"
            " one; copy the file from the corpus again"
        )
    for match in matches:
        start, end, dialogue, session, marked_actor, speaker, number, code = match.groups()
        if code not in CODE_TO_CLASS:
            raise ValueError(
                f"{evaluation_path}: utterance {dialogue}_{speaker}{number}: unknown label {code!r}, expected"
                f" one of {', '.join(CODE_TO_CLASS)}; copy the file from the corpus again"
            )
        yield MediaClip(
            f"{dialogue}_{speaker}{number}",
            media_path,
            CLASSES.index(CODE_TO_CLASS[code]),
            f"{session}{speaker}",
            float(start),
            float(end),
            half="left" if speaker == marked_actor else "right",
        )
