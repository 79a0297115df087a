"""Corpus readers: names, copies of a take, and a CSV's mistakes told by row and column."""

import os

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from tests.support.media_files import tone, write_wav


def write_files(folder, *names):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (i + 1))


def test_ravdess_takes_one_file_of_each_take(tmp_path):
    write_files(
        tmp_path,
        "video/Actor_02/01-01-03-01-02-01-02.mp4",
        "video/Actor_02/02-01-03-01-02-01-02.mp4",
        "audio/Actor_02/03-01-03-01-02-01-02.wav",
        "audio/Actor_01/03-01-08-01-02-01-01.wav",
        "video/Actor_01/02-01-08-01-02-01-01.mp4",
        "video/Actor_01/02-01-01-01-01-01-01.mp4",
        "songs/Actor_01/03-02-04-01-01-01-01.wav",
        "readme.txt",
    )
    corpus = read_corpus("ravdess", str(tmp_path))
    used_files = {clip.clip_id: os.path.relpath(clip.path, tmp_path) for clip in corpus.clips}
    assert used_files == {
        "01-01-01-01-01-01": "video/Actor_01/02-01-01-01-01-01-01.mp4",
        "01-03-01-02-01-02": "video/Actor_02/01-01-03-01-02-01-02.mp4",
        "01-08-01-02-01-01": "audio/Actor_01/03-01-08-01-02-01-01.wav",
    }
    assert {clip.clip_id: (corpus.classes[clip.label], clip.speaker) for clip in corpus.clips} == {
        "01-01-01-01-01-01": ("neutral", "01"),
        "01-03-01-02-01-02": ("happy", "02"),
        "01-08-01-02-01-01": ("surprised", "01"),
    }
    assert corpus.sex == {"01": "m", "02": "f"}
    assert corpus.notes[0].startswith("3 more files of the same takes")
    assert corpus.notes[1].startswith("1 songs, not used")


def test_ravdess_reports_identical_files(tmp_path):
    for repetition in "12":
        write_wav(tmp_path / f"03-01-03-01-02-0{repetition}-07.wav", tone(0.1, rate=16_000))
    write_wav(tmp_path / "03-01-04-01-02-01-07.wav", tone(0.1, 300.0, rate=16_000))  # of the same size
    notes = read_corpus("ravdess", str(tmp_path)).notes
    assert notes[0] == "identical files: 01-03-01-02-01-07 and 01-03-01-02-02-07"


def test_ravdess_follows_links_but_not_in_circles(tmp_path):
    write_files(tmp_path / "real", "Actor_01/03-01-08-01-02-01-01.wav")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "Actor_01").symlink_to(tmp_path / "real" / "Actor_01")
    (tmp_path / "real" / "Actor_01" / "up").symlink_to(tmp_path / "source")
    assert len(read_corpus("ravdess", str(tmp_path / "source")).clips) == 1


def test_shared_ravdess(shared_data):
    corpus = read_corpus("ravdess", os.path.join(shared_data, "ravdess_speech"))
    counts = np.bincount([clip.label for clip in corpus.clips])
    assert counts.tolist() == [80] + [160] * 7
    assert len({clip.speaker for clip in corpus.clips}) == 20
    assert corpus.notes[0] == "identical files: 01-03-01-02-01-07 and 01-03-01-02-02-07"
    assert corpus.notes[1:3] == ("clips: 1200, expected 1440", "speakers: 20, expected 24")
    assert corpus.notes[-1].startswith("missing (240): 01-01-01-01-01-21, ")


def read_table(folder, text):
    (folder / "clips.csv").write_text(text, encoding="utf-8")
    return read_corpus("folder", str(folder))


def test_folder(tmp_path):
    corpus = read_table(
        tmp_path,
        "\ufeffpath,label,speaker,start,end\n"
        "b/x.mp4,sad,ann,,\n"
        "a.wav,,bob,,\n"
        "long.mp4,glad,ann,1.5,3\n"
        "long.mp4,sad,bob,3,\n",
    )
    assert corpus.classes == ("glad", "sad")
    clip_fields = [(c.clip_id, c.label, c.speaker, c.start, c.end) for c in corpus.clips]
    assert clip_fields == [
        ("a.wav", -1, "bob", None, None),
        ("b/x.mp4", 1, "ann", None, None),
        ("long.mp4@1.5-3", 0, "ann", 1.5, 3.0),
        ("long.mp4@3-", 1, "bob", 3.0, None),
    ]
    assert corpus.clips[1].path == str(tmp_path / "b" / "x.mp4")
    assert corpus.root == str(tmp_path)


CSV_HEADER = "path,label,speaker,start,end\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,speaker\na.wav,x\n", r"clips.csv: row 1: columns path,speaker; expected path,label"),
        ("path,label,speaker,strat\na,b,c,1\n", "row 1: columns .*strat"),
        (CSV_HEADER + "a.wav,sad,ann,,\na.wav,sad,,,\n", "row 3: column speaker is empty"),
        (CSV_HEADER + ",sad,ann,,\n", "row 2: column path is empty"),
        (CSV_HEADER + "a.wav,sad,ann,soon,\n", "row 2: column start is 'soon', expected seconds"),
        (CSV_HEADER + "a.wav,sad,ann,nan,\n", "row 2: column start is 'nan'"),
        (CSV_HEADER + "a.wav,sad,ann,,-1\n", "row 2: column end is '-1'"),
        (CSV_HEADER + "a.wav,sad,ann,3,2\n", "row 2: column end is 2, expected more than start 3"),
        (CSV_HEADER + "a.wav,sad,ann\n", "row 2: expected 5 columns"),
        (CSV_HEADER + "a.wav,sad,ann,,\na.wav,sad,ann,,\n", "clip_id 'a.wav' is used twice"),
        (CSV_HEADER, "contains no clip of corpus folder"),
    ],
)
def test_folder_names_row_and_column(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path, text)


def test_mistaken_sources(tmp_path):
    with pytest.raises(ValueError, match="0 CSV files, expected one"):
        read_corpus("folder", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_corpus("ravdess", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="expected one of demo, ravdess, crema_d"):
        read_corpus("crema", str(tmp_path))
    (tmp_path / "clips.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read_corpus("folder", str(tmp_path))
