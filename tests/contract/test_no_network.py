"""Nothing tries the network: not on import, and not from clips to an answer."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import httpx2
import pytest

from tests.support.drawn_clips import make_clips
from tests.support.paths import ROOT
from tests.support.server_process import run_server

OFFLINE = ROOT / "tests" / "support" / "offline"
CONFIG = """
from tests.support.fakes import tiny_config

def get_config():
    data = {"augment.frames": 2, "data.batch_size": 1, "data.audio_steps": 70}
    return tiny_config("records", "audio_only", **data, **{"train.epochs": 1, "train.eval_batch_size": 2})
"""


@functools.cache
def no_network_command() -> tuple[str, ...]:
    """What starts a process in a namespace that has no network at all, where that is allowed (root)."""
    trial = shutil.which("unshare") and subprocess.run(["unshare", "-n", "true"], capture_output=True)
    return ("unshare", "-n") if trial and trial.returncode == 0 else ()


def offline_environment(home: pathlib.Path) -> dict[str, str]:
    """The environment in which a Python process can reach this machine alone, and tells what it tried."""
    return {
        "PYTHONPATH": os.pathsep.join([str(OFFLINE), str(ROOT)]),
        "OFFLINE_LOG": str(home / "tried.log"),
        "JAX_NUM_CPU_DEVICES": "1",
    }


def run_offline(home: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    """A Python process that can reach nothing."""
    env, command = os.environ | offline_environment(home), [*no_network_command(), sys.executable, *arguments]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300)


def run_offline_checked(home: pathlib.Path, *arguments: str) -> str:
    done = run_offline(home, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (home / "tried.log").exists(), (home / "tried.log").read_text()
    return done.stdout


def test_the_guard_holds(tmp_path):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    assert "no network in this test" in run_offline(tmp_path, "-c", code).stderr
    code = "import urllib.request; urllib.request.urlopen('http://example.org')"
    assert "no network in this test" in run_offline(tmp_path, "-c", code).stderr
    assert len((tmp_path / "tried.log").read_text().splitlines()) == 2


def test_imports(tmp_path):
    lines = run_offline_checked(tmp_path, str(OFFLINE / "import_all.py")).splitlines()
    assert int(lines[-1].split()[1]) > 150
    skipped_modules = {line.split()[-1] for line in lines if line.startswith("left out")}
    assert skipped_modules <= {"apache_beam", "torch"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> pathlib.Path:
    home = tmp_path_factory.mktemp("offline")
    make_clips(home / "clips")
    (home / "config.py").write_text(CONFIG)
    return home


def test_from_clips_to_an_answer_over_http(home):
    steps = {
        "prepare": ["--corpus=folder", "--source=clips", "--output=records", "--frames=2", "--face_size=16"],
        "crossval": ["--config=config.py", "--workdir=folds", "--folds=0", "--examples=1"],
        "train": ["--config=config.py", "--workdir=run"],
        "evaluate": ["--workdir=run"],
        "export": ["--workdir=run", "--output=bundle"],
        "predict": ["--bundle=bundle", "clips/0.mp4"],
    }
    outputs = {
        verb: run_offline_checked(home, str(ROOT / "launch" / f"{verb}.py"), *arguments)
        for verb, arguments in steps.items()
    }
    predictions = [json.loads(line) for line in outputs["predict"].splitlines()]
    assert all(prediction["label"] in ("high", "low") for prediction in predictions)
    assert (home / "run" / "evaluation" / "test" / "results.json").exists()
    clip = {"file": ("0.mp4", (home / "clips" / "0.mp4").read_bytes())}
    with run_server(f"--bundle={home / 'bundle'}", **offline_environment(home)) as (port, _, _):
        response = httpx2.post(
            f"http://127.0.0.1:{port}/v1/predict", files=clip, timeout=60
        ).raise_for_status()
    assert len(response.json()["windows"]) == len(predictions)
    assert not (home / "tried.log").exists(), (home / "tried.log").read_text()
