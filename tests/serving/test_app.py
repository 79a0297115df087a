"""The server's JSON route: answers of the bundle, problems that name the field, and honest refusals."""

import base64
import concurrent.futures
import dataclasses
import threading
import time

import numpy as np
import pytest

from emofuse_jax.serving import load
from tests.serving.conftest import CLASSES, SPEC

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from fastapi.testclient import TestClient

from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.service import Limits

LIMITS = Limits(max_body_bytes=1 << 20, max_waiting_clips=64, buckets=(1, 4))


@pytest.fixture(scope="module")
def voice_bundle(voice_bundle_path):
    return load(voice_bundle_path)


@pytest.fixture(scope="module")
def bundle(bundle_path):
    return load(bundle_path)


def started(bundle, **more):
    client = TestClient(make_app(bundle, **{"limits": LIMITS, **more}), raise_server_exceptions=False)
    client.__enter__()
    while client.get("/readyz").status_code != 200:
        time.sleep(0.02)
    return client


@pytest.fixture(scope="module")
def voice(voice_bundle):
    client = started(voice_bundle)
    yield client
    client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def both(bundle):
    client = started(bundle)
    yield client
    client.__exit__(None, None, None)


def packed(array):
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return {"shape": list(array.shape), "data": base64.b64encode(little.tobytes()).decode()}


def ask(client, inputs, **more):
    return client.post("/v1/predict", json={"inputs": inputs, **more})


def check(answer, expected):
    assert set(answer["probabilities"]) == set(CLASSES)
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-5)
    assert answer["label"] == CLASSES[int(np.argmax(expected))]
    assert answer["confidence"] == pytest.approx(float(np.max(expected)), abs=1e-5)


def test_an_answer_is_that_of_the_bundle(both, bundle, inputs):
    whole = bundle.run(inputs)
    for i in range(3):
        given = {name: packed(np.asarray(inputs[name][i])) for name in ("audio", "faces")}
        given["audio"] = packed(np.asarray(inputs["audio"][i][inputs["audio_mask"][i]]))
        given["face_mask"] = inputs["face_mask"][i].tolist()
        answer = ask(both, given).raise_for_status().json()
        check(answer, whole["probabilities"][i])
        voice, face = whole["modality_weights"][i]
        assert answer["voice_weight"] == pytest.approx(voice, abs=1e-5)
        assert answer["face_weight"] == pytest.approx(face, abs=1e-5)
        assert (answer["audio_ok"], answer["video_ok"]) == (True, bool(inputs["face_mask"][i].any()))


def test_lists_will_do_and_a_missing_modality_is_told(both, bundle, inputs):
    sound = np.asarray(inputs["audio"][0])[:150]
    answer = ask(both, {"audio": sound.astype(float).tolist()}).raise_for_status().json()
    row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in bundle.inputs.items()}
    row["audio"][0, :150], row["audio_mask"][0, :150] = sound, True
    check(answer, bundle.run(row)["probabilities"][0])
    assert (answer["audio_ok"], answer["video_ok"]) == (True, False)


def test_an_unsure_answer_is_unknown(voice, inputs):
    given = {"audio": packed(np.asarray(inputs["audio"][0]))}
    assert ask(voice, given, min_confidence=1.0).json()["label"] == "unknown"


SOUND = {"audio": [[0.5] * SPEC.f] * 90}


@pytest.mark.parametrize(
    ("sent", "field", "detail"),
    [
        ({}, "inputs", "expected an object"),
        ({"inputs": []}, "inputs", "expected an object"),
        ({"inputs": {}}, "inputs", "nothing to go by: give audio"),
        ({"inputs": {"audio": None}}, "inputs", "nothing to go by"),
        ({"inputs": {"faces": [1]}}, "inputs.faces", "the model reads audio"),
        ({"inputs": {"audio": [[1, 2], [3]]}}, "inputs.audio", "rows of different lengths"),
        ({"inputs": {"audio": [["a"]]}}, "inputs.audio", "expected numbers of float16"),
        ({"inputs": {"audio": "abc"}}, "inputs.audio", "expected numbers of float16"),
        ({"inputs": {"audio": 3}}, "inputs.audio", r"shape [], expected [1 to 160, 80]"),
        ({"inputs": {"audio": []}}, "inputs.audio", r"shape [0], expected [1 to 160, 80]"),
        ({"inputs": {"audio": [[0.0] * 80] * 161}}, "inputs.audio", "shape [161, 80]"),
        ({"inputs": {"audio": [[1e9] * 80] * 3}}, "inputs.audio", "not finite in float16"),
        ({"inputs": {"audio": {"shape": [1, 80]}}}, "inputs.audio", "object of shape and data"),
        ({"inputs": {"audio": {"shape": [-1, 80], "data": ""}}}, "inputs.audio.shape", "whole numbers"),
        ({"inputs": {"audio": {"shape": [1, 80], "data": "!"}}}, "inputs.audio.data", "not base64"),
        ({"inputs": {"audio": {"shape": [1, 80], "data": "AAA="}}}, "inputs.audio.data", "2 bytes"),
        ({"inputs": SOUND, "min_confidence": 2}, "min_confidence", "expected a probability"),
        ({"inputs": SOUND, "min_confidence": True}, "min_confidence", "expected a probability"),
        ({"inputs": SOUND, "top": 3}, "top", "no such field"),
    ],
)
def test_what_cannot_be_used_is_a_problem_that_names_its_field(voice, sent, field, detail):
    answer = voice.post("/v1/predict", json=sent)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["field"]) == (422, field)
    assert detail in problem["detail"]


