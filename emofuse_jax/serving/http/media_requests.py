"""Handles uploaded media files: checks them before decoding, predicts each window, and deletes them."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request

from emofuse_jax.data.records import Record
from emofuse_jax.serving.errors import BusyError
from emofuse_jax.serving.http.explanations import explain_window
from emofuse_jax.serving.http.problems import Problem, invalid_field, server_busy
from emofuse_jax.serving.http.request_options import OPTION_FIELDS, RequestOptions, parse_options
from emofuse_jax.serving.http.service import Service, run_model
from emofuse_jax.serving.media.decoder_pool import (
    DamagedMediaError,
    DecoderLostError,
    NotMediaError,
    ProbeResult,
)
from emofuse_jax.serving.predict import to_batch
from emofuse_jax.serving.predictions import PreparedWindow, apply_min_confidence, make_window_prediction
from emofuse_jax.serving.windows import Window, plan_windows

WindowResponse = dict[str, object]
"""JSON object of one window: as `predictions.WindowFields` without `path`, and `details` if requested."""
ResultT = TypeVar("ResultT")


@contextlib.asynccontextmanager
async def receive_upload(request: Request, upload_dir: str) -> AsyncIterator[tuple[str, RequestOptions]]:
    """Stores the uploaded file in `upload_dir` and yields its path and the request's options.

    The file gets a generated name and is deleted on exit. RequestOptions has `min_confidence` (0 to 1,
    default 0; below it, the label is `unknown`), `person` (1 to 20; 1, the default, is the main person) and
    `details` (True adds faces, spectrogram and attention; default False).

    Args:
      request: request with a multipart form: the file in `file`, and optionally the fields `min_confidence`,
        `person` and `details` as text.
      upload_dir: directory for the file.

    Raises:
      Problem: status 422 if a field is missing, unknown or invalid; 413 or 408 if the body is larger than the
        server allows or not complete in time.
      HTTPException: status 400 if the form is malformed, or has more than one file or more than three other
        fields.
      ClientDisconnect: the caller left.
      OSError: the file cannot be stored.
    """
    async with request.form(max_files=1, max_fields=len(OPTION_FIELDS)) as form:
        for name in form:
            if name not in ("file", *OPTION_FIELDS):
                raise invalid_field(name[:100], f"unknown field; expected file, {', '.join(OPTION_FIELDS)}")
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise invalid_field("file", "expected a media file in this form field")
        options = parse_options({name: form[name] for name in OPTION_FIELDS if name in form})
        descriptor, path = tempfile.mkstemp(dir=upload_dir)
        try:
            with os.fdopen(descriptor, "wb") as target:
                await run_in_threadpool(shutil.copyfileobj, upload.file, target)
            yield path, options
        finally:
            os.unlink(path)


async def probe_upload(service: Service, path: str) -> ProbeResult:
    """Returns the properties of an uploaded file, after checking that they are within the server's limits.

    A ProbeResult has `duration_seconds`, `width` and `height` of a frame in pixels, `frame_rate` (mean frames
    per second; these three are 0 without video), and `has_audio`.

    Raises:
      Problem: status 415 if the file is not media, 422 if it is damaged, its decoder crashes, times out or
        cannot start, or it has more seconds, pixels per frame or frames per second than `service.limits`, 503
        if all decoders are busy.
      OSError: a crashed decoder process cannot be replaced.
    """
    try:
        probe_result = await _run_in_decoder(service, lambda: service.decoders.probe(path))
    except DamagedMediaError as error:
        raise invalid_field(
            "file", f"the media file cannot be used; send a repaired or another one: {error}"
        ) from error
    except NotMediaError as error:
        raise Problem(
            415, "Unsupported media type", f"expected an audio or video file: {error}", field="file"
        ) from error
    limits = service.limits
    for unit, value, maximum in (
        ("seconds", probe_result.duration_seconds, limits.max_media_seconds),
        ("pixels", probe_result.width * probe_result.height, limits.max_frame_pixels),
        ("frames per second", probe_result.frame_rate, limits.max_frame_rate),
    ):
        if value > maximum:
            raise invalid_field(
                "file", f"the media file has {value:.0f} {unit}: expected at most {maximum:g}"
            )
    return probe_result


async def stream_predictions(
    service: Service, path: str, duration_seconds: float, options: RequestOptions
) -> AsyncIterator[WindowResponse]:
    """Yields the JSON of each window's prediction or error, in order.

    A prediction is {"start", "end", "label", "confidence", "probabilities", "voice_weight", "face_weight",
    "audio_ok", "video_ok"}, with "notes" if there are any, and, if `options.details` is True, "details":
    {"faces", "sound"}, the detected faces and the spectrogram with their attention. A window that has none is
    {"start", "end", "error"}. Times are seconds of the file.

    Args:
      service: the running service.
      path: media file.
      duration_seconds: duration of the file, which is cut into windows.
      options: `min_confidence`, `person` (1 is the main person, 2 the next one) and `details`.

    Raises:
      Problem: status 422 if decoding a window crashed, 503 if the server is busy.
      ValueError: the bundle cannot be run on this machine; its preparation settings do not give the arrays
        that the model reads; or, for details, the number of video frames is not a multiple of the length of
        the model's `video_attention`.
      OSError: a crashed decoder process cannot be replaced.
    """
    for window in plan_windows(duration_seconds, service.bundle):
        yield await predict_window(service, path, window, options)


async def predict_window(
    service: Service, path: str, window: Window, options: RequestOptions
) -> WindowResponse:
    """Returns the JSON of one window's prediction, or {"start", "end", "error"} if it has none.

    A prediction is {"start", "end", "label", "confidence", "probabilities", "voice_weight", "face_weight",
    "audio_ok", "video_ok"}, with "notes" if there are any. Times are seconds. If `options.details` is True,
    there is also "details": {"faces", "sound"}, as `explain_window` returns it. "faces" is a list of {"time",
    "box", "score", "attention"}, one for each frame with a face; "sound" is {"seconds", "shape", "levels",
    "attention"} of the spectrogram. "faces" is None without a usable face, "sound" without usable audio or
    spectrogram.

    Args:
      service: the running service.
      path: media file.
      window: part of the file to predict: `start`, `end` and `is_complete_file`; if that is True, the whole
        file is decoded, and the times are only stated in the result.
      options: `min_confidence`, `person` (1 is the main person, 2 the next one) and `details`.

    Raises:
      Problem: status 422 if decoding crashed, 503 if the server is busy: all decoders are busy, the model is
        still compiling, its queue is full, or it has not answered in time.
      ValueError: the bundle cannot be run on this machine; its preparation settings do not give the arrays
        that the model reads; or, for details, the number of video frames is not a multiple of the length of
        the model's `video_attention`.
      OSError: a crashed decoder process cannot be replaced.
    """
    bundle = service.bundle
    start, end = window.clip_range
    result = await _run_in_decoder(
        service, lambda: service.decoders.prepare_window(path, start, end, options.person - 1)
    )
    output: dict[str, np.ndarray] = {}
    if isinstance(result, Record):
        batch_outputs = await run_model(service, to_batch(bundle, [result], 1))
        output = {name: array[0] for name, array in batch_outputs.items()}
    prepared_window = PreparedWindow("", window.start, window.end, result)
    prediction = apply_min_confidence(
        make_window_prediction(bundle.classes, prepared_window, output), options.min_confidence
    )
    response = {name: value for name, value in prediction.to_json().items() if name != "path"}
    if options.details and isinstance(result, Record):
        hop_ms = bundle.metadata["settings"]["audio"]["hop_ms"]
        response["details"] = explain_window(result, output, hop_ms)
    return response


async def stream_events(
    service: Service, path: str, duration_seconds: float, options: RequestOptions
) -> AsyncIterator[str]:
    """Yields server-sent events for a file as text: `begin`, `window` for each window, then `end`.

    The data are JSON: {"seconds", "windows" (their number)} for `begin`; for a window, {"start", "end",
    "label", "confidence", "probabilities", "voice_weight", "face_weight", "audio_ok", "video_ok"} with
    "notes" and "details" if there are any, or {"start", "end", "error"}; and {} for `end`. If a Problem stops
    the predictions, its {"type", "title", "status", "detail"}, with "field" for status 422, is sent as the
    event `problem` before `end`, and it is not raised.

    Args:
      service: the running service.
      path: media file.
      duration_seconds: duration of the file, which is cut into windows.
      options: `min_confidence`, `person` (1 is the main person, 2 the next one) and `details`.

    Raises:
      ValueError: the bundle cannot be run on this machine; its preparation settings do not give the arrays
        that the model reads; or, for details, the number of video frames is not a multiple of the length of
        the model's `video_attention`.
      OSError: a crashed decoder process cannot be replaced.
    """
    count = len(plan_windows(duration_seconds, service.bundle))
    yield _format_event("begin", {"seconds": round(duration_seconds, 3), "windows": count})
    try:
        async for prediction in stream_predictions(service, path, duration_seconds, options):
            yield _format_event("window", prediction)
    except Problem as problem:
        yield _format_event("problem", problem.body)
    yield _format_event("end", {})


def _format_event(name: str, values: Mapping[str, object]) -> str:
    """Returns the text of a server-sent event, with `values` as JSON."""
    return f"event: {name}\ndata: {json.dumps(values)}\n\n"


async def _run_in_decoder(service: Service, run_job: Callable[[], ResultT]) -> ResultT:
    """Returns the result of `run_job`, a call of the DecoderPool, which runs in another thread.

    Raises Problem 422 if the decoder process crashed, timed out or could not start, and 503 if all processes
    are busy and the queue is full; other errors of `run_job` pass through.
    """
    try:
        return await asyncio.get_running_loop().run_in_executor(service.executor, run_job)
    except DecoderLostError as error:
        raise invalid_field("file", f"the media file cannot be decoded: {error}") from error
    except BusyError as error:
        raise server_busy(str(error)) from error
