"""Live sessions: windows are put together from pieces, and answered as files are."""

import asyncio
import io
import itertools
import json
import math
import os
import struct
import threading
import time
from collections import deque
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.media.write_clip import write_clip
from emofuse_jax.serving import load
from tests.unit.serving.test_predict import write_audio

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from emofuse_jax.serving.http import live_session
from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.live_protocol import (
    AUDIO_KIND,
    FRAME_KIND,
    SAMPLE_RATE,
    LiveWindow,
    WindowAssembler,
)
from emofuse_jax.serving.http.problems import Problem
from emofuse_jax.serving.http.request_options import RequestOptions
from emofuse_jax.serving.http.service import Limits

WINDOW_SECONDS = 1.6


def make_jpeg(level: int = 0, size=(64, 48)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(data, "JPEG")
    return data.getvalue()


def encode_chunk(kind: int, second: float, data: bytes) -> bytes:
    return struct.pack("<Bd", kind, second) + data


def read_samples(path) -> np.ndarray:
    with av.open(path) as reader:
        return np.concatenate([frame.to_ndarray()[0] for frame in reader.decode(audio=0)])


def make_audio_messages(values: np.ndarray, step: int = 1600) -> list[bytes]:
    return [
        encode_chunk(AUDIO_KIND, i / SAMPLE_RATE, values[i : i + step].astype("<i2").tobytes())
        for i in range(0, len(values), step)
    ]


def test_sound_is_put_where_it_belongs():
    rng = np.random.default_rng(0)
    values = rng.integers(-999, 999, 3 * SAMPLE_RATE).astype(np.int16)
    messages = make_audio_messages(values)
    del messages[3]  # lost on the way
    messages[5], messages[6] = messages[6], messages[5]
    assembler, windows = WindowAssembler(WINDOW_SECONDS, Limits()), []
    for message in messages:
        assembler.add(message)
        while assembler.is_window_ready():
            windows.append(assembler.take_window())
    assert assembler.has_remainder()
    windows.append(assembler.take_window(full_window=False))
    assert [(window.start, window.end) for window in windows] == [
        (0.0, WINDOW_SECONDS),
        (WINDOW_SECONDS, pytest.approx(3.0)),
    ]
    values[4800:6400] = 0
    np.testing.assert_array_equal(np.concatenate([window.audio for window in windows]), values)
    assert not assembler.has_remainder()


def test_a_window_waits_for_sound_and_pictures_but_not_for_long():
    assembler = WindowAssembler(1.0, Limits())
    assert not assembler.is_window_ready()
    second = np.zeros(SAMPLE_RATE // 2, np.int16).tobytes()
    assembler.add(encode_chunk(FRAME_KIND, 0.1, make_jpeg(1)))
    assembler.add(encode_chunk(AUDIO_KIND, 0.0, second))
    assembler.add(encode_chunk(AUDIO_KIND, 0.5, second))
    assert not assembler.is_window_ready()  # a picture may come yet
    assembler.add(encode_chunk(FRAME_KIND, 1.05, make_jpeg(2)))
    assert assembler.is_window_ready()
    window = assembler.take_window()
    assert [second for second, _ in window.frames] == [0.1]
    assert window.frame_size == (64, 48)
    assembler.add(encode_chunk(AUDIO_KIND, 1.0, second))
    assembler.add(encode_chunk(AUDIO_KIND, 1.5, second))
    assert not assembler.is_window_ready()
    assembler.add(encode_chunk(AUDIO_KIND, 2.0, second))  # half a second later the pictures are given up
    assert assembler.is_window_ready()
    assert [second for second, _ in assembler.take_window().frames] == [pytest.approx(0.05)]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "expected 1 byte for the kind"),
        (encode_chunk(7, 0.0, b"12"), "7: expected 1 for audio"),
        (encode_chunk(AUDIO_KIND, 0.0, b"123"), "16-bit"),
        (encode_chunk(AUDIO_KIND, 0.0, bytes(2 * SAMPLE_RATE * 2)), "at most 1.6 s"),
        (encode_chunk(AUDIO_KIND, math.nan, b"12"), "start time nan: expected -1.6 to 4.8"),
        (encode_chunk(AUDIO_KIND, 99.0, b"12"), "99: expected"),
        (encode_chunk(FRAME_KIND, 0.0, b"no picture"), "expected a JPEG"),
        (encode_chunk(FRAME_KIND, 0.0, make_jpeg(size=(200, 200))), "40000 pixels: expected at most 10000"),
    ],
)
def test_a_message_that_is_none_is_refused(message, words):
    with pytest.raises(Problem, match=words):
        WindowAssembler(WINDOW_SECONDS, Limits(max_frame_pixels=10_000)).add(message)


def test_what_waits_is_bounded():
    assembler = WindowAssembler(1.0, Limits())
    for message, words in (
        (encode_chunk(FRAME_KIND, 0.5, make_jpeg()), "per second"),
        (encode_chunk(AUDIO_KIND, 0.1, bytes(SAMPLE_RATE)), "too much audio"),
    ):
        with pytest.raises(Problem, match=words):
            deque(map(assembler.add, itertools.repeat(message, 100_000)), maxlen=0)


def test_a_clip_is_what_was_sent(tmp_path):
    path, audio = str(tmp_path / "clip"), np.arange(-8000, 8000, dtype=np.int16)
    write_clip(path, audio, SAMPLE_RATE, [(0.0, make_jpeg(40)), (0.4, make_jpeg(200))], (64, 48), 1.0)
    np.testing.assert_array_equal(read_samples(path), audio)
    with av.open(path) as reader:
        frames = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in reader.decode(video=0)]
    assert [time for time, _ in frames] == [0.0, 0.4]
    assert [level for _, level in frames] == [pytest.approx(40, abs=2), pytest.approx(200, abs=2)]


