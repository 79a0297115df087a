"""Bodies that are too large or too slow, on the level of ASGI messages."""

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the server's libraries are not here: pip install '.[serve]'")

from emofuse_jax.serving.http.body_limit import BodyLimitMiddleware
from emofuse_jax.serving.http.problems import Problem


async def read_body(messages, *, max_bytes=10, timeout_seconds=0.05):
    """What an application reads of the messages; a number among them is a pause in seconds."""
    received, remaining = [], list(messages)

    async def receive():
        while isinstance(remaining[0], float):
            await asyncio.sleep(remaining.pop(0))
        return remaining.pop(0)

    async def app(scope, limited_receive, send):
        for _ in range(sum(isinstance(message, dict) for message in messages)):
            received.append(await limited_receive())

    await BodyLimitMiddleware(app, max_bytes, timeout_seconds)({"type": "http", "headers": []}, receive, None)
    return received


def body_message(size, more=True):
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def test_a_whole_body_passes_and_its_caller_may_then_wait():
    messages = [body_message(4), body_message(6, more=False), 0.1, {"type": "http.disconnect"}]
    assert asyncio.run(read_body(messages)) == [
        body_message(4),
        body_message(6, more=False),
        {"type": "http.disconnect"},
    ]


@pytest.mark.parametrize(
    ("messages", "status", "detail"),
    [
        ([body_message(4), body_message(7)], 413, "at most 10 bytes"),
        ([body_message(1), 0.2, body_message(1)], 408, "the body was not complete within 0.05 s"),
        ([body_message(1), 0.03, body_message(1), 0.03, body_message(1, more=False)], 408, "not complete"),
    ],
)
def test_one_that_is_too_large_or_too_slow_is_cut_off(messages, status, detail):
    with pytest.raises(Problem, match=detail) as caught:
        asyncio.run(read_body(messages))
    assert (caught.value.status, caught.value.body["field"]) == (status, "body")
