"""`verify` finds each kind of damage, and nothing where there is none."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from data_prep.verify import records as verify_module
from data_prep.verify.records import verify
from emofuse_jax.data import records
from emofuse_jax.data.writing.shards import read_shard
from emofuse_jax.utils.files import file_sha256
from tests.support.small_corpus import manifest_by_clip


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared[0], tmp_path / "copy")
    return tmp_path / "copy"


def first_shard(folder):
    return pathlib.Path(records.shard_paths(str(folder))[0])


def edit_json(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rewrite_first_record(folder, **changes):
    """A shard whose checksum is right but whose first record is not."""
    import dataclasses

    from array_record.python import array_record_module

    path = first_shard(folder)
    shape = records.RecordShape(200, 32, 32)
    data = list(read_shard(str(path)))
    data[0] = records.encode(dataclasses.replace(records.decode(data[0], shape), **changes))
    writer = array_record_module.ArrayRecordWriter(str(path), records.WRITER_OPTIONS)
    for encoded in data:
        writer.write(encoded)
    writer.close()
    edit_json(folder / "prep.json", lambda prep: prep["shards"][0].update(sha256=file_sha256(path)))


def test_verify_is_content_with_what_is_right(copy, capsys):
    assert verify(str(copy)) == []
    assert verify_module.main([str(copy)]) == 0
    assert "no problems" in capsys.readouterr().out


def test_verify_finds_a_flipped_byte(copy, capsys):
    data = bytearray(first_shard(copy).read_bytes())
    data[len(data) // 2] ^= 1
    first_shard(copy).write_bytes(data)
    (problem,) = verify(str(copy))
    assert problem.startswith("folder-clips.array_record-00000-of-00005: sha256")
    assert verify_module.main([str(copy)]) == 1
    assert "sha256" in capsys.readouterr().out


def test_verify_finds_a_shard_that_is_none_and_a_manifest_that_is_no_csv(copy):
    first_shard(copy).write_bytes(b"x" * 100_000)
    digest = file_sha256(first_shard(copy))
    edit_json(copy / "prep.json", lambda prep: prep["shards"][0].update(sha256=digest))
    assert any("damaged shard" in problem for problem in verify(str(copy)))
    (copy / "manifest.csv").write_text("x" * 200_000)
    (problem,) = verify(str(copy))
    assert "manifest.csv: not a CSV file in UTF-8" in problem


def test_verify_finds_a_truncated_and_a_missing_shard(copy):
    data = first_shard(copy).read_bytes()
    first_shard(copy).write_bytes(data[: len(data) // 2])
    os.remove(copy / records.shard_name("folder", 1, 5))
    problems = verify(str(copy))
    assert len(problems) == 2
    assert "sha256" in problems[0]
    assert "is missing" in problems[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spectrogram": np.full((3, 200), np.nan, np.float16)}, "spectrogram is finite False"),
        ({"face_box": np.full((4, 4), np.inf, np.float32)}, "face_box is finite False"),
        ({"label": 5}, "field label: 5, expected"),
        ({"speaker": "speaker 9"}, "speaker 'speaker 9', expected"),
        ({"faces": np.zeros((3, 32, 32, 3), np.uint8)}, "field faces"),
        ({"video_ok": True}, "video_ok True, expected False"),
        ({"votes": np.ones(2, np.float32)}, "correct sum of votes False"),
    ],
)
def test_verify_finds_a_wrong_record(copy, changes, message):
    rewrite_first_record(copy, **changes)
    problems = verify(str(copy))
    assert any(message in problem and problem.startswith("folder-clips") for problem in problems), problems


def test_verify_finds_a_wrong_label_histogram(copy):
    text = (copy / "manifest.csv").read_text()
    (copy / "manifest.csv").write_text(text.replace("s3_2.wav,speaker 3,1,", "s3_2.wav,speaker 3,0,"))
    problems = verify(str(copy))
    assert any("label histogram" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fold: fold["test"].append(fold["train"][0]), "take 'film.mp4' is in train and test"),
        (lambda fold: fold["validation"].append(fold["train"].pop()), "speaker 'speaker"),
        (lambda fold: fold["test"].append("nobody.wav"), "clip_id 'nobody.wav' has no record"),
        (lambda fold: fold["train"].append("empty.mp4"), "clip_id 'empty.mp4' has no record"),
        (lambda fold: fold.update(validation=fold["test"]), "validation and test contain the same clips"),
        (lambda fold: fold.pop("test"), "'test'"),
    ],
)
def test_verify_finds_a_leak(copy, change, message):
    edit_json(copy / "splits" / "grouped_5fold" / "fold_1.json", change)
    problems = verify(str(copy))
    assert any(message in problem for problem in problems), problems
    assert all("fold_1" in problem for problem in problems)


def test_verify_finds_a_copied_file_in_two_parts(copy):
    rows = manifest_by_clip(copy)
    fold = json.loads((copy / "splits" / "grouped_5fold" / "fold_0.json").read_text())
    train_hash, test_hash = rows[fold["train"][0]]["sha256"], rows[fold["test"][0]]["sha256"]
    text = (copy / "manifest.csv").read_text()
    (copy / "manifest.csv").write_text(text.replace(train_hash, test_hash))
    assert any("file content" in problem and "fold_0" in problem for problem in verify(str(copy)))


def test_verify_finds_statistics_that_are_not_finite(copy):
    path = copy / "stats" / "grouped_5fold" / "fold_2.npz"
    np.savez(path, mean=np.full(200, np.nan), std=np.zeros(200))
    os.remove(copy / "stats" / "grouped_5fold" / "fold_3.npz")
    problems = verify(str(copy))
    assert len(problems) == 3
    assert all("stats/grouped_5fold/fold_" in problem for problem in problems)


def test_verify_reads_no_pickle(copy):
    """A statistics file from elsewhere may hold one; it is refused, not run."""
    path = copy / "stats" / "grouped_5fold" / "fold_2.npz"
    np.savez(path, mean=np.array([print], dtype=object), std=np.ones(200))
    (problem,) = verify(str(copy))
    assert problem.endswith("mean has dtype object, expected numbers")


def test_verify_says_what_is_no_preparation(tmp_path):
    assert "prep.json" in verify(str(tmp_path))[0]