@pytest.fixture(scope="module")
def bundle(audio_bundle_path):
    return load(audio_bundle_path)


@pytest.fixture(scope="module")
def app(bundle):
    return make_app(
        bundle, token="secret", limits=Limits(batch_sizes=(1, 4), max_sessions=1, upload_timeout_seconds=5.0)
    )


@pytest.fixture(scope="module")
def server(app):
    with TestClient(app) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client


def begin_session(socket, **options) -> None:
    socket.send_text(json.dumps({"token": "secret"} | options))
    assert socket.receive_json() == {"window": WINDOW_SECONDS, "sample_rate": SAMPLE_RATE}


def test_a_live_voice_is_answered_as_its_file(server, bundle, tmp_path):
    path = write_audio(tmp_path / "voice.wav", 4.0)
    expected = bundle.predict(path)  # windows from 0, 1.6 and, the last moved back, 2.4 seconds on
    with server.websocket_connect("/v1/live") as socket:
        begin_session(socket, details=True)
        for message in make_audio_messages(read_samples(path)):
            socket.send_bytes(message)
        socket.send_text("end")
        windows = [socket.receive_json() for _ in range(3)]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1000
    assert [(window["start"], window["end"]) for window in windows] == [(0.0, 1.6), (1.6, 3.2), (3.2, 4.0)]
    for ours, theirs in zip(windows[:2], expected[:2], strict=True):
        # the file's own windows have sound beyond their ends, which the spectrogram's last frames see
        assert ours["probabilities"] == pytest.approx(theirs.probabilities, abs=0.02)
        assert ours["details"]["sound"]["seconds"] == pytest.approx(1.6)
        assert ours["details"]["faces"] is None


def test_pictures_alone_give_a_voice_model_nothing_to_go_by(server):
    with server.websocket_connect("/v1/live") as socket:
        begin_session(socket)
        for i in range(10):
            socket.send_bytes(encode_chunk(FRAME_KIND, i / 5, make_jpeg()))
        assert "no audio stream" in socket.receive_json()["error"]
        socket.send_bytes(encode_chunk(AUDIO_KIND, 3.0, bytes(16_000)))
        socket.send_text("end")
        assert "silent" in socket.receive_json()["error"]


@pytest.mark.parametrize(
    ("first", "status", "field"),
    [
        ({"token": "wrong"}, 401, "token"),
        ({}, 401, "token"),
        ({"token": "secret", "person": 0}, 422, "person"),
        ({"token": "secret", "colour": 0}, 422, "colour"),
        ([], 422, "message"),
        ("{", 422, "message"),
    ],
)
def test_what_is_no_beginning_is_refused(server, first, status, field):
    with server.websocket_connect("/v1/live") as socket:
        socket.send_text(first if first == "{" else json.dumps(first))
        problem = socket.receive_json()
        assert (problem["status"], problem["field"]) == (status, field)
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_a_bad_message_ends_its_session_alone(server):
    with server.websocket_connect("/v1/live") as socket:
        begin_session(socket)
        with server.websocket_connect("/v1/live") as second:
            assert second.receive_json()["status"] == 503
            with pytest.raises(WebSocketDisconnect) as closed:
                second.receive_json()
        assert closed.value.code == 1013
        socket.send_bytes(b"\x09")
        assert socket.receive_json()["field"] == "message"
    with server.websocket_connect("/v1/live") as socket:  # a dropped one makes room too
        begin_session(socket)
    with server.websocket_connect("/v1/live") as socket:
        begin_session(socket)


def test_a_page_of_another_site_is_refused(server):
    with (
        pytest.raises(WebSocketDisconnect),
        server.websocket_connect("/v1/live", headers={"origin": "http://evil.example"}),
    ):
        pass
    with server.websocket_connect("/v1/live", headers={"origin": "http://testserver"}) as socket:
        begin_session(socket)


def test_sessions_and_windows_are_counted(server):
    def counts() -> dict[str, float]:
        lines = server.get("/metrics", headers={"authorization": "Bearer secret"}).text.splitlines()
        return {name: float(n) for name, n in (x.split() for x in lines if x.startswith("emofuse_live"))}

    refused_windows = 'emofuse_live_windows_total{outcome="refused"}'
    before = counts().get(refused_windows, 0.0)
    with server.websocket_connect("/v1/live") as socket:
        begin_session(socket)
        assert counts()["emofuse_live_sessions"] == 1
        socket.send_bytes(encode_chunk(AUDIO_KIND, 0.0, bytes(32_000)))
        socket.send_text("end")
        assert "silent" in socket.receive_json()["error"]
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()
    assert counts()[refused_windows] == before + 1
    assert counts()["emofuse_live_sessions"] == 0


def test_nothing_is_kept_of_a_caller_who_leaves(tmp_path, monkeypatch):
    """A thread can't be cancelled: what it still writes has no name any more."""
    begun, left, ended = threading.Event(), threading.Event(), threading.Event()

    def write_late(*arguments):
        begun.set()
        left.wait(20)
        try:
            write_clip(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr("data_prep.media.write_clip.write_clip", write_late)

    async def leave():
        window = LiveWindow(0.0, 1.0, np.zeros(SAMPLE_RATE, np.int16), [], (0, 0))
        task = asyncio.create_task(
            live_session._predict_live_window(
                SimpleNamespace(upload_dir=str(tmp_path)), window, RequestOptions()
            )
        )
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.wait((task,))
        left.set()
        await asyncio.to_thread(ended.wait, 20)

    asyncio.run(leave())
    assert ended.is_set()
    assert os.listdir(tmp_path) == []
