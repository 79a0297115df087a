"""200 callers at once: every answer right, none lost, refusals where there is no room, memory flat."""

import asyncio
import collections
import json
import time

import numpy as np
import pytest

from emofuse_jax.serving import load
from tests.support.bundles import SPEC
from tests.support.server_process import run_server

httpx2 = pytest.importorskip("httpx2", reason="the tests' client is not here: pip install '.[dev]'")
pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

CLIENT_COUNT = 200


@pytest.fixture(scope="module")
def request_cases(audio_bundle_path):
    """Bodies, and the probabilities that the bundle gives for each alone."""
    bundle, request_cases = load(audio_bundle_path), []
    for seed, steps in enumerate((20, 60, 100, 160)):
        audio = np.random.default_rng(seed).normal(size=(steps, SPEC.f)).astype(np.float16)
        row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in bundle.inputs.items()}
        row["audio"][0, :steps], row["audio_mask"][0, :steps] = audio, True
        body = json.dumps({"inputs": {"audio": audio.astype(float).round(4).tolist()}})
        row["audio"][0, :steps] = np.asarray(json.loads(body)["inputs"]["audio"], np.float16)
        request_cases.append((body.encode(), bundle.run(row)["probabilities"][0].tolist()))
    return request_cases


async def run_caller(
    client, number: int, request_cases, deadline: float, status_counts: collections.Counter
) -> None:
    rng = np.random.default_rng(number)
    while time.monotonic() < deadline:
        body, expected = request_cases[rng.integers(len(request_cases))]
        response = await client.post("/v1/predict", content=body)
        status_counts[response.status_code] += 1
        if response.status_code == 503:
            assert int(response.headers["retry-after"]) >= 1
            await asyncio.sleep(rng.uniform(0.05, 0.3))  # sooner than asked: the queue shall be full
            continue
        assert response.status_code == 200, response.text
        assert list(response.json()["probabilities"].values()) == pytest.approx(expected, abs=1e-5)


async def run_callers(
    port: int, request_cases, seconds: float, read_memory_kib
) -> tuple[collections.Counter, list[int]]:
    status_counts, memory_kib, deadline = collections.Counter(), [], time.monotonic() + seconds
    limits = httpx2.Limits(max_connections=CLIENT_COUNT, max_keepalive_connections=CLIENT_COUNT)
    headers = {"content-type": "application/json"}
    address = f"http://127.0.0.1:{port}"
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, limits=limits, timeout=30.0) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CLIENT_COUNT):
            group.create_task(run_caller(client, number, request_cases, deadline, status_counts))
        while time.monotonic() < deadline:
            await asyncio.sleep(min(1.0, seconds / 20))
            memory_kib.append(read_memory_kib())
    return status_counts, memory_kib


def read_resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.long)])
def test_two_hundred_callers(audio_bundle_path, request_cases, seconds):
    flags = (f"--bundle={audio_bundle_path}", "--waiting=2", "--buckets=1,2", "--decoders=1")
    with run_server(*flags) as (port, process, _):
        status_counts, memory_kib = asyncio.run(
            run_callers(port, request_cases, seconds, lambda: read_resident_kib(process.pid))
        )
    print(dict(status_counts), f"{memory_kib[len(memory_kib) // 4] >> 10} to {memory_kib[-1] >> 10} MiB")
    assert set(status_counts) == {200, 503}
    assert status_counts[200] > 10 * seconds
    assert max(memory_kib) - memory_kib[len(memory_kib) // 4] < 64 << 10  # KiB, after the first quarter
