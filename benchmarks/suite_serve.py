"""Suite `serve`: clips per second and median response time of 16 clients of the JSON route.

The server of emofuse is measured with each engine; the peers are the same server without batching and a
typical PyTorch server of the same network (benchmarks/peers). Each server is a process; they are measured in
turn while the others are idle. The media route has no peer: the time of a complete request and of its stages
is reported.
"""

import base64
import concurrent.futures
import contextlib
import functools
import http.client
import importlib.util
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

import emofuse_jax as ef
from benchmarks.suite_speed import SPEC
from benchmarks.timing import make_row, measure_medians
from data_prep.settings import AudioSettings, FaceSettings, PrepSettings
from data_prep.synth.clip import render_clip
from emofuse_jax.models.build import build_model
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle.export import write_bundle
from emofuse_jax.serving.media.decoder_pool import DecoderPool, run_decoder_job
from emofuse_jax.serving.media.prepare_window import prep_requirements
from emofuse_jax.serving.predict import to_batch

CLIENT_COUNT = 16
"""Number of clients that send requests at the same time."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TORCH_PEER = "PyTorch, FastAPI"
READY_TIMEOUT_SECONDS = 300.0
"""Seconds in which a server must become ready."""


def measure_serving(
    *,
    with_torch: bool,
    repeats: int,
    seconds: float = 5.0,
    engines: Sequence[str] = (),
    dtype: str = "float32",
    small: bool = False,
) -> Iterator[dict]:
    """Yields rows for the rate and the median response time of each engine with each peer, and for stages.

    Response times are reported as 1 / seconds, so that larger is better. onnxruntime is measured if jax2onnx
    is installed (`make onnx`).

    Args:
      with_torch: True: measure the PyTorch server too.
      repeats: Number of measurements of each server; the median is reported.
      seconds: Duration of a measurement.
      engines: Engines to measure; default: all that are installed.
      dtype: dtype of the activations, "float32" or "bfloat16".
      small: True: the small variant of AM-FBP; the peer stays as large as it is.

    Raises:
      ValueError: A server does not become ready or a request fails.
    """
    engines = engines or ["jax", *(["onnx"] if importlib.util.find_spec("jax2onnx") else [])]
    system = f"{'demo_' if small else ''}am_fbp{'' if dtype == 'float32' else f' in {dtype}'}"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bundle_path = os.path.join(folder, "bundle")
        write_random_bundle(bundle_path, onnx="onnx" in engines, dtype=dtype, small=small)
        base_command = [
            sys.executable,
            "-m",
            "emofuse_jax.cli",
            "serve",
            f"--bundle={bundle_path}",
            "--decoders=1",
        ]
        commands = {engine: [*base_command, f"--engine={engine}"] for engine in engines}
        single_clip_names = {engine: f"{engine}, one at a time" for engine in engines}
        commands |= {single_clip_names[engine]: [*commands[engine], "--buckets=1"] for engine in engines}
        if with_torch:
            commands[TORCH_PEER] = [
                sys.executable,
                "-m",
                "benchmarks.peers.serve_network",
                f"--dtype={dtype}",
            ]
        ports = {name: stack.enter_context(run_server(command)) for name, command in commands.items()}
        wait_seconds: dict[str, list[list[float]]] = {name: [] for name in ports}
        measurements = {
            name: functools.partial(measure_load, port, make_request_body(), seconds, wait_seconds[name])
            for name, port in ports.items()
        }
        rates = measure_medians(measurements, repeats)
        stage_rows = [
            measure_media_stages(bundle_path, engine, ports[engine], repeats, system) for engine in engines
        ]
        stages = list(itertools.chain(*stage_rows))
        joined_counts = {engine: read_max_joined_clips(ports[engine]) for engine in engines}
    inverse_median_waits = {
        name: 1 / statistics.median(itertools.chain(*rounds[1:])) for name, rounds in wait_seconds.items()
    }
    for engine in engines:
        case = f"{system}, {engine}, JSON, {CLIENT_COUNT} callers, at most {joined_counts[engine]} joined"
        for peer in (single_clip_names[engine], *([TORCH_PEER] if with_torch else [])):
            row_options = {"peer_name": peer, "repeats": repeats}
            yield make_row(case, "clips/s", rates[engine], rates[peer], **row_options)
            yield make_row(
                f"{case}, 1 / median wait",
                "1/s",
                inverse_median_waits[engine],
                inverse_median_waits[peer],
                **row_options,
            )
    yield from stages


def measure_media_stages(
    bundle_path: str, engine: str, port: int, repeats: int, system: str
) -> Iterator[dict]:
    """Yields rows for one clip of the demo corpus: the complete request, and each stage measured separately.

    The stages are probing, decoding (with faces and spectrogram) and the model; the rows have no peer.
    """
    bundle, path = load(bundle_path, engine=engine), f"{bundle_path}.mp4"
    with open(path, "wb") as file:
        file.write(render_clip(speaker=1, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=3))
    decoders = DecoderPool(
        functools.partial(run_decoder_job, prep_requirements(bundle)),
        workers=1,
        timeout_seconds=READY_TIMEOUT_SECONDS,
        max_waiting=0,
    )
    try:
        model_inputs = to_batch(bundle, [decoders.prepare_window(path, None, None)], 1)
        send_clip = functools.partial(send_media, port, path)
        tasks = {
            "whole answer": send_clip,
            "looking": lambda: decoders.probe(path),
            "decoding, faces, spectrogram": lambda: decoders.prepare_window(path, None, None),
            "model": lambda: bundle.run(model_inputs),
        }
        median_seconds = measure_medians(
            {name: functools.partial(time_call, task) for name, task in tasks.items()}, repeats
        )
    finally:
        decoders.close()
    for name, seconds in median_seconds.items():
        case = f"{system}, {engine}, media route, a film of 3 s, {name}"
        yield make_row(case, "1/s", 1 / seconds, None, peer_name="a peer", repeats=repeats)


def time_call(task: Callable) -> float:
    """Returns the seconds that one call of `task` takes."""
    start_time = time.perf_counter()
    task()
    return time.perf_counter() - start_time


def send_media(port: int, path: str) -> None:
    """Sends a media file to the media route and reads the response.

    Raises:
      ValueError: The status of the response is not 200.
      OSError: The file cannot be read or the server does not respond.
    """
    with open(path, "rb") as file:
        media_bytes = file.read()
    part_header = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        headers = {"content-type": "multipart/form-data; boundary=cut"}
        connection.request("POST", "/v1/predict", part_header + media_bytes + b"\r\n--cut--\r\n", headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(
                f"/v1/predict: status {response.status}, expected 200: {response.read().decode()}"
            )
        response.read()


def write_random_bundle(path: str, *, onnx: bool, dtype: str = "float32", small: bool = False) -> None:
    """Writes a bundle of AM-FBP with random weights, at the sizes of the papers or `small`.

    `onnx`: with model.onnx; `dtype`: that of the activations.
    """
    config = ef.settings.small("am_fbp") if small else ef.settings.load_shipped("am_fbp")
    config.model.dtype = dtype
    model = build_model(config.model, SPEC)
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    settings = PrepSettings(audio=AudioSettings(bins=SPEC.f), face=FaceSettings(frames=SPEC.s, size=SPEC.h))
    metadata = {
        "config": json.loads(json.dumps({"name": "am_fbp", "model": config.model.to_dict()})),
        "classes": [str(i) for i in range(SPEC.classes)],
        "settings": settings.to_dict(),
        "spec": vars(SPEC),
        "statistics": {"mean": [0.0] * SPEC.f, "std": [1.0] * SPEC.f},
        "training_speakers": [],
        "corpus": "none",
        "protocol": "",
        "fold": 0,
        "versions": {},
        "temperature": 1.0,
        "checkpoint": "best",
        "encoders": {},
        "quantized": "",
        "onnx": onnx,
    }
    write_bundle(path, model, params, model_state, metadata, {}, {})


def make_request_body() -> bytes:
    """Returns the JSON body of a request with one random clip."""
    rng = np.random.default_rng(0)
    arrays = {
        "audio": rng.normal(-4, 2, (SPEC.t, SPEC.f)).astype(np.float16),
        "faces": rng.integers(0, 256, (SPEC.s, SPEC.h, SPEC.w, 3), np.uint8),
    }
    packed = {
        name: {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}
        for name, array in arrays.items()
    }
    return json.dumps({"inputs": packed}).encode()


@contextlib.contextmanager
def run_server(command: list[str]) -> Iterator[int]:
    """Starts a server and yields its port when it is ready; kills the server at the end of the `with` block.

    Raises:
      ValueError: The server ends or is not ready after READY_TIMEOUT_SECONDS.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*command, f"--port={port}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ValueError(f"{' '.join(command)}: the server did not become ready")
            time.sleep(0.2)
        yield port
    finally:
        process.kill()
        process.wait()


