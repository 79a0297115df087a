"""`emofuse serve` as a process: ready when compiled, drained on SIGTERM, one line for a bad bundle."""

import concurrent.futures
import json
import signal
import time

import pytest

from tests.support.bundles import CLASSES, SPEC
from tests.support.server_process import get_json, run_server, start_server

pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

BODY = json.dumps({"inputs": {"audio": [[0.5] * SPEC.f] * 90}}).encode()


def test_it_answers_and_ends_when_it_is_told_to(audio_bundle_path):
    with run_server(f"--bundle={audio_bundle_path}", EMOFUSE_TOKEN="secret") as (port, process, read_log):
        assert get_json(port, "/v1/predict", BODY)[0] == 401
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(get_json, port, "/v1/predict", BODY, "secret") for _ in range(400)]
            while sum(response.done() for response in futures) < 100:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            responses = [response.result() for response in futures]
        predictions = [response for code, response in responses if code == 200]
        assert len(predictions) >= 100
        assert {code for code, _ in responses} <= {0, 200, 503}
        for response in predictions:  # in batches of other sizes the last digits are others
            assert response["probabilities"] == pytest.approx(predictions[0]["probabilities"], abs=1e-5)
        assert set(predictions[0]["probabilities"]) == set(CLASSES)
        assert process.wait(30) in (0, -signal.SIGTERM)  # uvicorn passes the signal on when it is through
        assert "Traceback" not in read_log()


def test_no_bundle_is_one_line(tmp_path):
    with open(tmp_path / "log", "w+") as log:
        assert start_server(log, f"--bundle={tmp_path}").wait(60) == 2
        log.seek(0)
        log_text = log.read()
    expected_line = (
        f"emofuse: {tmp_path}: not a bundle: the directory has no bundle.json; pass a directory that emofuse"
        " export wrote"
    )
    assert log_text.strip().splitlines()[-1] == expected_line
