"""The server's JSON route: answers of the bundle, problems that name the field, and honest refusals."""

import base64
import concurrent.futures
import dataclasses
import threading
import time

import numpy as np
import pytest

from emofuse_jax.serving import load
from tests.support.bundles import CLASSES, SPEC

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from fastapi.testclient import TestClient

from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.service import Limits

LIMITS = Limits(max_body_bytes=1 << 20, max_waiting_clips=64, batch_sizes=(1, 4))


@pytest.fixture(scope="module")
def audio_bundle(audio_bundle_path):
    return load(audio_bundle_path)


@pytest.fixture(scope="module")
def bundle(bundle_path):
    return load(bundle_path)


def start_client(bundle, **options):
    client = TestClient(make_app(bundle, **{"limits": LIMITS, **options}), raise_server_exceptions=False)
    client.__enter__()
    while client.get("/readyz").status_code != 200:
        time.sleep(0.02)
    return client


@pytest.fixture(scope="module")
def audio_client(audio_bundle):
    client = start_client(audio_bundle)
    yield client
    client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def two_stream_client(bundle):
    client = start_client(bundle)
    yield client
    client.__exit__(None, None, None)


def encode_array(array):
    little_endian = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return {"shape": list(array.shape), "data": base64.b64encode(little_endian.tobytes()).decode()}


def post_predict(client, inputs, **fields):
    return client.post("/v1/predict", json={"inputs": inputs, **fields})


def assert_prediction(prediction, expected):
    assert set(prediction["probabilities"]) == set(CLASSES)
    np.testing.assert_allclose(list(prediction["probabilities"].values()), expected, atol=1e-5)
    assert prediction["label"] == CLASSES[int(np.argmax(expected))]
    assert prediction["confidence"] == pytest.approx(float(np.max(expected)), abs=1e-5)


def test_an_answer_is_that_of_the_bundle(two_stream_client, bundle, inputs):
    outputs = bundle.run(inputs)
    for i in range(3):
        clip_inputs = {name: encode_array(np.asarray(inputs[name][i])) for name in ("audio", "faces")}
        clip_inputs["audio"] = encode_array(np.asarray(inputs["audio"][i][inputs["audio_mask"][i]]))
        clip_inputs["face_mask"] = inputs["face_mask"][i].tolist()
        prediction = post_predict(two_stream_client, clip_inputs).raise_for_status().json()
        assert_prediction(prediction, outputs["probabilities"][i])
        voice_weight, face_weight = outputs["modality_weights"][i]
        assert prediction["voice_weight"] == pytest.approx(voice_weight, abs=1e-5)
        assert prediction["face_weight"] == pytest.approx(face_weight, abs=1e-5)
        assert (prediction["audio_ok"], prediction["video_ok"]) == (True, bool(inputs["face_mask"][i].any()))


def test_lists_will_do_and_a_missing_modality_is_reported(two_stream_client, bundle, inputs):
    audio = np.asarray(inputs["audio"][0])[:150]
    prediction = (
        post_predict(two_stream_client, {"audio": audio.astype(float).tolist()}).raise_for_status().json()
    )
    row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in bundle.inputs.items()}
    row["audio"][0, :150], row["audio_mask"][0, :150] = audio, True
    assert_prediction(prediction, bundle.run(row)["probabilities"][0])
    assert (prediction["audio_ok"], prediction["video_ok"]) == (True, False)


def test_an_unsure_answer_is_unknown(audio_client, inputs):
    clip_inputs = {"audio": encode_array(np.asarray(inputs["audio"][0]))}
    assert post_predict(audio_client, clip_inputs, min_confidence=1.0).json()["label"] == "unknown"


AUDIO_INPUTS = {"audio": [[0.5] * SPEC.f] * 90}


@pytest.mark.parametrize(
    ("sent", "field", "detail"),
    [
        ({}, "inputs", "expected an object"),
        ({"inputs": []}, "inputs", "expected an object"),
        ({"inputs": {}}, "inputs", "no usable voice or face: send audio"),
        ({"inputs": {"audio": None}}, "inputs", "no usable voice or face"),
        ({"inputs": {"faces": [1]}}, "inputs.faces", "the model reads audio"),
        ({"inputs": {"audio": [[1, 2], [3]]}}, "inputs.audio", "rows of equal length"),
        ({"inputs": {"audio": [["a"]]}}, "inputs.audio", "expected a nested list of numbers"),
        ({"inputs": {"audio": "abc"}}, "inputs.audio", "expected a nested list of numbers"),
        ({"inputs": {"audio": 3}}, "inputs.audio", r"shape []: expected [1 to 160, 80]"),
        ({"inputs": {"audio": []}}, "inputs.audio", r"shape [0]: expected [1 to 160, 80]"),
        ({"inputs": {"audio": [[0.0] * 80] * 161}}, "inputs.audio", "shape [161, 80]"),
        ({"inputs": {"audio": [[1e9] * 80] * 3}}, "inputs.audio", "not finite in float16"),
        ({"inputs": {"audio": {"shape": [1, 80]}}}, "inputs.audio", "object with shape and data"),
        ({"inputs": {"audio": {"shape": [-1, 80], "data": ""}}}, "inputs.audio.shape", "whole numbers"),
        ({"inputs": {"audio": {"shape": [1] * 65, "data": "AAA="}}}, "inputs.audio.shape", "NumPy cannot"),
        ({"inputs": {"audio": {"shape": [1, 80], "data": "!"}}}, "inputs.audio.data", "not base64"),
        ({"inputs": {"audio": {"shape": [1, 80], "data": "AAA="}}}, "inputs.audio.data", "2 bytes"),
        ({"inputs": AUDIO_INPUTS, "min_confidence": 2}, "min_confidence", "expected a number from 0 to 1"),
        ({"inputs": AUDIO_INPUTS, "min_confidence": True}, "min_confidence", "expected a number from 0 to 1"),
        ({"inputs": AUDIO_INPUTS, "top": 3}, "top", "unknown field"),
    ],
)
def test_what_cannot_be_used_is_a_problem_that_names_its_field(audio_client, sent, field, detail):
    response = audio_client.post("/v1/predict", json=sent)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["field"]) == (422, field)
    assert detail in problem["detail"]


