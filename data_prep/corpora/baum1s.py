"""Reads BAUM-1s (Zhalehpour et al. 2017): spontaneous reactions of 31 people, with an annotation sheet.

Files as distributed: a folder s001, s002, ... for each subject with S001_001.mp4, ..., and the sheet
Annotations_BAUM1s.xlsx, or the same saved as CSV. Columns are recognized by their content, not by a header.
"""

import csv
import re
from collections.abc import Callable

from data_prep.corpora.classes import BASIC_EMOTIONS, identity_class_map
from data_prep.corpora.find_files import file_stem, find_files, find_media_files
from data_prep.corpora.reference_counts import ExpectedCounts, add_difference_notes, format_names
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import open_csv

EMOTION_TO_CLASS = {
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
CLASSES = tuple(EMOTION_TO_CLASS.values())
CLASS_MAPS = {
    "6": identity_class_map(*BASIC_EMOTIONS),
    "7": identity_class_map(*BASIC_EMOTIONS, "neutral"),
    "8": identity_class_map(*BASIC_EMOTIONS, "bored", "contempt"),
    "13": identity_class_map(*CLASSES),
}
SHEET_FILE_PATTERN = re.compile(r"annotations?_baum-?1s\.(csv|xlsx)$", re.IGNORECASE)
CLIP_NAME_PATTERN = re.compile(r"(S\d{3})_\d{3}$", re.IGNORECASE)
EXPECTED_COUNTS = ExpectedCounts(clips=1184, speakers=31)
EXPECTED_BASIC_CLIPS = 521
"""Number of clips of the six basic emotions, as distributed."""


def read_corpus(source: str) -> Corpus:
    """Returns a `Corpus` with the clips below `source` that the annotation sheet names.

    The 13 classes are, in this order, angry, bored, bothered, concentrating, contempt, disgust, fearful,
    happy, neutral, sad, surprised, thinking and unsure. A clip has a clip_id such as `S001_001`, its path,
    which begins with `source`, a label, an index into the classes, and the speaker, such as `S001`. Clips are
    ordered by clip_id; `sex` is empty. Files that are not in the sheet are left out, as are names in the
    sheet without a file; there may be no clips. Notes list both, and differences from the published numbers.

    Raises:
      ValueError: there is no sheet, it is neither CSV in UTF-8 nor a valid .xlsx file, or it has no column of
        clips, no column of emotions, or an unknown emotion.
      OSError: the sheet can't be read.
      ModuleNotFoundError: the sheet is an .xlsx file, but openpyxl is not installed.
    """
    sheet_path = min(filter(SHEET_FILE_PATTERN.search, find_files(source)), default=None)
    if sheet_path is None:
        raise ValueError(
            f"{source}: contains no Annotations_BAUM1s.xlsx or .csv, expected one of them; copy it there"
        )
    media_paths = {
        name.upper(): path
        for path in find_media_files(source)
        if CLIP_NAME_PATTERN.match(name := file_stem(path))
    }
    labels = _read_labels(sheet_path)
    clip_names = sorted(labels.keys() & media_paths.keys())
    clips = tuple(
        MediaClip(name, media_paths[name], CLASSES.index(labels[name]), name[:4]) for name in clip_names
    )
    notes = format_names("missing according to the sheet", labels.keys() - media_paths.keys())
    notes += format_names("not in the sheet, left out", media_paths.keys() - labels.keys())
    basic_clips = sum(CLASSES[clip.label] in BASIC_EMOTIONS for clip in clips)
    notes += (
        [f"clips of the six basic emotions: {basic_clips}, expected {EXPECTED_BASIC_CLIPS}"]
        if basic_clips != EXPECTED_BASIC_CLIPS
        else []
    )
    return add_difference_notes(Corpus("baum1s", CLASSES, clips, {}, tuple(notes)), EXPECTED_COUNTS)


def _read_labels(sheet_path: str) -> dict[str, str]:
    """Returns a dict with the class name of each clip of a sheet, such as `{"S001_001": "angry"}`.

    Names of clips are in capitals, as in `S001_001`, without folder and extension. Class names are those of
    CLASSES: angry, bored, bothered, and so on. The last row of a clip counts. Raises ValueError if the sheet
    is neither CSV in UTF-8 nor a valid .xlsx file, or has no column of clips, no column of emotions, or an
    unknown emotion; OSError if it can't be read; ModuleNotFoundError if it is .xlsx and openpyxl is not
    installed.
    """
    rows = _read_rows(sheet_path)
    column_count = max(map(len, rows), default=0)
    rows = [row + [""] * (column_count - len(row)) for row in rows]
    clip_column = _find_column(
        sheet_path, rows, "names of clips, such as S001_001", lambda cell: CLIP_NAME_PATTERN.match(cell)
    )
    emotion_column = _find_column(
        sheet_path, rows, "emotions, such as Anger", lambda cell: cell.lower() in EMOTION_TO_CLASS
    )
    labels = {}
    for row_number, row in enumerate(rows, 1):
        if CLIP_NAME_PATTERN.match(row[clip_column]):
            if row[emotion_column].lower() not in EMOTION_TO_CLASS:
                raise ValueError(
                    f"{sheet_path}: row {row_number}: emotion {row[emotion_column]!r} is unknown, expected"
                    f" one of {', '.join(EMOTION_TO_CLASS)}; correct it"
                )
            labels[row[clip_column].upper()] = EMOTION_TO_CLASS[row[emotion_column].lower()]
    return labels


def _find_column(
    sheet_path: str, rows: list[list[str]], content: str, is_match: Callable[[str], object]
) -> int:
    """Returns the index of the column with the most cells for which `is_match` is true; the first of equals.

    The index counts from 0; `is_match` gets the text of a cell. `rows` have equal lengths. Raises ValueError,
    which says that no column contains `content`, if no cell matches.
    """
    counts = [sum(bool(is_match(cell)) for cell in column) for column in zip(*rows, strict=True)]
    if not any(counts):
        raise ValueError(f"{sheet_path}: no column contains {content}; use the sheet as distributed")
    return counts.index(max(counts))


def _read_rows(sheet_path: str) -> list[list[str]]:
    if sheet_path.lower().endswith(".csv"):
        with open_csv(sheet_path, "save it again") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file)]
    import openpyxl  # slow to import, and only needed here

    try:
        worksheet = openpyxl.load_workbook(sheet_path, read_only=True, data_only=True).active
        cells = list(worksheet.iter_rows(values_only=True))
    except OSError:
        raise
    except Exception as error:  # openpyxl's errors have no common class
        message = to_one_line(error)
        raise ValueError(f"{sheet_path}: not a valid .xlsx file, save it again: {message}") from error
    return [["" if cell is None else str(cell).strip() for cell in row] for row in cells]
