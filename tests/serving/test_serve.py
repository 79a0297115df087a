"""`emofuse serve` as a process: ready when compiled, drained on SIGTERM, one line for a bad bundle."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.serving.conftest import CLASSES, SPEC

pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

BODY = json.dumps({"inputs": {"audio": [[0.5] * SPEC.f] * 90}}).encode()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(port, route, data=None, token=""):
    """Status and JSON; status 0 where nobody listens."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{route}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except (urllib.error.URLError, ConnectionError):
        return 0, None


def serve(*flags, **environment):
    command = [sys.executable, "-m", "launch.serve", *flags]
    return subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_it_answers_and_ends_when_it_is_told_to(voice_bundle_path):
    port = free_port()
    process = serve(f"--bundle={voice_bundle_path}", f"--port={port}", EMOFUSE_TOKEN="secret")
    try:
        until = time.monotonic() + 120
        while get(port, "/readyz")[0] != 200:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        assert get(port, "/v1/predict", BODY)[0] == 401
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(get, port, "/v1/predict", BODY, "secret") for _ in range(400)]
            while sum(answer.done() for answer in asked) < 100:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            answers = [answer.result() for answer in asked]
        done = [answer for code, answer in answers if code == 200]
        assert len(done) >= 100
        assert {code for code, _ in answers} <= {0, 200, 503}
        for answer in done:  # in batches of other sizes the last digits are others
            assert answer["probabilities"] == pytest.approx(done[0]["probabilities"], abs=1e-5)
        assert set(done[0]["probabilities"]) == set(CLASSES)
        assert process.wait(30) in (0, -signal.SIGTERM)  # uvicorn passes the signal on when it is through
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_no_bundle_is_one_line(tmp_path):
    process = serve(f"--bundle={tmp_path}")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert told.strip().splitlines()[-1] == f"emofuse: {tmp_path}: not a bundle: it has no bundle.json"
