"""Files sent to the server: the answers of `predict`, and clear refusals of what is no honest clip."""

import dataclasses
import json
import os
import pathlib
import time

import numpy as np
import pytest

from emofuse_jax.serving import load
from tests.data_prep.media_files import tone, write
from tests.serving.test_predict import write_film, write_sound

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from fastapi.testclient import TestClient

from emofuse_jax.serving.errors import BusyError
from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.service import Limits
from emofuse_jax.serving.media.decoder_pool import DecoderLostError, Decoders

LIMITS = Limits(max_body_bytes=4 << 20, max_media_seconds=20.0, buckets=(1, 4), max_frame_pixels=640 * 480)


@pytest.fixture(scope="module")
def bundle(voice_bundle_path):
    return load(voice_bundle_path)


@pytest.fixture(scope="module")
def server(bundle):
    with TestClient(make_app(bundle, limits=LIMITS), raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_sound(tmp_path_factory.mktemp("sound") / "long.wav", 4.2)


def send(server, path, route="/v1/predict", name="clip.wav", **fields):
    with open(path, "rb") as file:
        return server.post(route, files={"file": (name, file)}, data=fields)


def assert_same(windows, expected):
    assert len(windows) == len(expected)
    for ours, theirs in zip(windows, expected, strict=True):
        theirs = theirs.to_json()
        assert {*ours} == {*theirs} - {"path"}
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        for name in ("start", "end", "label", "audio_ok", "video_ok"):
            assert ours[name] == theirs[name]


def test_a_file_is_answered_as_predict_answers_it(server, bundle, sound):
    answer = send(server, sound).raise_for_status().json()
    assert answer["seconds"] == pytest.approx(4.2, abs=0.01)
    assert_same(answer["windows"], bundle.predict(sound))
    unsure = send(server, sound, min_confidence="1").json()["windows"]
    assert {window["label"] for window in unsure} == {"unknown"}


def test_windows_come_as_events(server, bundle, sound):
    answer = send(server, sound, "/v1/predict/stream").raise_for_status()
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [event.split("\n") for event in answer.text.strip().split("\n\n")]
    names = [event.removeprefix("event: ") for event, _ in found]
    data = [json.loads(line.removeprefix("data: ")) for _, line in found]
    assert names == ["begin"] + ["window"] * (len(found) - 2) + ["end"]
    assert data[0] == {"seconds": 4.2, "windows": len(found) - 2}
    assert_same(data[1:-1], bundle.predict(sound))


def test_nothing_that_was_sent_stays(server, sound):
    send(server, sound, name="../../../../tmp/evil.wav").raise_for_status()
    send(server, sound, "/v1/predict/stream").raise_for_status()
    assert os.listdir(server.app.state.service.upload_dir) == []
    assert not os.path.exists("/tmp/evil.wav")


def refused(answer, status, field, detail):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/predict/stream"])
def test_what_is_no_honest_clip_is_refused(server, sound, tmp_path, route):
    write(tmp_path / "whole.flac", sound=tone(2.0))
    half = (tmp_path / "whole.flac").read_bytes()[:20_000]
    for name, data, status, detail in (
        ("empty", b"", 415, "empty file"),
        ("text", b"#EXTM3U\nhttp://localhost/x\n", 415, "not media"),
        ("noise", np.random.default_rng(0).bytes(5000), 415, "not media"),
        ("half.flac", half, 422, "truncated"),
        ("cut", pathlib.Path(write_film(tmp_path / "film.mp4")).read_bytes()[:9000], 415, "not media"),
    ):
        (tmp_path / name).write_bytes(data)
        refused(send(server, tmp_path / name, route), status, "file", detail)
    refused(
        send(server, write_sound(tmp_path / "long.wav", 21.0), route), 422, "file", "21 seconds, at most 20"
    )
    (tmp_path / "large").write_bytes(bytes(LIMITS.max_body_bytes))
    refused(send(server, tmp_path / "large", route), 413, "body", "at most")
    refused(server.post(route, files={"clip": b"x"}), 422, "clip", "no such field")
    refused(server.post(route, files={"min_confidence": b"x"}), 422, "file", "expected a media file")
    refused(send(server, sound, route, min_confidence="2"), 422, "min_confidence", "expected a probability")
    headers = {"content-type": "multipart/form-data"}
    assert server.post(route, content=b"--x", headers=headers).status_code == 400
    assert os.listdir(server.app.state.service.upload_dir) == []


def test_a_silent_film_has_no_answer_for_a_voice_model(server, tmp_path):
    answer = send(server, write_film(tmp_path / "film.mp4"))
    refused(answer, 422, "file", "no sound stream")


def test_large_frames_are_refused_before_they_are_decoded(bundle, tmp_path):
    small = dataclasses.replace(LIMITS, max_frame_pixels=64 * 63, max_frame_rate=24.0)
    film = write_film(tmp_path / "film.mp4")
    with TestClient(make_app(bundle, limits=small)) as client:
        refused(send(client, film), 422, "file", "4096 pixels, at most 4032")
    with TestClient(make_app(bundle, limits=dataclasses.replace(small, max_frame_pixels=4096))) as client:
        refused(send(client, film), 422, "file", "25 frames a second, at most 24")


def misbehave(job):
    """In a decoder's process."""
    if not job:
        return None
    path = job[0]
    if path == "crash":
        os._exit(3)
    if path == "hang":
        time.sleep(60)
    return path


def test_every_decoder_is_ready_before_it_is_asked():
    decoders = Decoders(misbehave, workers=2, timeout_seconds=60.0, max_waiting=0)
    try:
        decoders.warm_up()
        assert [worker.is_ready for worker in decoders._workers] == [True, True]
    finally:
        decoders.close()


def test_a_decoder_that_is_lost_is_replaced():
    decoders = Decoders(misbehave, workers=1, timeout_seconds=1.0, max_waiting=0)
    try:
        assert decoders.probe("fine") == "fine"
        with pytest.raises(DecoderLostError, match="crashed"):
            decoders.probe("crash")
        assert decoders.probe("fine") == "fine"
        with pytest.raises(DecoderLostError, match="more than 1 s"):
            decoders.probe("hang")
        assert decoders.probe("fine") == "fine"
        with decoders._slots, pytest.raises(BusyError):
            decoders.probe("fine")
    finally:
        decoders.close()
