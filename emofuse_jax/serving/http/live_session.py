"""Runs one live session on the WebSocket `/v1/live` (protocol: serving/http/live_protocol.py)."""

import asyncio
import hmac
import json
import os
import tempfile
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from emofuse_jax.serving.http.live_protocol import SAMPLE_RATE, LiveWindow, WindowAssembler
from emofuse_jax.serving.http.media_requests import WindowResponse, predict_window
from emofuse_jax.serving.http.problems import Problem, invalid_field, server_busy
from emofuse_jax.serving.http.request_options import OPTION_FIELDS, RequestOptions, parse_options
from emofuse_jax.serving.http.service import Service
from emofuse_jax.serving.media.recording import write_recording
from emofuse_jax.serving.windows import Window

MAX_WAITING_WINDOWS = 2
"""Maximum number of windows of a session that wait for their prediction."""
WindowQueue = asyncio.Queue[LiveWindow | None]
"""Windows that wait for their prediction; None marks the end of the session."""
CLOSE_CODES = {503: 1013}
"""WebSocket close codes by HTTP status: 1013 means try again later; others get 1008, policy violation."""


async def run_session(socket: WebSocket, service: Service, token: str) -> None:
    """Runs a session from the first message to the last prediction, and closes the socket.

    The caller sends its options as JSON, then binary messages with audio and frames, then the text `end`. The
    server sends the length of a window, and one prediction or error for each window, as JSON. A Problem
    (status 401, 408 or 422 for a wrong token, a timeout or an invalid message, 503 if
    `service.limits.max_sessions` sessions are open) is sent as a problem document before the socket is
    closed, so it is not raised. If the caller disconnects, the function returns. Connections from pages of
    another site are closed at once, because otherwise any site could use a server on the visitor's machine.

    Args:
      socket: the WebSocket, not yet accepted.
      service: the running service.
      token: token that the first message must contain; "" disables the check.

    Raises:
      ValueError: the bundle cannot be run on this machine, or its preparation settings do not give the arrays
        that the model reads.
      OSError: a window cannot be stored as a file for decoding (other errors of writing are av.FFmpegError),
        or a crashed decoder process cannot be replaced.
    """
    if not _is_same_origin(socket.headers):
        await socket.close()
        return
    await socket.accept()
    try:
        if service.session_slots.locked():
            raise server_busy(
                f"all {service.limits.max_sessions} live sessions are in use; try again later",
                retry_after_seconds=10,
            )
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
    """Returns True if the Origin header is absent or names this server (the Host header); otherwise False.

    `headers` have names in lower case. Host and port are compared, but not `http` or `https`.
    """
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == headers.get("host")
    except ValueError:  # not a URL, such as http://[
        return False


async def _receive_options(socket: WebSocket, service: Service, token: str) -> RequestOptions:
    """Receives the first message, replies with the length of a window, and returns the options.

    The message is a JSON object with the fields `token`, `min_confidence`, `person` and `details`, all
    optional. RequestOptions has the last three: `min_confidence` (0 to 1, default 0; below it, the label is
    `unknown`), `person` (1 to 20; 1, the default, is the main person) and `details` (True adds faces,
    spectrogram and attention; default False). The reply is {"window": seconds, "sample_rate": 16000}.

    Raises:
      Problem: status 401 if the token is missing or wrong (any is right if `token` is ""), 408 if no message
        arrives within `service.limits.upload_timeout_seconds`, 422 if the message is not a JSON object or has
        an unknown or invalid field.
      WebSocketDisconnect: the caller left.
    """
    try:
        fields = json.loads((await _receive(socket, service)).get("text") or "")
    except (ValueError, RecursionError) as error:
        raise invalid_field(
            "message", f"the first message is not JSON: {error}; send a JSON object such as {{}}"
        ) from error
    if not isinstance(fields, dict):
        raise invalid_field("message", "expected a JSON object as the first message")
    if token and not hmac.compare_digest(
        str(fields.get("token", "")).encode(errors="surrogatepass"), token.encode()
    ):
        raise Problem(
            401,
            "Unauthorized",
            "missing or wrong token; send it as the field token of the first message",
            field="token",
        )
    for name in fields:
        if name not in ("token", *OPTION_FIELDS):
            raise invalid_field(name[:100], f"unknown field; expected token, {', '.join(OPTION_FIELDS)}")
    options = parse_options(fields)
    await socket.send_json({"window": _window_seconds(service), "sample_rate": SAMPLE_RATE})
    return options


async def _exchange_messages(socket: WebSocket, service: Service, options: RequestOptions) -> None:
    """Receives messages and sends predictions concurrently until the session ends.

    An error of the receiving task is raised first: Problem 408 or 422 for a timeout or an invalid message, or
    WebSocketDisconnect if the caller left. After that, an error of the predicting task: ValueError if the
    bundle cannot be run or its preparation settings do not give the arrays that the model reads, OSError or
    av.FFmpegError if a window cannot be stored as a file, OSError if a decoder process cannot be replaced.
    """
    window_queue: WindowQueue = asyncio.Queue()
    predict_task = asyncio.create_task(_predict_windows(socket, service, options, window_queue))
    collect_task = asyncio.create_task(_collect_windows(socket, service, window_queue))
    try:
        await asyncio.wait((predict_task, collect_task), return_when=asyncio.FIRST_EXCEPTION)
        await collect_task
        await predict_task
    finally:
        for task in (collect_task, predict_task):
            task.cancel()


