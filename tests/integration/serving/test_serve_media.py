"""Files sent to the server: the answers of `predict`, and clear refusals of what is no honest clip."""

import dataclasses
import json
import os
import pathlib
import time

import numpy as np
import pytest

from emofuse_jax.serving import load
from tests.support.media_files import tone, write_media
from tests.unit.serving.test_predict import write_audio, write_video

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from fastapi.testclient import TestClient

from emofuse_jax.serving.errors import BusyError
from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.service import Limits
from emofuse_jax.serving.media.decoder_pool import DecoderLostError, DecoderPool

LIMITS = Limits(
    max_body_bytes=4 << 20, max_media_seconds=20.0, batch_sizes=(1, 4), max_frame_pixels=640 * 480
)


@pytest.fixture(scope="module")
def bundle(audio_bundle_path):
    return load(audio_bundle_path)


@pytest.fixture(scope="module")
def server(bundle):
    with TestClient(make_app(bundle, limits=LIMITS), raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client


@pytest.fixture(scope="module")
def audio_path(tmp_path_factory):
    return write_audio(tmp_path_factory.mktemp("sound") / "long.wav", 4.2)


def post_file(server, path, route="/v1/predict", name="clip.wav", **fields):
    with open(path, "rb") as file:
        return server.post(route, files={"file": (name, file)}, data=fields)


def assert_same_windows(windows, expected):
    assert len(windows) == len(expected)
    for ours, theirs in zip(windows, expected, strict=True):
        theirs = theirs.to_json()
        assert {*ours} == {*theirs} - {"path"}
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        for name in ("start", "end", "label", "audio_ok", "video_ok"):
            assert ours[name] == theirs[name]


def test_a_file_is_answered_as_predict_answers_it(server, bundle, audio_path):
    body = post_file(server, audio_path).raise_for_status().json()
    assert body["seconds"] == pytest.approx(4.2, abs=0.01)
    assert_same_windows(body["windows"], bundle.predict(audio_path))
    unsure = post_file(server, audio_path, min_confidence="1").json()["windows"]
    assert {window["label"] for window in unsure} == {"unknown"}


def test_windows_come_as_events(server, bundle, audio_path):
    response = post_file(server, audio_path, "/v1/predict/stream").raise_for_status()
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in response.text.strip().split("\n\n")]
    names = [event.removeprefix("event: ") for event, _ in events]
    data = [json.loads(line.removeprefix("data: ")) for _, line in events]
    assert names == ["begin"] + ["window"] * (len(events) - 2) + ["end"]
    assert data[0] == {"seconds": 4.2, "windows": len(events) - 2}
    assert_same_windows(data[1:-1], bundle.predict(audio_path))


def test_nothing_that_was_sent_stays(server, audio_path):
    post_file(server, audio_path, name="../../../../tmp/evil.wav").raise_for_status()
    post_file(server, audio_path, "/v1/predict/stream").raise_for_status()
    assert os.listdir(server.app.state.service.upload_dir) == []
    assert not os.path.exists("/tmp/evil.wav")


def assert_problem(response, status, field, detail):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == field
    assert detail in response.json()["detail"]


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/predict/stream"])
def test_what_is_no_honest_clip_is_refused(server, audio_path, tmp_path, route):
    write_media(tmp_path / "whole.flac", audio=tone(2.0))
    half_file = (tmp_path / "whole.flac").read_bytes()[:20_000]
    for name, data, status, detail in (
        ("empty", b"", 415, "empty file"),
        ("text", b"#EXTM3U\nhttp://localhost/x\n", 415, "not a media file"),
        ("noise", np.random.default_rng(0).bytes(5000), 415, "not a media file"),
        ("half.flac", half_file, 422, "truncated"),
        (
            "cut",
            pathlib.Path(write_video(tmp_path / "film.mp4")).read_bytes()[:9000],
            415,
            "not a media file",
        ),
    ):
        (tmp_path / name).write_bytes(data)
        assert_problem(post_file(server, tmp_path / name, route), status, "file", detail)
    assert_problem(
        post_file(server, write_audio(tmp_path / "long.wav", 21.0), route),
        422,
        "file",
        "21 seconds: expected at most 20",
    )
    (tmp_path / "large").write_bytes(bytes(LIMITS.max_body_bytes))
    assert_problem(post_file(server, tmp_path / "large", route), 413, "body", "at most")
    assert_problem(server.post(route, files={"clip": b"x"}), 422, "clip", "unknown field")
    assert_problem(server.post(route, files={"min_confidence": b"x"}), 422, "file", "expected a media file")
    assert_problem(
        post_file(server, audio_path, route, min_confidence="2"),
        422,
        "min_confidence",
        "expected a number from 0 to 1",
    )
    headers = {"content-type": "multipart/form-data"}
    assert server.post(route, content=b"--x", headers=headers).status_code == 400
    assert os.listdir(server.app.state.service.upload_dir) == []


def test_a_silent_film_has_no_answer_for_a_voice_model(server, tmp_path):
    response = post_file(server, write_video(tmp_path / "film.mp4"))
    assert_problem(response, 422, "file", "no audio stream")


def test_large_frames_are_refused_before_they_are_decoded(bundle, tmp_path):
    small_limits = dataclasses.replace(LIMITS, max_frame_pixels=64 * 63, max_frame_rate=24.0)
    video_path = write_video(tmp_path / "film.mp4")
    with TestClient(make_app(bundle, limits=small_limits)) as client:
        assert_problem(post_file(client, video_path), 422, "file", "4096 pixels: expected at most 4032")
    with TestClient(
        make_app(bundle, limits=dataclasses.replace(small_limits, max_frame_pixels=4096))
    ) as client:
        assert_problem(
            post_file(client, video_path), 422, "file", "25 frames per second: expected at most 24"
        )


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
    decoders = DecoderPool(misbehave, workers=2, timeout_seconds=60.0, max_waiting=0)
    try:
        decoders.warm_up()
        assert [worker.is_ready for worker in decoders._workers] == [True, True]
    finally:
        decoders.close()


def test_a_decoder_that_is_lost_is_replaced():
    decoders = DecoderPool(misbehave, workers=1, timeout_seconds=1.0, max_waiting=0)
    try:
        assert decoders.probe("fine") == "fine"
        with pytest.raises(DecoderLostError, match="crashed"):
            decoders.probe("crash")
        assert decoders.probe("fine") == "fine"
        with pytest.raises(DecoderLostError, match="longer than 1 s"):
            decoders.probe("hang")
        assert decoders.probe("fine") == "fine"
        with decoders._slots, pytest.raises(BusyError):
            decoders.probe("fine")
    finally:
        decoders.close()