def test_bodies_that_are_none(audio_client):
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs": NaN}'):
        response = audio_client.post(
            "/v1/predict", content=data, headers={"content-type": "application/json"}
        )
        assert response.status_code == 422
        assert response.json()["field"] in ("body", "inputs")
    assert audio_client.post("/v1/predict", data={"a": "b"}).status_code == 415
    large = b" " * (LIMITS.max_body_bytes + 1)
    declared = audio_client.post("/v1/predict", content=large, headers={"content-type": "application/json"})
    chunks = (large[i : i + 65536] for i in range(0, len(large), 65536))
    streamed = audio_client.post("/v1/predict", content=chunks, headers={"content-type": "application/json"})
    for response in (declared, streamed):
        assert (response.status_code, response.json()["field"]) == (413, "body")
    assert audio_client.get("/v1/predict").status_code == 405
    assert audio_client.get("/../etc/passwd").json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
    }
    assert post_predict(audio_client, AUDIO_INPUTS).status_code == 200


def test_the_server_describes_its_model(audio_client, audio_bundle):
    model_description = audio_client.get("/v1/model").json()
    assert model_description["classes"] == list(CLASSES)
    assert model_description["inputs"]["audio"] == {"shape": [160, 80], "dtype": "float16"}
    assert audio_bundle.path not in str(model_description)
    assert audio_client.get("/healthz").json() == {"status": "ok"}
    post_predict(audio_client, AUDIO_INPUTS)
    text = audio_client.get("/metrics").text
    assert 'emofuse_requests_total{route="/v1/predict",status="200"}' in text
    assert "emofuse_clips_waiting 0.0" in text
    schema = audio_client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    content = schema["content"]["application/json"]
    assert audio_client.post("/v1/predict", json=content["example"]).status_code == 200
    properties = content["schema"]["properties"]["inputs"]["properties"]
    assert list(properties) == ["audio"]


def test_a_token_is_asked_for(audio_bundle):
    with TestClient(make_app(audio_bundle, token="secret", limits=LIMITS)) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            response = client.get("/v1/model", headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/model", headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/healthz").status_code == 200


class BlockingCall:
    """The computation of a bundle, which waits until it is let go."""

    def __init__(self, call):
        self.call, self.go = call, threading.Event()
        self.go.set()

    def __call__(self, weights, arrays):
        assert self.go.wait(30)
        return self.call(weights, arrays)


def test_a_full_server_says_so_and_answers_those_it_took(audio_bundle):
    blocking_call = BlockingCall(audio_bundle.call)
    stalled = dataclasses.replace(audio_bundle, call=blocking_call)
    client = start_client(
        stalled, limits=dataclasses.replace(LIMITS, max_waiting_clips=4, predict_timeout_seconds=20.0)
    )
    try:
        blocking_call.go.clear()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            futures = [pool.submit(post_predict, client, AUDIO_INPUTS) for _ in range(12)]
            deadline = time.monotonic() + 10
            while sum(future.done() for future in futures) < 4 and time.monotonic() < deadline:
                time.sleep(0.02)  # four run at most, and four wait
            blocking_call.go.set()
        status_codes = [future.result().status_code for future in futures]
        assert set(status_codes) == {200, 503}
        assert 5 <= status_codes.count(200) <= 8
        refusal = next(future.result() for future in futures if future.result().status_code == 503)
        assert refusal.headers["retry-after"] == "1"
        assert post_predict(client, AUDIO_INPUTS).status_code == 200
    finally:
        blocking_call.go.set()
        client.__exit__(None, None, None)


def test_a_request_that_waits_too_long_is_refused(audio_bundle):
    blocking_call = BlockingCall(audio_bundle.call)
    stalled = dataclasses.replace(audio_bundle, call=blocking_call)
    client = start_client(stalled, limits=dataclasses.replace(LIMITS, predict_timeout_seconds=0.2))
    try:
        blocking_call.go.clear()
        response = post_predict(client, AUDIO_INPUTS)
        assert (response.status_code, response.json()["detail"]) == (
            503,
            "no prediction within 0.2 s; try again later",
        )
        blocking_call.go.set()
        assert post_predict(client, AUDIO_INPUTS).status_code == 200
    finally:
        blocking_call.go.set()
        client.__exit__(None, None, None)
