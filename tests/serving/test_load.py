"""200 callers at once: every answer right, none lost, refusals where there is no room, memory flat."""

import asyncio
import collections
import json
import time

import numpy as np
import pytest

from emofuse_jax.serving import load
from tests.serving.conftest import SPEC
from tests.serving.server_process import serving

httpx2 = pytest.importorskip("httpx2", reason="the tests' client is not here: pip install '.[dev]'")
pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

CLIENTS = 200


@pytest.fixture(scope="module")
def questions(voice_bundle_path):
    """Bodies, and the probabilities that the bundle gives for each alone."""
    bundle, found = load(voice_bundle_path), []
    for seed, steps in enumerate((20, 60, 100, 160)):
        audio = np.random.default_rng(seed).normal(size=(steps, SPEC.f)).astype(np.float16)
        row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in bundle.inputs.items()}
        row["audio"][0, :steps], row["audio_mask"][0, :steps] = audio, True
        body = json.dumps({"inputs": {"audio": audio.astype(float).round(4).tolist()}})
        row["audio"][0, :steps] = np.asarray(json.loads(body)["inputs"]["audio"], np.float16)
        found.append((body.encode(), bundle.run(row)["probabilities"][0].tolist()))
    return found


async def caller(client, number: int, questions, until: float, seen: collections.Counter) -> None:
    rng = np.random.default_rng(number)
    while time.monotonic() < until:
        body, expected = questions[rng.integers(len(questions))]
        answer = await client.post("/v1/predict", content=body)
        seen[answer.status_code] += 1
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(rng.uniform(0.05, 0.3))  # sooner than asked: the queue shall be full
            continue
        assert answer.status_code == 200, answer.text
        assert list(answer.json()["probabilities"].values()) == pytest.approx(expected, abs=1e-5)


async def crowd(port: int, questions, seconds: float, resident) -> tuple[collections.Counter, list[int]]:
    seen, sizes, until = collections.Counter(), [], time.monotonic() + seconds
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    headers = {"content-type": "application/json"}
    address = f"http://127.0.0.1:{port}"
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, limits=limits, timeout=30.0) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CLIENTS):
            group.create_task(caller(client, number, questions, until, seen))
        while time.monotonic() < until:
            await asyncio.sleep(min(1.0, seconds / 20))
            sizes.append(resident())
    return seen, sizes


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize("seconds", [20, pytest.param(60, marks=pytest.mark.long)])
def test_two_hundred_callers(voice_bundle_path, questions, seconds):
    flags = (f"--bundle={voice_bundle_path}", "--waiting=2", "--buckets=1,2", "--decoders=1")
    with serving(*flags) as (port, process, _):
        seen, sizes = asyncio.run(crowd(port, questions, seconds, lambda: resident_kib(process.pid)))
    print(dict(seen), f"{sizes[len(sizes) // 4] >> 10} to {sizes[-1] >> 10} MiB")
    assert set(seen) == {200, 503}
    assert seen[200] > 10 * seconds
    assert max(sizes) - sizes[len(sizes) // 4] < 64 << 10  # KiB, after the first quarter