def is_ready(port: int) -> bool:
    """Returns True if the server's route /readyz responds with status 200."""
    try:
        return (
            send_request(http.client.HTTPConnection("127.0.0.1", port, timeout=10), "GET", "/readyz") == 200
        )
    except OSError:
        return False


def read_max_joined_clips(port: int) -> int:
    """Returns the largest number of clips that the server has put into one batch, from its /metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    metrics_text = connection.getresponse().read().decode()
    return int(float(metrics_text.split("\nemofuse_clips_joined_most ")[1].split()[0]))


def send_request(
    connection: http.client.HTTPConnection, method: str, route: str, data: bytes | None = None
) -> int:
    """Sends a request, reads the response and returns its status code."""
    connection.request(method, route, data, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def measure_load(port: int, data: bytes, seconds: float, wait_seconds: list[list[float]]) -> float:
    """Returns the responses per second to CLIENT_COUNT clients, each with one open request at a time.

    Appends to `wait_seconds` a list with the response time of each request.

    Raises:
      ValueError: The status of a response is not 200.
    """
    deadline = time.monotonic() + seconds
    wait_seconds.append([])

    def run_client(_: int) -> int:
        connection, count = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
        with contextlib.closing(connection):
            while (start_time := time.monotonic()) < deadline:
                if (status := send_request(connection, "POST", "/v1/predict", data)) != 200:
                    raise ValueError(f"/v1/predict: status {status} during the measurement, expected 200")
                wait_seconds[-1].append(time.monotonic() - start_time)
                count += 1
        return count

    start_time = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CLIENT_COUNT) as threads:
        count = sum(threads.map(run_client, range(CLIENT_COUNT)))
    return count / (time.monotonic() - start_time)
