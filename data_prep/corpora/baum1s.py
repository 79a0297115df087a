"""BAUM-1s (Zhalehpour et al. 2017): spontaneous reactions of 31 people, with an annotation sheet.

As distributed: a folder s001, s002, ... for each subject with S001_001.mp4, ..., and the sheet
Annotations_BAUM1s.xlsx, or the same saved as CSV. Columns are known by what stands in them.
"""

import csv
import re

from data_prep.corpora.classes import BASIC, same
from data_prep.corpora.find_files import files_below, media_below, stem
from data_prep.corpora.reference_counts import Expected, checked, listed
from emofuse_jax.data.writing.corpus import Clip, Corpus

NAMES = {
    "anger": "angry",
    "boredom": "bored",
    "bothered": "bothered",
    "concentrating": "concentrating",
    "contempt": "contempt",
    "disgust": "disgust",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprised",
    "thinking": "thinking",
    "unsure": "unsure",
}
CLASSES = tuple(NAMES.values())
CLASS_MAPS = {
    "6": same(*BASIC),
    "7": same(*BASIC, "neutral"),
    "8": same(*BASIC, "bored", "contempt"),
    "13": same(*CLASSES),
}
SHEET = re.compile(r"annotations?_baum-?1s\.(csv|xlsx)$", re.IGNORECASE)
NAME = re.compile(r"(S\d{3})_\d{3}$", re.IGNORECASE)
EXPECTED = Expected(clips=1184, speakers=31)
SIX = 521
"""Clips of the six basic emotions."""


def read_corpus(source: str) -> Corpus:
    """The clips below `source` that the sheet names.

    Raises ValueError without a sheet, or when it has no column of clips or of emotions.
    """
    sheet = min(filter(SHEET.search, files_below(source)), default=None)
    if sheet is None:
        raise ValueError(f"{source}: expected Annotations_BAUM1s.xlsx or .csv below it")
    files = {name.upper(): path for path in media_below(source) if NAME.match(name := stem(path))}
    labels = _labels(sheet)
    there = sorted(labels.keys() & files.keys())
    clips = tuple(Clip(name, files[name], CLASSES.index(labels[name]), name[:4]) for name in there)
    notes = listed("missing, by the sheet", labels.keys() - files.keys())
    notes += listed("not in the sheet, left out", files.keys() - labels.keys())
    six = sum(CLASSES[clip.label] in BASIC for clip in clips)
    notes += [f"clips of the six basic emotions: {six}, expected {SIX}"] if six != SIX else []
    return checked(Corpus("baum1s", CLASSES, clips, {}, tuple(notes)), EXPECTED)


def _labels(sheet: str) -> dict[str, str]:
    """Class by clip."""
    rows = _rows(sheet)
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    clip = _column(sheet, rows, "clips", lambda cell: NAME.match(cell))
    emotion = _column(sheet, rows, "emotions", lambda cell: cell.lower() in NAMES)
    labels = {}
    for line, row in enumerate(rows, 1):
        if NAME.match(row[clip]):
            if row[emotion].lower() not in NAMES:
                raise ValueError(f"{sheet}: row {line}: emotion {row[emotion]!r} is not known")
            labels[row[clip].upper()] = NAMES[row[emotion].lower()]
    return labels


def _column(sheet: str, rows: list[list[str]], what: str, fits) -> int:
    """The column most of whose cells are of that kind."""
    counts = [sum(bool(fits(cell)) for cell in column) for column in zip(*rows, strict=True)]
    if not any(counts):
        raise ValueError(f"{sheet}: no column of {what}")
    return counts.index(max(counts))


def _rows(sheet: str) -> list[list[str]]:
    if sheet.lower().endswith(".csv"):
        with open(sheet, newline="", encoding="utf-8-sig") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file)]
    import openpyxl  # slow, and of use here alone

    table = openpyxl.load_workbook(sheet, read_only=True, data_only=True).active
    cells = table.iter_rows(values_only=True)
    return [["" if cell is None else str(cell).strip() for cell in row] for row in cells]
