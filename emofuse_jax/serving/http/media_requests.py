"""Media files that are sent: looked at before anything is decoded, answered window by window, and removed."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request

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
from emofuse_jax.serving.windows import plan_windows


@contextlib.asynccontextmanager
async def receive_upload(request: Request, upload_dir: str) -> AsyncIterator[tuple[str, RequestOptions]]:
    """The sent file in `upload_dir`, under a name of ours, and what is asked; removed at the end."""
    async with request.form(max_files=1, max_fields=len(OPTION_FIELDS)) as form:
        for name in form:
            if name not in ("file", *OPTION_FIELDS):
                raise invalid_field(name[:100], "no such field")
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise invalid_field("file", "expected a media file")
        options = parse_options({name: form[name] for name in OPTION_FIELDS if name in form})
        descriptor, path = tempfile.mkstemp(dir=upload_dir)
        try:
            with os.fdopen(descriptor, "wb") as target:
                await run_in_threadpool(shutil.copyfileobj, upload.file, target)
            yield path, options
        finally:
            os.unlink(path)


async def probe_upload(service: Service, path: str) -> ProbeResult:
    """What the file is; Problem 415 where it is no media, 422 where it is damaged or beyond the limits."""
    try:
        probe_result = await _run_in_decoder(service, service.decoders.probe, path)
    except DamagedMediaError as error:
        raise invalid_field("file", str(error)) from error
    except NotMediaError as error:
        raise Problem(415, "Unsupported media type", str(error), field="file") from error
    limits = service.limits
    for name, value, maximum in (
        ("seconds", probe_result.duration_seconds, limits.max_media_seconds),
        ("pixels", probe_result.width * probe_result.height, limits.max_frame_pixels),
        ("frames a second", probe_result.frame_rate, limits.max_frame_rate),
    ):
        if value > maximum:
            raise invalid_field("file", f"{value:.0f} {name}, at most {maximum:g} are taken")
    return probe_result


async def stream_predictions(
    service: Service, path: str, duration_seconds: float, options: RequestOptions
) -> AsyncIterator[dict]:
    """The JSON of each window of a file, in order."""
    for start, end, clip_range in plan_windows(duration_seconds, service.bundle):
        yield await predict_window(service, path, start, end, clip_range, options)


async def predict_window(
    service: Service, path: str, start: float, end: float, clip_range: tuple, options: RequestOptions
) -> dict:
    """The JSON of a window, whose file has it as `clip_range`; without its path, which is ours."""
    bundle = service.bundle
    record_or_error = await _run_in_decoder(
        service, service.decoders.prepare_window, path, *clip_range, options.person - 1
    )
    batch_outputs = (
        {}
        if isinstance(record_or_error, str)
        else await run_model(service, to_batch(bundle, [record_or_error], 1))
    )
    output = {name: array[0] for name, array in batch_outputs.items()}
    prediction = apply_min_confidence(
        make_window_prediction(bundle.classes, PreparedWindow("", start, end, record_or_error), output),
        options.min_confidence,
    )
    response = {name: value for name, value in prediction.to_json().items() if name != "path"}
    if options.details and batch_outputs:
        response["details"] = explain_window(
            record_or_error, output, bundle.metadata["settings"]["audio"]["hop_ms"]
        )
    return response


async def stream_events(
    service: Service, path: str, duration_seconds: float, options: RequestOptions
) -> AsyncIterator[str]:
    """Server-sent events: `begin`, `window` for each, `problem` where it ends early, then `end`."""
    count = len(plan_windows(duration_seconds, service.bundle))
    yield _format_event("begin", {"seconds": round(duration_seconds, 3), "windows": count})
    try:
        async for prediction in stream_predictions(service, path, duration_seconds, options):
            yield _format_event("window", prediction)
    except Problem as problem:
        yield _format_event("problem", problem.body)
    yield _format_event("end", {})


def _format_event(name: str, values: dict) -> str:
    return f"event: {name}\ndata: {json.dumps(values)}\n\n"


async def _run_in_decoder(service: Service, method: Callable, *args):
    """The answer of a decoder; Problem 422 where the file ended it, 503 where there is no room."""
    try:
        return await asyncio.get_running_loop().run_in_executor(service.executor, method, *args)
    except DecoderLostError as error:
        raise invalid_field("file", str(error)) from error
    except BusyError as error:
        raise server_busy(str(error)) from error
