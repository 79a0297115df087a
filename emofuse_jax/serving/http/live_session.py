"""`WS /v1/live`: the session of one caller (protocol: `live`)."""

import asyncio
import hmac
import json
import os
import tempfile
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from emofuse_jax.serving.http.live_protocol import RATE, Gathering, Part
from emofuse_jax.serving.http.media_requests import window
from emofuse_jax.serving.http.problems import Problem, busy, unusable
from emofuse_jax.serving.http.request_options import FIELDS, Asked, asked_of
from emofuse_jax.serving.http.service import Service
from emofuse_jax.serving.media.recording import write_recording

WAITING = 2
"""Windows of a session that may wait for their answer."""
CLOSED = {503: 1013}
"""Close codes (RFC 6455) by status: try again later; else a policy is violated."""


async def session(socket: WebSocket, service: Service, token: str) -> None:
    """From the first message to the last answer; an error is told as a problem document before it closes.

    A page of another site is refused: a browser would let it speak to a server on this machine.
    """
    if not _of_this_site(socket.headers):
        await socket.close()
        return
    await socket.accept()
    try:
        if service.sessions.locked():
            raise busy(f"{service.limits.sessions} sessions are open", after=10)
        async with service.sessions:
            with service.measures.session():
                await _talk(socket, service, await _begin(socket, service, token))
        await socket.close()
    except Problem as problem:
        await socket.send_json(problem.body)
        await socket.close(CLOSED.get(problem.status, 1008))
    except WebSocketDisconnect:
        pass


def _of_this_site(headers: Mapping[str, str]) -> bool:
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


async def _begin(socket: WebSocket, service: Service, token: str) -> Asked:
    try:
        given = json.loads((await _received(socket, service)).get("text") or "")
    except (ValueError, RecursionError) as error:
        raise unusable("message", "expected JSON first") from error
    if not isinstance(given, dict):
        raise unusable("message", "expected an object")
    if token and not hmac.compare_digest(str(given.get("token", "")).encode(), token.encode()):
        raise Problem(401, "Unauthorized", "a token is needed", field="token")
    for name in given:
        if name not in ("token", *FIELDS):
            raise unusable(name[:100], "no such field")
    asked = asked_of(given)
    await socket.send_json({"window": _window(service), "sample_rate": RATE})
    return asked


async def _talk(socket: WebSocket, service: Service, asked: Asked) -> None:
    parts: asyncio.Queue[Part | None] = asyncio.Queue()
    answers = asyncio.create_task(_answer(socket, service, asked, parts))
    gathers = asyncio.create_task(_gather(socket, service, parts))
    try:
        await asyncio.wait((answers, gathers), return_when=asyncio.FIRST_EXCEPTION)
        await gathers
        await answers
    finally:
        for task in (gathers, answers):
            task.cancel()


async def _gather(socket: WebSocket, service: Service, parts: asyncio.Queue) -> None:
    """Messages to windows; one that can't be answered in time is told, so that memory stays flat."""
    gathering = Gathering(_window(service), service.limits)
    while (message := await _received(socket, service)).get("text") != "end":
        if message.get("bytes") is None:
            raise unusable("message", "expected bytes, or the text `end`")
        gathering.add(message["bytes"])
        while gathering.complete():
            part = gathering.take()
            if parts.qsize() < WAITING:
                parts.put_nowait(part)
            else:
                service.measures.window("late")
                await socket.send_json(_gap(part, "the server could not keep up"))
    if gathering.rest():
        parts.put_nowait(gathering.take(whole=False))
    parts.put_nowait(None)


async def _answer(socket: WebSocket, service: Service, asked: Asked, parts: asyncio.Queue) -> None:
    while (part := await parts.get()) is not None:
        try:
            answer = await _answered(service, part, asked)
        except Problem as problem:
            answer = _gap(part, problem.body["detail"])
        service.measures.window("refused" if "error" in answer else "answered")
        await socket.send_json(answer)


async def _answered(service: Service, part: Part, asked: Asked) -> dict:
    if part.sound is None and not part.pictures:
        return _gap(part, "nothing came")
    handle, path = tempfile.mkstemp(dir=service.folder)
    try:
        seconds = part.end - part.start
        with os.fdopen(handle, "wb") as file:  # by its path a thread that is left would make it anew
            await run_in_threadpool(
                write_recording, file, part.sound, RATE, part.pictures, part.size, seconds
            )
        return await window(service, path, part.start, part.end, (None, None), asked)
    finally:
        os.unlink(path)


async def _received(socket: WebSocket, service: Service) -> dict:
    seconds = service.limits.upload_seconds
    try:
        message = await asyncio.wait_for(socket.receive(), seconds)
    except TimeoutError as error:
        raise Problem(408, "Request timeout", f"nothing came for {seconds:g} s", field="message") from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return message


def _window(service: Service) -> float:
    return service.bundle.metadata["window"]["seconds"]


def _gap(part: Part, error: str) -> dict:
    return {"start": round(part.start, 3), "end": round(part.end, 3), "error": error}
