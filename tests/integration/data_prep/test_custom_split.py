"""Published splits beside the protocols: refused where they leak, marked where that is allowed."""

import json
import shutil

import numpy as np
import pytest

from data_prep.custom_split import add_split
from data_prep.verify.records import verify
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset, read_split_leaks
from tests.support.small_corpus import manifest_by_clip


@pytest.fixture
def copy(prepared, tmp_path):
    output = tmp_path / "records"
    shutil.copytree(prepared[0], output)
    return output


def write_split_table(folder, parts):
    """A CSV of lists of clip_ids by part."""
    rows = [f"{clip},{part}" for part, clips in parts.items() for clip in clips]
    path = folder / "split.csv"
    path.write_text("\n".join(["clip_id,part", *rows]) + "\n")
    return str(path)


def clips_of_speakers(path, *speakers):
    return [f"s{speaker}_{take}.wav" for speaker in speakers for take in range(6)]


def test_a_clean_split_gets_validation_speakers_and_statistics(copy):
    path = write_split_table(
        copy, {"train": clips_of_speakers(copy, 0, 1, 2, 3), "test": clips_of_speakers(copy, 4, 5)}
    )
    assert add_split(str(copy), "public", path) == []
    fold = json.loads((copy / "splits" / "public" / "fold_0.json").read_text())
    speakers = {part: {clip[1] for clip in clips} for part, clips in fold.items()}
    assert speakers["test"] == {"4", "5"}
    assert len(speakers["validation"]) == 1
    assert speakers["train"] | speakers["validation"] == set("0123")
    assert "leaks" not in fold
    assert verify(str(copy)) == []
    with pytest.raises(ValueError, match="protocol public exists already"):
        add_split(str(copy), "public", path)


def test_a_split_that_leaks_is_taken_only_when_allowed(copy):
    first, second = clips_of_speakers(copy, 0, 1, 2)[::2], clips_of_speakers(copy, 0, 1, 2)[1::2]
    parts = {"train": first, "validation": clips_of_speakers(copy, 3), "test": second}
    path = write_split_table(copy, parts)
    with pytest.raises(ValueError, match=r"speaker 'speaker 0' is in train and test .*--allow_leak"):
        add_split(str(copy), "public", path)
    assert not (copy / "splits" / "public").exists()
    leaks = add_split(str(copy), "public", path, allow_leak=True)
    assert leaks == ["speaker 'speaker 0' is in train and test (3 shared)"]
    assert read_split_leaks(open_dataset(str(copy)), "public", 0) == leaks
    assert verify(str(copy)) == []


def test_verify_finds_a_leak_that_the_split_does_not_name(copy):
    parts = {
        "train": clips_of_speakers(copy, 0),
        "validation": clips_of_speakers(copy, 3),
        "test": clips_of_speakers(copy, 0),
    }
    add_split(str(copy), "public", write_split_table(copy, parts), allow_leak=True)
    name = copy / "splits" / "public" / "fold_0.json"
    name.write_text(json.dumps({part: json.loads(name.read_text())[part] for part in parts}))
    problems = verify(str(copy))
    for message in (
        "train and test contain the same clips",
        "take 's0_0.wav' is in train and test",
        "speaker 'speaker 0'",
    ):
        assert any(message in problem for problem in problems)


def test_verify_finds_statistics_that_saw_other_clips(copy):
    protocol = copy / "stats" / "grouped_5fold"
    with np.load(protocol / "fold_1.npz") as other:
        np.savez(protocol / "fold_0.npz", **other)
    problems = verify(str(copy))
    assert problems[0] == "stats/grouped_5fold/fold_0.npz: mean differs from that of the training clips"
    assert all(problem.startswith("stats/grouped_5fold/fold_0.npz") for problem in problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,part\ns0_0.wav,train\n", "row 1: expected the columns clip_id, part"),
        ("clip_id,part\ns0_0.wav,dev\n", "row 2: part 'dev', expected train, validation, test"),
        ("clip_id,part\nnobody.wav,train\n", r"row 2: clip_id 'nobody.wav' is not in manifest.csv"),
        ("clip_id,part\ns0_0.wav,train\n", "no clip of part test"),
        ("clip_id,part\ns0_0.wav,train\ns1_0.wav,test\n", "1 training speaker, expected at least 2"),
        (
            "clip_id,part\ns0_0.wav,train\ns0_0.wav,train\ns1_0.wav,validation\ns2_0.wav,test\n",
            "is listed twice",
        ),
    ],
)
def test_a_mistaken_table_is_an_error(copy, text, message):
    (copy / "split.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        add_split(str(copy), "public", str(copy / "split.csv"))


@pytest.mark.parametrize("data", [b"clip_id,part\n\xff,train\n", b"clip_id,part\n" + b"x" * 200_000])
def test_a_table_that_is_no_csv(copy, data):
    (copy / "split.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"split\.csv: not a CSV file in UTF-8, save it again: "):
        add_split(str(copy), "public", str(copy / "split.csv"))


@pytest.mark.parametrize("column", ["speaker", "sha256"])
def test_a_manifest_without_a_column(copy, column):
    text = (copy / "manifest.csv").read_text()
    (copy / "manifest.csv").write_text(text.replace(column, "x", 1))
    with pytest.raises(ValueError, match=rf"manifest\.csv: no column '{column}'; prepare the clips again"):
        add_split(str(copy), "public", write_split_table(copy, {"train": clips_of_speakers(copy, 1)}))


def test_a_damaged_shard_is_named(copy):
    shard = copy / records.shard_name("folder", 0, 5)
    shard.write_bytes(b"x" * 100_000)
    parts = {"train": clips_of_speakers(copy, 1, 2), "test": clips_of_speakers(copy, 4)}
    with pytest.raises(ValueError, match=rf"^{shard}: damaged shard: "):
        add_split(str(copy), "public", write_split_table(copy, parts))


def test_a_clip_that_failed_is_left_out(copy):
    assert manifest_by_clip(copy)["text.mp4"]["status"] == "failed"
    parts = {"train": [*clips_of_speakers(copy, 1, 2), "text.mp4"], "test": clips_of_speakers(copy, 4)}
    add_split(str(copy), "public", write_split_table(copy, parts))
    assert "text.mp4" not in (copy / "splits" / "public" / "fold_0.json").read_text()


def test_a_name_must_be_one(copy):
    with pytest.raises(ValueError, match=r"name '../x': expected letters"):
        add_split(str(copy), "../x", write_split_table(copy, {}))
