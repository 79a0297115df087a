"""Stopped at any moment, a preparation goes on and ends with the same files."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data import records
from emofuse_jax.data.writing.shards import PROGRESS_FOLDER, REQUIRED_ROW_FIELDS, ShardPlan
from emofuse_jax.utils.locks import lock_directory
from tests.support.paths import ROOT
from tests.support.small_corpus import SETTINGS, file_checksums, make_source, run_prepare

PREPARE_PROGRAM = """
import sys
from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import FaceSettings, PrepSettings
settings = PrepSettings(face=FaceSettings(frames=4, size=32))
prepare(read_corpus("folder", sys.argv[1]), settings, sys.argv[2], shards=5, workers=int(sys.argv[3]),
        progress=lambda done, total: print(done, total, flush=True))
"""


def start_prepare(source, output, workers=1):
    command = [sys.executable, "-c", PREPARE_PROGRAM, source, str(output), str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def has_ended(group):
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
    process = start_prepare(source, output, workers=2)
    process.communicate()
    assert process.returncode == 0
    return file_checksums(output)


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.long)])
def test_killed_it_ends_with_the_same_files(source, undisturbed, tmp_path, kills):
    """SIGKILL at some clips, and of five once while the last files are written; one worker instead of two."""
    rng = random.Random(0)
    stops = [20] if kills == 1 else [*sorted(rng.sample(range(2, 42), kills - 1)), 42]
    num_unfinished = 0
    for stop in stops:
        process = start_prepare(source, tmp_path)
        for line in process.stdout:
            if int(line.split()[0]) >= stop:
                break
        time.sleep(rng.uniform(0, 0.02 if stop < 42 else 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL or stop == 42  # the last files may be there already
        assert has_ended(process.pid)  # no worker outlives its parent
        num_unfinished += not (tmp_path / "prep.json").exists()
    assert num_unfinished >= max(1, kills - 1)
    process = start_prepare(source, tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert file_checksums(tmp_path) == undisturbed


def test_a_finished_preparation_is_left_as_it_is(source, prepared, tmp_path):
    output, summary = prepared
    shutil.copytree(output, tmp_path / "again")
    before = file_checksums(tmp_path / "again")
    second_summary = run_prepare(source, tmp_path / "again", workers=0)
    assert file_checksums(tmp_path / "again") == before
    assert (second_summary.num_complete, second_summary.masked, second_summary.failed) == (
        summary.num_complete,
        summary.masked,
        summary.failed,
    )


def test_a_lost_shard_is_made_again(source, prepared, tmp_path):
    output, _ = prepared
    shutil.copytree(output, tmp_path / "again")
    os.remove(tmp_path / "again" / records.shard_name("folder", 2, 5))
    progress_counts = []
    run_prepare(source, tmp_path / "again", workers=0, progress=lambda n, total: progress_counts.append(n))
    assert len(progress_counts) == 9  # that shard's clips alone
    assert file_checksums(tmp_path / "again") == file_checksums(output)


@pytest.mark.parametrize("field", REQUIRED_ROW_FIELDS)
def test_a_marker_whose_rows_lack_a_field_is_named(prepared, tmp_path, field):
    output, _ = prepared
    shutil.copytree(output / PROGRESS_FOLDER, tmp_path / PROGRESS_FOLDER)
    shutil.copy(output / records.shard_name("folder", 2, 5), tmp_path)
    plan = ShardPlan(str(tmp_path), "folder", (), 5)
    marker = plan.read_marker(2)
    del marker["rows"][1][field]
    pathlib.Path(plan.marker_path(2)).write_text(json.dumps(marker))
    with pytest.raises(ValueError, match=rf"shard_00002\.json: rows\[1\]: field {field} is None, expected "):
        plan.read_marker(2)


def test_another_preparation_in_the_same_folder_is_refused(source, prepared, tmp_path):
    output, _ = prepared
    corpus = read_corpus("folder", source)
    with pytest.raises(ValueError, match=r"settings.face.frames 4, now 8; use the same value"):
        prepare(corpus, PrepSettings(face=FaceSettings(frames=8, size=32)), str(output), shards=5)
    with pytest.raises(ValueError, match="shards 5, now 3"):
        prepare(corpus, SETTINGS, str(output), shards=3)
    fewer = read_corpus("folder", make_source(tmp_path / "other", num_takes=3))
    with pytest.raises(ValueError, match="number of clips 42, now 24"):
        prepare(fewer, SETTINGS, str(output), shards=5)
    (tmp_path / records.shard_name("demo", 0, 1)).touch()
    with pytest.raises(ValueError, match="contains records of another preparation"):
        run_prepare(source, tmp_path)


def test_a_second_process_is_refused(source, tmp_path):
    with (
        lock_directory(str(tmp_path / PROGRESS_FOLDER)),
        pytest.raises(ValueError, match="another process is using it"),
    ):
        run_prepare(source, tmp_path, workers=0)
