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

from emofuse_jax.serving.errors import Busy
from emofuse_jax.serving.http.explanations import details_of
from emofuse_jax.serving.http.problems import Problem, busy, unusable
from emofuse_jax.serving.http.request_options import FIELDS, Asked, asked_of
from emofuse_jax.serving.http.service import Service, answered
from emofuse_jax.serving.media.decoder_pool import Damaged, Look, Lost, NotMedia
from emofuse_jax.serving.predict import rows_of
from emofuse_jax.serving.predictions import Window, answer_of, surer
from emofuse_jax.serving.windows import spans


@contextlib.asynccontextmanager
async def received(request: Request, folder: str) -> AsyncIterator[tuple[str, Asked]]:
    """The sent file in `folder`, under a name of ours, and what is asked; removed at the end."""
    async with request.form(max_files=1, max_fields=len(FIELDS)) as form:
        for name in form:
            if name not in ("file", *FIELDS):
                raise unusable(name[:100], "no such field")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise unusable("file", "expected a media file")
        asked = asked_of({name: form[name] for name in FIELDS if name in form})
        handle, path = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as target:
                await run_in_threadpool(shutil.copyfileobj, file.file, target)
            yield path, asked
        finally:
            os.unlink(path)


async def look(service: Service, path: str) -> Look:
    """What the file is; Problem 415 where it is no media, 422 where it is damaged or beyond the limits."""
    try:
        found = await _in_process(service, service.decoders.look, path)
    except Damaged as error:
        raise unusable("file", str(error)) from error
    except NotMedia as error:
        raise Problem(415, "Unsupported media type", str(error), field="file") from error
    limits = service.limits
    for name, value, most in (
        ("seconds", found.seconds, limits.media_seconds),
        ("pixels", found.width * found.height, limits.pixels),
        ("frames a second", found.frame_rate, limits.frame_rate),
    ):
        if value > most:
            raise unusable("file", f"{value:.0f} {name}, at most {most:g} are taken")
    return found


async def windows(service: Service, path: str, seconds: float, asked: Asked) -> AsyncIterator[dict]:
    """The JSON of each window of a file, in order."""
    for start, end, part in spans(seconds, service.bundle):
        yield await window(service, path, start, end, part, asked)


async def window(service: Service, path: str, start: float, end: float, part: tuple, asked: Asked) -> dict:
    """The JSON of a window, whose file has it as `part`; without its path, which is ours."""
    bundle = service.bundle
    found = await _in_process(service, service.decoders.window, path, *part, asked.person - 1)
    rows = {} if isinstance(found, str) else await answered(service, rows_of(bundle, [found], 1))
    output = {name: array[0] for name, array in rows.items()}
    answer = surer(answer_of(bundle.classes, Window("", start, end, found), output), asked.min_confidence)
    told = {name: value for name, value in answer.to_json().items() if name != "path"}
    if asked.details and rows:
        told["details"] = details_of(found, output, bundle.metadata["settings"]["audio"]["hop_ms"])
    return told


async def events(service: Service, path: str, seconds: float, asked: Asked) -> AsyncIterator[str]:
    """Server-sent events: `begin`, `window` for each, `problem` where it ends early, then `end`."""
    count = len(spans(seconds, service.bundle))
    yield _event("begin", {"seconds": round(seconds, 3), "windows": count})
    try:
        async for answer in windows(service, path, seconds, asked):
            yield _event("window", answer)
    except Problem as problem:
        yield _event("problem", problem.body)
    yield _event("end", {})


def _event(name: str, values: dict) -> str:
    return f"event: {name}\ndata: {json.dumps(values)}\n\n"


async def _in_process(service: Service, job: Callable, *given):
    """The answer of a decoder; Problem 422 where the file ended it, 503 where there is no room."""
    try:
        return await asyncio.get_running_loop().run_in_executor(service.threads, job, *given)
    except Lost as error:
        raise unusable("file", str(error)) from error
    except Busy as error:
        raise busy(str(error)) from error
