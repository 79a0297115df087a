"""Worker processes: in order, and a clip that kills or hangs its worker costs only itself."""

import dataclasses
import os
import pathlib
import signal
import sys
import time

import numpy as np
import pytest

from data_prep.prepare import prepare
from data_prep.settings import PrepSettings
from data_prep.workers.pool import MAX_WORKER_DEATHS, Outcome, PrepJob, process_clips, process_to_outcome
from data_prep.workers.sandbox import worker_environment
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from tests.support.rights import as_nobody, make_unreadable

JOB = PrepJob(PrepSettings(), "test", 2)
CLIPS = [MediaClip(f"{i:03d}", "", 0, "a") for i in range(30)]


def return_clip_id(job, clip):
    return Outcome("kept", clip.clip_id, "", None)


def wait_for_second_clip(job, clip):
    """The first clip ends only when the second has been done by another worker."""
    (pathlib.Path(clip.path) / clip.clip_id).touch()
    while clip.clip_id == "000" and not (pathlib.Path(clip.path) / "001").exists():
        time.sleep(0.01)
    return return_clip_id(job, clip)


def kill_or_hang(job, clip):
    if clip.clip_id in ("003", "017"):
        os.kill(os.getpid(), signal.SIGKILL)
    if clip.clip_id == "009":
        time.sleep(600)
    return return_clip_id(job, clip)


def kill_worker(job, clip):
    os.kill(os.getpid(), signal.SIGKILL)


def use_all_memory(job, clip):
    """Two clips take memory until there is no more: one in Python, one where C++ aborts."""
    arrays = []
    while clip.clip_id in ("003", "009"):
        try:
            arrays.append(np.empty(256 << 20, np.uint8))
        except MemoryError:
            if clip.clip_id == "009":
                os.abort()
            raise
    return return_clip_id(job, clip)


def report_process(job, clip):
    """The process and the cores that it may use; 003 kills its first worker, the others wait for three."""
    folder = pathlib.Path(clip.path)
    if clip.clip_id == "003" and not (folder / "003").exists():
        (folder / "003").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"worker_{os.getpid()}").touch()
    deadline = time.monotonic() + 100
    while len(list(folder.glob("worker_*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    return Outcome("kept", f"{os.getpid()} {sorted(os.sched_getaffinity(0))}", "", None)


def test_in_order_on_all_workers(tmp_path):
    clips = [dataclasses.replace(clip, path=str(tmp_path)) for clip in CLIPS]
    outcomes = list(process_clips(clips, JOB, 2, process_function=wait_for_second_clip, timeout_seconds=60.0))
    assert [outcome.reason for outcome in outcomes] == [clip.clip_id for clip in CLIPS]


def test_a_clip_that_kills_or_hangs_its_worker_costs_only_itself():
    outcomes = list(process_clips(CLIPS, JOB, 2, process_function=kill_or_hang, timeout_seconds=2.0))
    failed = {clip.clip_id: o.reason for clip, o in zip(CLIPS, outcomes, strict=True) if o.status == "failed"}
    assert failed == {
        "003": "its worker process ended: exit code -9",
        "009": "its worker process ended: it took more than 2 s",
        "017": "its worker process ended: exit code -9",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="macOS takes the limit and does not heed it")
def test_a_clip_that_takes_all_memory_costs_only_itself():
    outcomes = list(process_clips(CLIPS, JOB, 2, process_function=use_all_memory))
    assert {c.clip_id: o.reason for c, o in zip(CLIPS, outcomes, strict=True) if o.status == "failed"} == {
        "003": "its worker process ended: it took more than 8 GiB of memory",
        "009": "its worker process ended: exit code -6: a crash or more than 8 GiB of memory",
    }


def test_clips_that_take_all_memory_one_after_the_other_do_not_end_the_run():
    """They are at fault, not the machine."""
    clips = [MediaClip("003", "", 0, "a")] * (MAX_WORKER_DEATHS + 1)
    outcomes = list(process_clips([*clips, CLIPS[0]], JOB, 2, process_function=use_all_memory))
    assert [outcome.status for outcome in outcomes] == ["failed"] * len(clips) + ["kept"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
@pytest.mark.parametrize("allowed", ["one", "all"])
def test_each_worker_keeps_to_one_core(tmp_path, allowed):
    """Three workers on one core, then on all; the one that takes a dead one's place takes its core."""
    cores_before = os.sched_getaffinity(0)
    allowed_cores = sorted(cores_before)[:1] if allowed == "one" else sorted(cores_before)
    clips = [dataclasses.replace(clip, path=str(tmp_path)) for clip in CLIPS]
    try:
        os.sched_setaffinity(0, allowed_cores)
        reasons = {
            outcome.reason for outcome in process_clips(clips, JOB, 3, process_function=report_process)
        }
        assert os.sched_getaffinity(0) == set(allowed_cores)
    finally:
        os.sched_setaffinity(0, cores_before)
    assert len({reason.split()[0] for reason in reasons}) >= 3
    assert {reason.partition(" ")[2] for reason in reasons} == {f"[{core}]" for core in allowed_cores[:3]}


def test_a_negative_number_of_workers_is_refused(tmp_path):
    message = "^workers=-1: expected 0 or a larger number"
    with pytest.raises(ValueError, match=message):
        list(process_clips(CLIPS, JOB, -1))
    with pytest.raises(ValueError, match=message):
        prepare(Corpus("x", ("a",), tuple(CLIPS), {}, ()), JOB.settings, str(tmp_path), workers=-1)


def test_workers_that_always_die_end_the_run():
    with pytest.raises(ValueError, match=r"die repeatedly \(exit code -9\)"):
        list(process_clips(CLIPS, JOB, 2, process_function=kill_worker))


def test_a_file_that_may_not_be_read_is_a_reason(tmp_path, capfd):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    make_unreadable(path)
    with as_nobody():
        outcome = process_to_outcome(JOB, MediaClip("a", str(path), 0, "s"))
    assert outcome == Outcome("failed", "can't be read: Permission denied", "", None)
    assert capfd.readouterr().err == ""


def test_environment_is_put_back():
    before = dict(os.environ)
    list(process_clips(CLIPS[:1], JOB, 1, process_function=return_clip_id))
    assert dict(os.environ) == before


def test_a_missing_device_is_an_error(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # as where there is none
    face = dataclasses.replace(PrepSettings().face, device="accelerator")
    job = dataclasses.replace(JOB, settings=dataclasses.replace(JOB.settings, face=face))
    with pytest.raises(ValueError, match="--face_device=accelerator: JAX found no GPU or TPU"):
        list(process_clips(CLIPS[:1], job, 1, process_function=return_clip_id))


def test_an_accelerator_is_shared_by_the_workers(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    before = dict(os.environ)
    with worker_environment("accelerator"):
        assert os.environ["JAX_PLATFORMS"] == "cuda"
        assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert dict(os.environ) == before
