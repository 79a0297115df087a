"""A whole preparation: resumed byte for byte, opened by TFDS, split and summed up right, and verified."""

import csv
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep import verify as verify_module
from data_prep.corpora import read_corpus
from data_prep.pipeline import prepare
from data_prep.settings import FaceSettings, PrepSettings
from data_prep.shards import file_sha256, locked, read_shard
from data_prep.verify import verify
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset, split_indices, statistics
from tests.data_prep.media_files import ramp, tone, write, write_wav

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=32))


def make_source(folder, speakers=6, takes=6):
    """Sound of many speakers, a film of each without a face, a silent take, and three broken files."""
    folder.mkdir(parents=True)
    rng, table = np.random.default_rng(0), ["path,label,speaker"]
    for speaker in range(speakers):
        for take in range(takes):
            sound = tone(rng.uniform(0.1, 0.4), 200 + 40 * speaker + take, rate=16_000) * rng.uniform(0.2, 1)
            write_wav(folder / f"s{speaker}_{take}.wav", sound)
            table.append(f"s{speaker}_{take}.wav,{['low', 'high'][take % 2]},speaker {speaker}")
    write(folder / "film.mp4", frames=ramp(0.5), sound=tone(0.5))
    write_wav(folder / "silent.wav", np.zeros(8000))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no film")
    (folder / "half.mp4").write_bytes((folder / "film.mp4").read_bytes()[:3000])
    for name in ("film.mp4", "silent.wav", "empty.mp4", "text.mp4", "half.mp4", "absent.mp4"):
        table.append(f"{name},low,speaker 0")
    (folder / "clips.csv").write_text("\n".join(table) + "\n")
    return str(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source") / "clips")


def run_prepare(source, output, **options):
    return prepare(read_corpus("folder", source), SETTINGS, str(output), shards=5, **options)


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """(output, summary) of an undisturbed preparation."""
    output = tmp_path_factory.mktemp("records")
    summary = run_prepare(source, output, workers=0)
    return output, summary


def manifest(output):
    with open(os.path.join(output, "manifest.csv"), newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


def every_file(output):
    """Checksum of each file of a preparation."""
    output = pathlib.Path(output)
    return {str(p.relative_to(output)): file_sha256(p) for p in sorted(output.rglob("*")) if p.is_file()}


# --- what is written -------------------------------------------------------------------------------------


def test_every_clip_has_its_row(prepared, source):
    output, summary = prepared
    rows = manifest(output)
    assert summary.problems == ()
    assert len(rows) == 42
    told = {clip: row["reason"] for clip, row in rows.items() if row["status"] == "failed"}
    assert told == {
        "absent.mp4": "no such file or directory",
        "empty.mp4": "empty file",
        "half.mp4": "not media, or damaged beyond reading",
        "silent.wav": "sound is silent; no video stream",
        "text.mp4": "not media, or damaged beyond reading",
    }
    assert dict(summary.failed) == told
    assert (summary.kept, summary.masked) == (0, 37)
    assert rows["film.mp4"]["reason"] == "no face in 4 frames"
    assert rows["s0_0.wav"]["sha256"] == file_sha256(os.path.join(source, "s0_0.wav"))
    assert {row["index"] for row in rows.values() if row["status"] == "failed"} == {"-1"}
    assert not list(output.rglob("*.tmp"))


def test_the_dataset_reads_what_was_written(prepared):
    output, _ = prepared
    dataset = open_dataset(str(output), recipe="fbp")
    assert dataset.classes == ("high", "low")
    assert dataset.speakers == tuple(f"speaker {i}" for i in range(6))
    for clip_id, index in dataset.index.items():
        record = dataset.read(index)
        assert record.clip_id == clip_id
        assert (record.audio_ok, record.video_ok) == (True, False)
        assert record.label == (0 if clip_id[-5] in "135" else 1)


def test_statistics_are_those_of_the_training_clips(prepared):
    output, _ = prepared
    dataset = open_dataset(str(output))
    for fold in range(5):
        train = split_indices(dataset, "grouped_5fold", fold, "train")
        assert len(train) > 0
        frames = np.concatenate([dataset.read(i).spectrogram for i in train]).astype(np.float64)
        mean, std = statistics(dataset, "grouped_5fold", fold)
        np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(std, frames.std(0), rtol=1e-5, atol=1e-6)
    first = statistics(dataset, "grouped_5fold", 0)[0]
    assert np.abs(first - statistics(dataset, "grouped_5fold", 1)[0]).max() > 1e-3


# --- going on --------------------------------------------------------------------------------------------

RUN = """
import sys
from data_prep.corpora import read_corpus
from data_prep.pipeline import prepare
from data_prep.settings import FaceSettings, PrepSettings
settings = PrepSettings(face=FaceSettings(frames=4, size=32))
prepare(read_corpus("folder", sys.argv[1]), settings, sys.argv[2], shards=5, workers=int(sys.argv[3]),
        progress=lambda done, total: print(done, total, flush=True))
"""


def start(source, output, workers=1):
    command = [sys.executable, "-c", RUN, source, str(output), str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def gone(group):
    """Whether all processes of a group have ended, within a few seconds."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """Two worker processes, without a break."""
    output = tmp_path_factory.mktemp("undisturbed")
    process = start(source, output, workers=2)
    process.communicate()
    assert process.returncode == 0
    return every_file(output)


def test_killed_five_times_it_ends_with_the_same_files(source, undisturbed, tmp_path):
    """SIGKILL at seeded random clips, once while the last files are written; one worker instead of two."""
    rng = random.Random(0)
    stops = sorted(rng.sample(range(2, 42), 4)) + [42]
    partial = 0
    for stop in stops:
        process = start(source, tmp_path)
        for line in process.stdout:
            if int(line.split()[0]) >= stop:
                break
        time.sleep(rng.uniform(0, 0.02 if stop < 42 else 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert gone(process.pid)  # no worker outlives its parent
        partial += not (tmp_path / "prep.json").exists()
    assert partial >= 4
    process = start(source, tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert every_file(tmp_path) == undisturbed


def test_a_finished_preparation_is_left_as_it_is(source, prepared, tmp_path):
    output, summary = prepared
    shutil.copytree(output, tmp_path / "again")
    before = every_file(tmp_path / "again")
    again = run_prepare(source, tmp_path / "again", workers=0)
    assert every_file(tmp_path / "again") == before
    assert (again.kept, again.masked, again.failed) == (summary.kept, summary.masked, summary.failed)


def test_a_lost_shard_is_made_again(source, prepared, tmp_path):
    output, _ = prepared
    shutil.copytree(output, tmp_path / "again")
    os.remove(tmp_path / "again" / records.shard_name("folder", 2, 5))
    done = []
    run_prepare(source, tmp_path / "again", workers=0, progress=lambda n, total: done.append(n))
    assert len(done) == 8  # that shard's clips alone
    assert every_file(tmp_path / "again") == every_file(output)


def test_another_preparation_in_the_same_folder_is_refused(source, prepared, tmp_path):
    output, _ = prepared
    corpus = read_corpus("folder", source)
    with pytest.raises(ValueError, match=r"settings.face.frames 4, now 8; use another --output"):
        prepare(corpus, PrepSettings(face=FaceSettings(frames=8, size=32)), str(output), shards=5)
    with pytest.raises(ValueError, match="shards 5, now 3"):
        prepare(corpus, SETTINGS, str(output), shards=3)
    fewer = read_corpus("folder", make_source(tmp_path / "other", takes=3))
    with pytest.raises(ValueError, match="number of clips 42, now 24"):
        prepare(fewer, SETTINGS, str(output), shards=5)
    (tmp_path / records.shard_name("demo", 0, 1)).touch()
    with pytest.raises(ValueError, match="holds records of something else"):
        run_prepare(source, tmp_path)


def test_a_second_process_is_refused(source, tmp_path):
    with locked(str(tmp_path)), pytest.raises(ValueError, match="another process is preparing here"):
        run_prepare(source, tmp_path, workers=0)


def test_a_shard_without_a_record_and_a_corpus_without_one(tmp_path):
    """Files that fail can fill a shard; the rest is kept. If all fail the command says why."""
    write_wav(tmp_path / "z.wav", tone(0.2, rate=16_000))
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    table = "path,label,speaker\na.mp4,x,ann\nb.mp4,x,ann\n"
    (tmp_path / "bad.csv").write_text(table)
    (tmp_path / "good.csv").write_text(table + "z.wav,x,bob\n")
    corpus = read_corpus("folder", str(tmp_path / "good.csv"))
    summary = prepare(corpus, SETTINGS, str(tmp_path / "good"), workers=0, shards=3)
    assert (summary.masked, len(summary.failed), summary.problems) == (1, 2, ())
    assert open_dataset(str(tmp_path / "good")).read(0).clip_id == "z.wav"
    assert len(tfds_source(tmp_path / "good")) == 1
    with pytest.raises(ValueError, match="none of 2 clips could be read; a.mp4: empty file"):
        prepare(read_corpus("folder", str(tmp_path / "bad.csv")), SETTINGS, str(tmp_path / "bad"), workers=0)


# --- TFDS ------------------------------------------------------------------------------------------------


def tfds_source(output):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(output)).as_data_source("clips")


def test_tfds_opens_the_records_without_tensorflow(prepared):
    output, _ = prepared
    dataset, source = open_dataset(str(output)), tfds_source(output)
    assert not [name for name in sys.modules if name == "tensorflow"]
    assert len(source) == len(dataset.index) == 37
    for index in range(len(source)):
        theirs, ours = source[index], dataset.read(index)
        for name in ("clip_id", "speaker", "corpus"):
            assert theirs[name].decode() == getattr(ours, name)
        for name in ("label", "audio_ok", "video_ok"):
            assert theirs[name] == getattr(ours, name)
        for name in records._ARRAYS:
            mine = getattr(ours, name)
            assert theirs[name].dtype == mine.dtype
            np.testing.assert_array_equal(theirs[name], mine)
    assert source.dataset_info.features["label"].names == ["high", "low"]


def test_our_decoding_is_faster_than_theirs(tmp_path):
    """Records of full size (16 faces of 112 x 112, 3 s of sound), decoded from memory."""
    write_wav(tmp_path / "a.wav", tone(3.0, rate=16_000))
    write_wav(tmp_path / "b.wav", tone(3.0, rate=16_000))
    (tmp_path / "clips.csv").write_text("path,label,speaker\na.wav,x,ann\nb.wav,y,bob\n")
    corpus = read_corpus("folder", str(tmp_path))
    prepare(corpus, PrepSettings(), str(tmp_path / "out"), workers=0)
    features = tfds_source(tmp_path / "out").dataset_info.features
    shape = records.RecordShape(200, 112, 112)
    (data, _) = read_shard(records.shard_paths(str(tmp_path / "out"))[0])
    assert len(data) > 700_000

    def fastest(decode):
        times = []
        for _ in range(30):
            begun = time.perf_counter()
            for _ in range(5):
                decode(data)
            times.append((time.perf_counter() - begun) / 5)
        return min(times)

    ours = fastest(lambda data: records.decode(data, shape))
    theirs = fastest(features.deserialize_example_np)
    print(
        f"\ndecoding a record: ours {ours * 1e6:.0f} us, TFDS {theirs * 1e6:.0f} us, ratio {theirs / ours:.2f}"
    )
    assert ours <= theirs


# --- verify ----------------------------------------------------------------------------------------------


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
    for one in data:
        writer.write(one)
    writer.close()
    edit_json(folder / "prep.json", lambda prep: prep["shards"][0].update(sha256=file_sha256(path)))


def test_verify_is_content_with_what_is_right(copy, capsys):
    assert verify(str(copy)) == []
    assert verify_module.main([str(copy)]) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_verify_finds_a_flipped_byte(copy, capsys):
    data = bytearray(first_shard(copy).read_bytes())
    data[len(data) // 2] ^= 1
    first_shard(copy).write_bytes(data)
    (problem,) = verify(str(copy))
    assert problem.startswith("folder-clips.array_record-00000-of-00005: sha256")
    assert verify_module.main([str(copy)]) == 1
    assert "sha256" in capsys.readouterr().out


def test_verify_finds_a_truncated_and_a_missing_shard(copy):
    data = first_shard(copy).read_bytes()
    first_shard(copy).write_bytes(data[: len(data) // 2])
    os.remove(copy / records.shard_name("folder", 1, 5))
    problems = verify(str(copy))
    assert len(problems) == 2
    assert "sha256" in problems[0]
    assert "is missing" in problems[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spectrogram": np.full((3, 200), np.nan, np.float16)}, "spectrogram, finite False"),
        ({"face_box": np.full((4, 4), np.inf, np.float32)}, "face_box, finite False"),
        ({"label": 5}, "label 5, expected"),
        ({"speaker": "speaker 9"}, "speaker 'speaker 9', expected"),
        ({"faces": np.zeros((3, 32, 32, 3), np.uint8)}, "field faces"),
        ({"video_ok": True}, "video_ok True, expected False"),
        ({"votes": np.ones(2, np.float32)}, "votes, sum False"),
    ],
)
def test_verify_finds_a_wrong_record(copy, changes, told):
    rewrite_first_record(copy, **changes)
    problems = verify(str(copy))
    assert any(told in problem and problem.startswith("folder-clips") for problem in problems), problems


def test_verify_finds_a_wrong_label_histogram(copy):
    text = (copy / "manifest.csv").read_text()
    (copy / "manifest.csv").write_text(text.replace("s3_2.wav,speaker 3,1,", "s3_2.wav,speaker 3,0,"))
    problems = verify(str(copy))
    assert any("label histogram" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda fold: fold["test"].append(fold["train"][0]), "take 's"),
        (lambda fold: fold["validation"].append(fold["train"].pop()), "speaker 'speaker"),
        (lambda fold: fold["test"].append("nobody.wav"), "clip_id 'nobody.wav' has no record"),
        (lambda fold: fold["train"].append("empty.mp4"), "clip_id 'empty.mp4' has no record"),
        (lambda fold: fold.update(validation=fold["test"]), "validation and test are the same clips"),
        (lambda fold: fold.pop("test"), "'test'"),
    ],
)
def test_verify_finds_a_leak(copy, change, told):
    edit_json(copy / "splits" / "grouped_5fold" / "fold_1.json", change)
    problems = verify(str(copy))
    assert any(told in problem for problem in problems), problems
    assert all("fold_1" in problem for problem in problems)


def test_verify_finds_a_copied_file_in_two_parts(copy):
    rows = manifest(copy)
    fold = json.loads((copy / "splits" / "grouped_5fold" / "fold_0.json").read_text())
    one, other = rows[fold["train"][0]]["sha256"], rows[fold["test"][0]]["sha256"]
    text = (copy / "manifest.csv").read_text()
    (copy / "manifest.csv").write_text(text.replace(one, other))
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
    assert "allow_pickle" in problem


def test_verify_says_what_is_no_preparation(tmp_path):
    assert "prep.json" in verify(str(tmp_path))[0]


# --- real data and the command ---------------------------------------------------------------------------


@pytest.fixture
def command():
    def run(*arguments):
        line = [sys.executable, os.path.join(ROOT, "launch", "prepare.py"), *arguments]
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)

    return run


def test_real_ravdess_by_command(shared_data, command, tmp_path):
    """Three actors, 24 clips, by links: sound kept, video masked."""
    for actor in ("01", "02", "03"):
        folder = os.path.join(shared_data, "ravdess_speech", f"Actor_{actor}")
        (tmp_path / "in" / f"Actor_{actor}").mkdir(parents=True)
        for name in sorted(os.listdir(folder))[::8]:
            (tmp_path / "in" / f"Actor_{actor}" / name).symlink_to(os.path.join(folder, name))
    done = command("--corpus=ravdess", f"--source={tmp_path}/in", f"--output={tmp_path}/out", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "0 kept, 24 masked, 0 failed" in done.stdout
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.prep["sex"] == {"01": "m", "02": "f", "03": "m"}
    found = [dataset.read(i) for i in range(24)]
    assert all(record.audio_ok and not record.video_ok for record in found)
    assert all(250 < len(record.spectrogram) < 600 for record in found)


def test_strict_and_mistakes_by_command(source, command, tmp_path):
    (tmp_path / "clips.csv").write_text("path,label,speaker\na.mp4,x,ann\nb.wav,x,bob\n")
    (tmp_path / "a.mp4").touch()
    write_wav(tmp_path / "b.wav", tone(0.2, rate=16_000))
    line = ("--corpus=folder", f"--source={tmp_path}", f"--output={tmp_path}/out", "--workers=1")
    strict = command(*line, "--strict")
    assert strict.returncode == 1
    assert "failed: a.mp4: empty file" in strict.stderr
    assert command(*line).returncode == 0
    wrong = command("--corpus=folder", "--source=/nowhere", f"--output={tmp_path}/out")
    assert wrong.returncode not in (0, 1) or "nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert "/nowhere: not there" in wrong.stderr
