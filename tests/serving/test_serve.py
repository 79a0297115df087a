"""`emofuse serve` as a process: ready when compiled, drained on SIGTERM, one line for a bad bundle."""

import concurrent.futures
import json
import signal
import time

import pytest

from tests.serving.conftest import CLASSES, SPEC
from tests.serving.server_process import get, serving, start

pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

BODY = json.dumps({"inputs": {"audio": [[0.5] * SPEC.f] * 90}}).encode()


def test_it_answers_and_ends_when_it_is_told_to(voice_bundle_path):
    with serving(f"--bundle={voice_bundle_path}", EMOFUSE_TOKEN="secret") as (port, process, told):
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
        assert "Traceback" not in told()


def test_no_bundle_is_one_line(tmp_path):
    with open(tmp_path / "log", "w+") as log:
        assert start(log, f"--bundle={tmp_path}").wait(60) == 2
        log.seek(0)
        told = log.read()
    assert told.strip().splitlines()[-1] == f"emofuse: {tmp_path}: not a bundle: it has no bundle.json"