async def _collect_windows(socket: WebSocket, service: Service, window_queue: WindowQueue) -> None:
    """Receives messages and puts complete windows into the queue, then None at the end (not after an error).

    A LiveWindow in the queue has `start` and `end` in seconds of the session, `audio` (int16 [n] or None),
    `frames` (list of (seconds, JPEG)) and `frame_size`. The text `end` ends the session; the remainder is put
    into the queue if it is at least half a window. If two windows (MAX_WAITING_WINDOWS) wait already,
    {"start", "end", "error"} is sent instead of queueing a third, so that memory use stays constant. Raises
    Problem 408 if no message arrives within `service.limits.upload_timeout_seconds`, Problem 422 for a text
    other than `end` or an invalid binary message, and WebSocketDisconnect if the caller left.
    """
    assembler = WindowAssembler(_window_seconds(service), service.limits)
    while (message := await _receive(socket, service)).get("text") != "end":
        if message.get("bytes") is None:
            raise invalid_field("message", "expected a binary message, or the text `end`")
        assembler.add(message["bytes"])
        while assembler.is_window_ready():
            live_window = assembler.take_window()
            if window_queue.qsize() < MAX_WAITING_WINDOWS:
                window_queue.put_nowait(live_window)
            else:
                service.metrics.count_window("late")
                await socket.send_json(
                    _failed_window(live_window, "the server is overloaded; this window was skipped")
                )
    if assembler.has_remainder():
        window_queue.put_nowait(assembler.take_window(full_window=False))
    window_queue.put_nowait(None)


async def _predict_windows(
    socket: WebSocket, service: Service, options: RequestOptions, window_queue: WindowQueue
) -> None:
    """Sends the prediction for each LiveWindow in the queue as JSON, until None.

    A prediction is {"start", "end", "label", "confidence", "probabilities", "voice_weight", "face_weight",
    "audio_ok", "video_ok"}, with "notes" if there are any and "details" if `options` ask for them. A window
    that cannot be predicted is sent as {"start", "end", "error"}, also if the server is busy or decoding
    crashed (Problem). Raises ValueError if the bundle cannot be run or its preparation settings do not give
    the arrays that the model reads, OSError or av.FFmpegError if a window cannot be stored as a file, OSError
    if a crashed decoder process cannot be replaced, and WebSocketDisconnect if the caller left.
    """
    while (live_window := await window_queue.get()) is not None:
        try:
            prediction = await _predict_live_window(service, live_window, options)
        except Problem as problem:
            prediction = _failed_window(live_window, problem.body["detail"])
        service.metrics.count_window("refused" if "error" in prediction else "answered")
        await socket.send_json(prediction)


async def _predict_live_window(
    service: Service, live_window: LiveWindow, options: RequestOptions
) -> WindowResponse:
    """Returns the JSON of a window's prediction, or {"start", "end", "error"} if it has none.

    A prediction has `start` and `end` in seconds of the session, `label`, `confidence`, `probabilities` by
    class name, `voice_weight` and `face_weight` (None if the model has none), `audio_ok`, `video_ok`, `notes`
    if there are any, and, if `options.details` is True, `details`: {"faces", "sound"}, the detected faces and
    the spectrogram with their attention, None for a modality that is not usable.

    Args:
      service: the running service.
      live_window: has `start` and `end`, `audio` (int16 [n] or None), `frames` (list of (seconds from the
        start of the window, JPEG)) and `frame_size` (width, height).
      options: minimum confidence, number of the person (from 1), and whether to add details.

    Raises:
      Problem: status 422 if decoding crashed, 503 if the server is busy.
      ValueError: the bundle cannot be run on this machine; its preparation settings do not give the arrays
        that the model reads; or, for details, the number of video frames is not a multiple of the length of
        the model's `video_attention`.
      OSError: the window cannot be stored as a file in `service.upload_dir` (other errors of writing are
        av.FFmpegError), or a crashed decoder process cannot be replaced.
    """
    if live_window.audio is None and not live_window.frames:
        return _failed_window(live_window, "no audio or video arrived for this window")
    descriptor, path = tempfile.mkstemp(dir=service.upload_dir)
    try:
        duration_seconds = live_window.end - live_window.start
        with os.fdopen(descriptor, "wb") as file:  # not by path: a late thread could create it again
            await run_in_threadpool(
                write_recording,
                file,
                live_window.audio,
                SAMPLE_RATE,
                live_window.frames,
                live_window.frame_size,
                duration_seconds,
            )
        window = Window(live_window.start, live_window.end, is_complete_file=True)
        return await predict_window(service, path, window, options)
    finally:
        os.unlink(path)


async def _receive(socket: WebSocket, service: Service) -> Message:
    """Returns the next message, a dict with the key `text` or `bytes`.

    Raises Problem 408 if none arrives within `service.limits.upload_timeout_seconds`, and WebSocketDisconnect
    if the caller left.
    """
    timeout_seconds = service.limits.upload_timeout_seconds
    try:
        message = await asyncio.wait_for(socket.receive(), timeout_seconds)
    except TimeoutError as error:
        raise Problem(
            408,
            "Request timeout",
            f"no message arrived for {timeout_seconds:g} s; send audio, frames or the text `end`",
            field="message",
        ) from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return message


def _window_seconds(service: Service) -> float:
    return service.bundle.metadata["window"]["seconds"]


def _failed_window(live_window: LiveWindow, error: str) -> WindowResponse:
    """Returns {"start", "end", "error"} of a window without a prediction, in seconds of the session."""
    return {"start": round(live_window.start, 3), "end": round(live_window.end, 3), "error": error}
