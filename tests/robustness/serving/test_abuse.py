"""Callers who mean harm, through real sockets: the right status, nothing of our inside, ready afterwards."""

import contextlib
import http.client
import io
import json
import pathlib
import socket
import time

import numpy as np
import pytest
from PIL import Image

from data_prep.media.write_clip import write_clip
from tests.support.server_process import get_json, run_server
from tests.unit.serving.test_predict import write_audio

pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

BOUNDARY = "cut"


@pytest.fixture(scope="module")
def server(audio_bundle_path):
    flags = (f"--bundle={audio_bundle_path}", "--decoders=1", "--megabytes=8", "--upload_seconds=3")
    with run_server(*flags) as (port, process, read_log):
        yield port
        assert process.poll() is None
        assert "Traceback" not in read_log()


@pytest.fixture(autouse=True)
def _ready_afterwards(server, tmp_path):
    yield
    assert get_json(server, "/readyz")[0] == 200
    audio = pathlib.Path(write_audio(tmp_path / "good.wav", 1.2)).read_bytes()
    assert post(server, make_form(audio))[0] == 200


def make_form(data: bytes, name: str = "clip") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(port: int, body: bytes, route="/v1/predict", kind=f"multipart/form-data; boundary={BOUNDARY}"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", route, body, {"content-type": kind})
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_a_tiny_file_with_a_huge_frame(server, tmp_path):
    """Refused unread, also where the container's header lies; pictures that no one reads are not decoded."""
    images = []
    for size in ((64, 48), (12_000, 12_000)):
        data = io.BytesIO()
        Image.new("L", size).save(data, "JPEG")
        images.append(data.getvalue())
    small, huge = images
    audio = (3000 * np.sin(np.arange(16_000) / 20)).astype(np.int16)
    path = tmp_path / "bomb"
    for size, first, status in (((12_000, 12_000), huge, 422), ((64, 48), huge, 422), ((64, 48), small, 200)):
        write_clip(str(path), audio, 16_000, [(0.0, first), (0.5, huge)], size, 1.0)
        response_status, text = post(server, make_form(path.read_bytes()))
        assert response_status == status, text
        assert ("pixels" in text) == (status == 422)


def test_a_path_in_the_file_name_leads_nowhere(server, tmp_path):
    audio = pathlib.Path(write_audio(tmp_path / "a.wav", 1.2)).read_bytes()
    for name in ("../../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "%2e%2e%2f", "é" * 500):
        status, text = post(server, make_form(audio, name))
        assert status in (200, 400), text
        assert "passwd" not in text


def test_an_upload_that_does_not_come(server):
    """Bytes that trickle meet the time for a body; a socket that is dropped in the middle costs nothing."""
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server)) as dropped:
            dropped.sendall(head.encode() + b"{")
    with socket.create_connection(("127.0.0.1", server), timeout=30) as slow:
        slow.sendall(head.encode())
        start_time, response = time.monotonic(), b""
        slow.settimeout(1.0)
        while not response and time.monotonic() - start_time < 30:
            with contextlib.suppress(TimeoutError):
                slow.sendall(b" ")
                response = slow.recv(4096)
    assert b" 408 " in response.split(b"\r\n")[0]


def test_more_than_is_taken(server):
    status, text = post(server, make_form(bytes(9 << 20)))
    assert (status, json.loads(text)["field"]) == (413, "body")
    with socket.create_connection(("127.0.0.1", server), timeout=30) as connection:  # without a length
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(9):
                connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "kind", ["application/json", f"multipart/form-data; boundary={BOUNDARY}", "text/plain"]
)
def test_noise(server, kind):
    rng = np.random.default_rng(0)
    for size in (0, 1, 100, 10_000):
        for route in ("/v1/predict", "/v1/predict/stream"):
            status, text = post(server, rng.bytes(size), route, kind)
            assert status in (400, 415, 422), text
            assert "Traceback" not in text
