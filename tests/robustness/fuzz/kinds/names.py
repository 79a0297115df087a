"""Names that want out, in a user's table, on disk and of a split: nothing is written where they lead.

The worker watches every path that is opened for writing; here the folders are compared too.
"""

import csv
import os
import pathlib
import shutil
from collections.abc import Sequence

from data_prep.corpora.folder import read_corpus
from data_prep.custom_split import SPLIT_TABLE_COLUMNS, add_split
from data_prep.prepare import prepare
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data.dataset import SPLITS
from emofuse_jax.data.records import read_manifest
from tests.robustness.fuzz.damage import make_rng
from tests.robustness.fuzz.verdict import Broken
from tests.support.media_files import tone, write_wav

NAMED = r"column \w|name ['\"]|row \d"
SETTINGS = PrepSettings(face=FaceSettings(frames=1, size=8))
UNSAFE_NAMES = (
    *("../out", "../../out", "/tmp/out", "..", ".", "~/out", "C:\\out", "..\\out", "a/../../out", "//out"),
    *(
        "a\nb",
        "a\0b",
        "a\rb",
        "\x1b[2J",
        "é" * 300,
        "\u202e",
        "a,b",
        'a"b',
        "=cmd|' /C calc'!A0",
        "-rf",
        "$(out)",
    ),
    *("%2e%2e%2fout", "CON", "a" * 300, "a/b/c.wav", "", " "),
)
FIELDS = ("path", "label", "speaker", "take", "half", "start", "end")


def make(folder: str) -> None:
    """A short sound."""
    write_wav(os.path.join(folder, "sound.wav"), tone(0.3, rate=16_000))


def load(folder: str) -> str:
    """Its path; it is prepared once, so that all is imported."""
    audio_path = os.path.join(folder, "sound.wav")
    scratch = os.path.join(folder, f"warm_{os.getpid()}")
    os.makedirs(scratch)
    attempt(audio_path, -1, scratch)
    shutil.rmtree(scratch)
    return audio_path


def attempt(audio_path: str, seed: int, scratch: str) -> None:
    """Prepares a folder whose table and files bear such names, and adds a split of such a name."""
    rng = make_rng("names", max(seed, 0))
    source, output = os.path.join(scratch, "in"), os.path.join(scratch, "out")
    os.makedirs(source)
    rows = [
        dict.fromkeys(FIELDS, "") | {"path": f"{i}.wav", "label": "ab"[i % 2], "speaker": f"s{i}"}
        for i in range(4)
    ]
    if seed >= 0:
        for row in rows[: int(rng.integers(1, 4))]:
            row[FIELDS[rng.integers(len(FIELDS))]] = UNSAFE_NAMES[rng.integers(len(UNSAFE_NAMES))]
    for row in rows:
        _place_file(audio_path, source, row["path"], rng)
    _write_table(os.path.join(source, "clips.csv"), FIELDS, rows)
    split = os.path.join(scratch, "split.csv")
    pathlib.Path(split).touch()
    before = _list_files(scratch)
    try:
        prepare(read_corpus(source), SETTINGS, output, workers=0, shards=1)
        clips = [row["clip_id"] for row in read_manifest(output)]
        rows = [{"clip_id": clip, "part": SPLITS[i % 3]} for i, clip in enumerate(clips)]
        if seed >= 0 and rng.integers(4) == 0:
            rows[rng.integers(len(rows))][SPLIT_TABLE_COLUMNS[rng.integers(2)]] = UNSAFE_NAMES[
                rng.integers(len(UNSAFE_NAMES))
            ]
        _write_table(split, SPLIT_TABLE_COLUMNS, rows)
        name = UNSAFE_NAMES[rng.integers(len(UNSAFE_NAMES))] if rng.integers(2) else "mine"
        add_split(output, name if seed >= 0 else "mine", split, allow_leak=True)  # all clips are one sound
    finally:
        after = {name for name in _list_files(scratch) if name.split(os.sep)[0] != "out"}
        if after != before:
            raise Broken(f"outside the output: {sorted(after ^ before)[:5]}")


def _write_table(path: str, fields: Sequence[str], rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fields)
        table.writeheader()
        table.writerows(rows)


def _place_file(audio_path: str, source: str, name: str, rng) -> None:
    """The file of a row, where a name can be one inside the folder: itself, or a link to it."""
    path = pathlib.Path(os.path.normpath(os.path.join(source, name.replace("\0", ""))))
    if not path.is_relative_to(source) or path == pathlib.Path(source) or len(path.name.encode()) > 250:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(audio_path) if rng.integers(3) == 0 else shutil.copyfile(audio_path, path)


def _list_files(folder: str) -> set[str]:
    return {
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
    }
