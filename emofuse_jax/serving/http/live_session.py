"""`WS /v1/live`: the session of one caller (protocol: serving/http/live_protocol.py)."""

import asyncio
import hmac
import json
import os
import tempfile
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from emofuse_jax.serving.http.live_protocol import SAMPLE_RATE, LiveWindow, WindowAssembler
from emofuse_jax.serving.http.media_requests import predict_window
from emofuse_jax.serving.http.problems import Problem, invalid_field, server_busy
from emofuse_jax.serving.http.request_options import OPTION_FIELDS, RequestOptions, parse_options
from emofuse_jax.serving.http.service import Service
from emofuse_jax.serving.media.recording import write_recording

MAX_WAITING_WINDOWS = 2
"""Windows of a session that may wait for their answer."""
CLOSE_CODES = {503: 1013}
"""Close codes (RFC 6455) by status: try again later; else a policy is violated."""


async def run_session(socket: WebSocket, service: Service, token: str) -> None:
    """From the first message to the last answer; an error is told as a problem document before it closes.

    A page of another site is refused: a browser would let it speak to a server on this machine.
    """
    if not _is_same_origin(socket.headers):
        await socket.close()
        return
    await socket.accept()
    try:
        if service.session_slots.locked():
            raise server_busy(f"{service.limits.max_sessions} sessions are open", retry_after_seconds=10)
        async with service.session_slots:
            with service.metrics.track_session():
                await _exchange_messages(socket, service, await _receive_options(socket, service, token))
        await socket.close()
    except Problem as problem:
        await socket.send_json(problem.body)
        await socket.close(CLOSE_CODES.get(problem.status, 1008))
    except WebSocketDisconnect:
        pass


def _is_same_origin(headers: Mapping[str, str]) -> bool:
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


async def _receive_options(socket: WebSocket, service: Service, token: str) -> RequestOptions:
    try:
        fields = json.loads((await _receive(socket, service)).get("text") or "")
    except (ValueError, RecursionError) as error:
        raise invalid_field("message", "expected JSON first") from error
    if not isinstance(fields, dict):
        raise invalid_field("message", "expected an object")
    if token and not hmac.compare_digest(str(fields.get("token", "")).encode(), token.encode()):
        raise Problem(401, "Unauthorized", "a token is needed", field="token")
    for name in fields:
        if name not in ("token", *OPTION_FIELDS):
            raise invalid_field(name[:100], "no such field")
    options = parse_options(fields)
    await socket.send_json({"window": _window_seconds(service), "sample_rate": SAMPLE_RATE})
    return options


async def _exchange_messages(socket: WebSocket, service: Service, options: RequestOptions) -> None:
    window_queue: asyncio.Queue[LiveWindow | None] = asyncio.Queue()
    predict_task = asyncio.create_task(_predict_windows(socket, service, options, window_queue))
    collect_task = asyncio.create_task(_collect_windows(socket, service, window_queue))
    try:
        await asyncio.wait((predict_task, collect_task), return_when=asyncio.FIRST_EXCEPTION)
        await collect_task
        await predict_task
    finally:
        for task in (collect_task, predict_task):
            task.cancel()


async def _collect_windows(socket: WebSocket, service: Service, window_queue: asyncio.Queue) -> None:
    """Messages to windows; one that can't be answered in time is told, so that memory stays flat."""
    assembler = WindowAssembler(_window_seconds(service), service.limits)
    while (message := await _receive(socket, service)).get("text") != "end":
        if message.get("bytes") is None:
            raise invalid_field("message", "expected bytes, or the text `end`")
        assembler.add(message["bytes"])
        while assembler.is_window_ready():
            live_window = assembler.take_window()
            if window_queue.qsize() < MAX_WAITING_WINDOWS:
                window_queue.put_nowait(live_window)
            else:
                service.metrics.count_window("late")
                await socket.send_json(_failed_window(live_window, "the server could not keep up"))
    if assembler.has_remainder():
        window_queue.put_nowait(assembler.take_window(full_window=False))
    window_queue.put_nowait(None)


async def _predict_windows(
    socket: WebSocket, service: Service, options: RequestOptions, window_queue: asyncio.Queue
) -> None:
    while (live_window := await window_queue.get()) is not None:
        try:
            prediction = await _predict_live_window(service, live_window, options)
        except Problem as problem:
            prediction = _failed_window(live_window, problem.body["detail"])
        service.metrics.count_window("refused" if "error" in prediction else "answered")
        await socket.send_json(prediction)


async def _predict_live_window(service: Service, live_window: LiveWindow, options: RequestOptions) -> dict:
    if live_window.audio is None and not live_window.frames:
        return _failed_window(live_window, "nothing came")
    descriptor, path = tempfile.mkstemp(dir=service.upload_dir)
    try:
        duration_seconds = live_window.end - live_window.start
        with os.fdopen(descriptor, "wb") as file:  # by its path a thread that is left would make it anew
            await run_in_threadpool(
                write_recording,
                file,
                live_window.audio,
                SAMPLE_RATE,
                live_window.frames,
                live_window.frame_size,
                duration_seconds,
            )
        return await predict_window(service, path, live_window.start, live_window.end, (None, None), options)
    finally:
        os.unlink(path)


async def _receive(socket: WebSocket, service: Service) -> dict:
    timeout_seconds = service.limits.upload_timeout_seconds
    try:
        message = await asyncio.wait_for(socket.receive(), timeout_seconds)
    except TimeoutError as error:
        raise Problem(
            408, "Request timeout", f"nothing came for {timeout_seconds:g} s", field="message"
        ) from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return message


def _window_seconds(service: Service) -> float:
    return service.bundle.metadata["window"]["seconds"]


def _failed_window(live_window: LiveWindow, error: str) -> dict:
    return {"start": round(live_window.start, 3), "end": round(live_window.end, 3), "error": error}
