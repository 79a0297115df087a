"""Worker processes: in order, and a clip that kills or hangs its worker costs only itself."""

import dataclasses
import os
import pathlib
import signal
import time

import pytest

from data_prep.corpora.base import Clip
from data_prep.settings import PrepSettings
from data_prep.workers import Job, Outcome, outcomes

JOB = Job(PrepSettings(), "test", 2)
CLIPS = [Clip(f"{i:03d}", "", 0, "a") for i in range(30)]


def told(job, clip):
    return Outcome("kept", clip.clip_id, "", None)


def paired(job, clip):
    """The first clip ends only when the second has been done by another worker."""
    (pathlib.Path(clip.path) / clip.clip_id).touch()
    while clip.clip_id == "000" and not (pathlib.Path(clip.path) / "001").exists():
        time.sleep(0.01)
    return told(job, clip)


def deadly(job, clip):
    if clip.clip_id in ("003", "017"):
        os.kill(os.getpid(), signal.SIGKILL)
    if clip.clip_id == "009":
        time.sleep(600)
    return told(job, clip)


def suicidal(job, clip):
    os.kill(os.getpid(), signal.SIGKILL)


def test_in_order_on_all_workers(tmp_path):
    clips = [dataclasses.replace(clip, path=str(tmp_path)) for clip in CLIPS]
    found = list(outcomes(clips, JOB, 2, work=paired, seconds=60.0))
    assert [outcome.reason for outcome in found] == [clip.clip_id for clip in CLIPS]


def test_a_clip_that_kills_or_hangs_its_worker_costs_only_itself():
    found = list(outcomes(CLIPS, JOB, 2, work=deadly, seconds=2.0))
    failed = {clip.clip_id: o.reason for clip, o in zip(CLIPS, found, strict=True) if o.status == "failed"}
    assert failed == {
        "003": "the worker was lost on it: exit code -9",
        "009": "the worker was lost on it: it took more than 2 s",
        "017": "the worker was lost on it: exit code -9",
    }


def test_workers_that_always_die_end_the_run():
    with pytest.raises(ValueError, match=r"again and again \(exit code -9\)"):
        list(outcomes(CLIPS, JOB, 2, work=suicidal))


def test_environment_is_put_back():
    before = dict(os.environ)
    list(outcomes(CLIPS[:1], JOB, 1, work=told))
    assert dict(os.environ) == before
