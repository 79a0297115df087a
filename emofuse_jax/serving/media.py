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

from emofuse_jax.serving.answering import Service, answered
from emofuse_jax.serving.batching import Busy
from emofuse_jax.serving.decoders import Damaged, Look, Lost, NotMedia
from emofuse_jax.serving.predictor import answer_of, rows_of, surer
from emofuse_jax.serving.problems import Problem, busy, unusable
from emofuse_jax.serving.windows import cut_windows


@contextlib.asynccontextmanager
async def received(request: Request, folder: str) -> AsyncIterator[tuple[str, float]]:
    """The sent file in `folder`, under a name of ours, and the least confidence; removed at the end."""
    async with request.form(max_files=1, max_fields=1) as form:
        for name in form:
            if name not in ("file", "min_confidence"):
                raise unusable(name[:100], "no such field")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise unusable("file", "expected a media file")
        least = _probability(form.get("min_confidence", "0"))
        handle, path = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as target:
                await run_in_threadpool(shutil.copyfileobj, file.file, target)
            yield path, least
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


async def windows(service: Service, path: str, seconds: float, least: float) -> AsyncIterator[dict]:
    """The JSON of each window of a file, in order; without its path, which is ours."""
    bundle = service.bundle
    spans = cut_windows(seconds, bundle.metadata["window"]["seconds"])
    for start, end in spans:
        part = (None, None) if len(spans) == 1 else (start, end)
        found = await _in_process(service, service.decoders.window, path, *part)
        missing = isinstance(found, str)
        outputs = None if missing else await answered(service, rows_of(bundle, [found], 1))
        answer = surer(answer_of(bundle.classes, "", start, end, found, outputs, 0), least)
        yield {name: value for name, value in answer.to_json().items() if name != "path"}


async def events(answers: AsyncIterator[dict]) -> AsyncIterator[str]:
    """Server-sent events: `window` for each, `problem` where it ends early, then `end`."""
    try:
        async for answer in answers:
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


def _probability(given: object) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= 1:
        raise unusable("min_confidence", "expected a probability")
    return value
