"""IEMOCAP (Busso et al. 2008): ten actors in five sessions, utterances of dialogues, labelled by raters.

As distributed: Session<i>/dialog/EmoEvaluation/<dialogue>.txt, Session<i>/dialog/avi/DivX/<dialogue>.avi and,
where that is missing, Session<i>/dialog/wav/<dialogue>.wav.
"""

import dataclasses
import os
import re
from collections.abc import Iterator

from data_prep.corpora.classes import same
from data_prep.corpora.reference_counts import Expected, checked, listed
from emofuse_jax.data.writing.corpus import Clip, Corpus

CODES = {
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
CLASSES = tuple(CODES.values())
FOUR = same("neutral", "happy", "sad", "angry")
CLASS_MAPS = {
    "4": FOUR | {"excited": "happy"},
    "4_without_excited": FOUR,
    "6": FOUR | same("excited", "frustrated"),
}
SUBSETS = ("all", "improvised")
COUNTS = (1708, 595, 1084, 1103, 1041, 1849, 107, 40, 2, 3, 2507)
EXPECTED = Expected(clips=10039, speakers=10, classes=dict(zip(CLASSES, COUNTS, strict=True)))
IMPROVISED = Expected(clips=0, speakers=10, classes={"angry": 289, "happy": 284, "sad": 608, "neutral": 1099})
SESSIONS = tuple(f"Session{i}" for i in range(1, 6))
LINE = re.compile(r"\[(\d+\.\d+) - (\d+\.\d+)\]\t((Ses0\d)([FM])_\w+)_([FM])(\w*\d+)\t(\w{3})\t")
"""[start - end] dialogue_speaker-and-number label"""


def read_corpus(source: str, subset: str = "all") -> Corpus:
    """All utterances of the sessions below `source`; a speaker is a session and the letter of the utterance.

    The dialogue's name bears the letter of the actor with the markers, who sits on the left of the picture.
    Raises ValueError on a sheet without a line that can be read.
    """
    clips: list[Clip] = []
    absent: list[str] = []
    for sheet in _sheets(source):
        media = _media(sheet)
        found = list(_utterances(sheet, media or ""))
        clips += found if media else []
        absent += [] if media else [f"{os.path.basename(sheet)[:-4]} ({len(found)} utterances)"]
    notes = listed("dialogues without avi and wav, left out", absent)
    sex = {clip.speaker: clip.speaker[-1].lower() for clip in clips}
    corpus = Corpus("iemocap", CLASSES, tuple(clips), sex, tuple(notes))
    if subset == "all":
        return checked(corpus, EXPECTED)
    kept = tuple(clip for clip in clips if "_impro" in clip.clip_id)
    return checked(dataclasses.replace(corpus, clips=kept), IMPROVISED)


def _sheets(source: str) -> list[str]:
    folders = (os.path.join(source, session, "dialog", "EmoEvaluation") for session in SESSIONS)
    names = ((f, n) for f in folders if os.path.isdir(f) for n in sorted(os.listdir(f)))
    return [os.path.join(f, n) for f, n in names if n.startswith("Ses") and n.endswith(".txt")]


def _media(sheet: str) -> str | None:
    """The dialogue's picture with sound, or its sound alone."""
    dialog, name = os.path.dirname(os.path.dirname(sheet)), os.path.basename(sheet)[:-4]
    places = (
        os.path.join(dialog, "avi", "DivX", f"{name}.avi"),
        os.path.join(dialog, "wav", f"{name}.wav"),
    )
    return next((path for path in places if os.path.exists(path)), None)


def _utterances(sheet: str, media: str) -> Iterator[Clip]:
    with open(sheet, encoding="utf-8", errors="replace") as file:
        matches = [match for line in file if (match := LINE.match(line))]
    if not matches:
        raise ValueError(f"{sheet}: no line as '[start - end] utterance label [..]'")
    for match in matches:
        start, end, dialogue, session, lead, speaker, number, code = match.groups()
        if code not in CODES:
            raise ValueError(f"{sheet}: utterance {dialogue}_{speaker}{number}: label {code!r}")
        yield Clip(
            f"{dialogue}_{speaker}{number}",
            media,
            CLASSES.index(CODES[code]),
            f"{session}{speaker}",
            float(start),
            float(end),
            half="left" if speaker == lead else "right",
        )