def test_bodies_that_are_none(voice):
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs": NaN}'):
        answer = voice.post("/v1/predict", content=data, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["field"] in ("body", "inputs")
    assert voice.post("/v1/predict", data={"a": "b"}).status_code == 415
    large = b" " * (LIMITS.max_body_bytes + 1)
    declared = voice.post("/v1/predict", content=large, headers={"content-type": "application/json"})
    chunks = (large[i : i + 65536] for i in range(0, len(large), 65536))
    streamed = voice.post("/v1/predict", content=chunks, headers={"content-type": "application/json"})
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["field"]) == (413, "body")
    assert voice.get("/v1/predict").status_code == 405
    assert voice.get("/../etc/passwd").json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
    }
    assert ask(voice, SOUND).status_code == 200


def test_what_the_server_tells_of_itself(voice, voice_bundle):
    told = voice.get("/v1/model").json()
    assert told["classes"] == list(CLASSES)
    assert told["inputs"]["audio"] == {"shape": [160, 80], "dtype": "float16"}
    assert voice_bundle.path not in str(told)
    assert voice.get("/healthz").json() == {"status": "ok"}
    ask(voice, SOUND)
    text = voice.get("/metrics").text
    assert 'emofuse_requests_total{route="/v1/predict",status="200"}' in text
    assert "emofuse_clips_waiting 0.0" in text
    schema = voice.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    content = schema["content"]["application/json"]
    assert voice.post("/v1/predict", json=content["example"]).status_code == 200
    properties = content["schema"]["properties"]["inputs"]["properties"]
    assert list(properties) == ["audio"]


def test_a_token_is_asked_for(voice_bundle):
    with TestClient(make_app(voice_bundle, token="secret", limits=LIMITS)) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answer = client.get("/v1/model", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/model", headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/healthz").status_code == 200


class Held:
    """The computation of a bundle, which waits until it is let go."""

    def __init__(self, call):
        self.call, self.go = call, threading.Event()
        self.go.set()

    def __call__(self, weights, arrays):
        assert self.go.wait(30)
        return self.call(weights, arrays)


def test_a_full_server_says_so_and_answers_those_it_took(voice_bundle):
    held = Held(voice_bundle.call)
    stalled = dataclasses.replace(voice_bundle, call=held)
    client = started(
        stalled, limits=dataclasses.replace(LIMITS, max_waiting_clips=4, predict_timeout_seconds=20.0)
    )
    try:
        held.go.clear()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(ask, client, SOUND) for _ in range(12)]
            until = time.monotonic() + 10
            while sum(a.done() for a in asked) < 4 and time.monotonic() < until:
                time.sleep(0.02)  # four run at most, and four wait
            held.go.set()
        codes = [answer.result().status_code for answer in asked]
        assert set(codes) == {200, 503}
        assert 5 <= codes.count(200) <= 8
        refused = next(a.result() for a in asked if a.result().status_code == 503)
        assert refused.headers["retry-after"] == "1"
        assert ask(client, SOUND).status_code == 200
    finally:
        held.go.set()
        client.__exit__(None, None, None)


def test_who_waits_too_long_is_told(voice_bundle):
    held = Held(voice_bundle.call)
    stalled = dataclasses.replace(voice_bundle, call=held)
    client = started(stalled, limits=dataclasses.replace(LIMITS, predict_timeout_seconds=0.2))
    try:
        held.go.clear()
        answer = ask(client, SOUND)
        assert (answer.status_code, answer.json()["detail"]) == (503, "no answer within 0.2 s")
        held.go.set()
        assert ask(client, SOUND).status_code == 200
    finally:
        held.go.set()
        client.__exit__(None, None, None)
