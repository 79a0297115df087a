"""The server: a bundle behind HTTP, many callers in one batch, honest when it is full.

Every error is a problem document (RFC 9457) that names the field. Nothing that is sent is kept.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.http import media_requests
from emofuse_jax.serving.http.batching import Batcher
from emofuse_jax.serving.http.body_limit import Bounded
from emofuse_jax.serving.http.json_arrays import FieldError, read_clip
from emofuse_jax.serving.http.live_session import session
from emofuse_jax.serving.http.openapi import bodies_of, file_content
from emofuse_jax.serving.http.page import PAGE, add_page
from emofuse_jax.serving.http.problems import Problem, busy, plain, unusable
from emofuse_jax.serving.http.prometheus import Measures
from emofuse_jax.serving.http.service import DEFAULT_LIMITS, Limits, Service, answered
from emofuse_jax.serving.http.uploads import uploads_folder
from emofuse_jax.serving.media.decoder_pool import Decoders, decode
from emofuse_jax.serving.media.prepare_window import needs_of
from emofuse_jax.serving.predictions import is_probability, prediction, surer

GONE = 499
"""The status that proxies give to a caller who left; nobody reads it but the measures."""
OPEN = ("/healthz", "/readyz", *PAGE)
"""What needs no token: a load balancer has none, nor a browser that opens the page, which asks for it."""


def make_app(bundle: Bundle, *, token: str = "", limits: Limits = DEFAULT_LIMITS) -> FastAPI:
    """The application of one bundle.

    Args:
      bundle: a loaded one.
      token: what a caller must send as `Authorization: Bearer ...`; "": nothing.
      limits: for callers.
    """
    measures = Measures()

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        with serving(bundle, limits, measures) as app.state.service:
            yield

    named = {"title": "emofuse", "summary": f"Emotion recognition, trained on {bundle.metadata['corpus']}"}
    app = FastAPI(**named, lifespan=life, docs_url=None, redoc_url=None)  # whose pages come from the network
    app.add_exception_handler(Problem, lambda request, problem: problem.response())
    app.add_exception_handler(HTTPException, lambda request, error: plain(error.status_code, error.headers))
    app.add_exception_handler(ClientDisconnect, lambda request, error: Response(status_code=GONE))
    app.add_exception_handler(Exception, lambda request, error: plain(500))
    app.add_middleware(Bounded, most=limits.bytes, seconds=limits.upload_seconds)

    @app.middleware("http")
    async def guard(request: Request, call_next):
        with measures.request(request.url.path) as told:
            try:
                check_token(request, token)
                response = await call_next(request)
            except Problem as problem:
                response = problem.response()
            told(response.status_code)
        return response

    add_probes(app, bundle, measures)
    add_answers(app, bundle)
    add_page(app, bundle, token=bool(token))

    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await session(socket, app.state.service, token)

    return app


@contextlib.contextmanager
def serving(bundle: Bundle, limits: Limits, measures: Measures) -> Iterator[Service]:
    """Starts what the routes need, compiles in the background, and ends it all: what waits is answered."""
    batcher = Batcher(
        bundle.run, bundle.inputs, buckets=limits.buckets, waiting=limits.waiting, told=measures.batch
    )
    measures.waits(batcher.depth)
    measures.joins(lambda: batcher.together)
    ready = threading.Event()

    decoders = Decoders(
        functools.partial(decode, needs_of(bundle)),
        workers=limits.decoders,
        seconds=limits.decode_seconds,
        waiting=limits.files_waiting,
    )

    def warm() -> None:
        batcher.start()
        decoders.warm()
        ready.set()

    warming = threading.Thread(target=warm, name="warming")
    threads = concurrent.futures.ThreadPoolExecutor(limits.decoders + limits.files_waiting + 1)
    warming.start()
    try:
        with uploads_folder() as folder:
            sessions = asyncio.Semaphore(limits.sessions)
            yield Service(bundle, limits, batcher, decoders, threads, folder, ready, sessions, measures)
    finally:
        ready.clear()
        decoders.close()
        warming.join()
        threads.shutdown(wait=False, cancel_futures=True)
        batcher.close()


def add_probes(app: FastAPI, bundle: Bundle, measures: Measures) -> None:
    """What the server tells of itself."""

    @app.get("/healthz")
    async def healthz() -> dict:
        """200 as long as the server runs."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict:
        """200 when all is compiled, the detector too; 503 before, and while the server stops."""
        if not app.state.service.ready.is_set():
            raise busy("the model is being compiled, or the server stops", after=5)
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(*measures.text())

    @app.get("/v1/model")
    async def model() -> dict:
        """What the model is: classes, inputs, window, training corpus, limits."""
        return about(bundle)


def add_answers(app: FastAPI, bundle: Bundle) -> None:
    """What the server answers."""

    @app.post("/v1/predict", openapi_extra=bodies_of(bundle))
    async def predict(request: Request) -> dict:
        """The emotion of one clip given as arrays, or of every window of a media file."""
        service: Service = app.state.service
        if content_type(request) == "multipart/form-data":
            async with media_requests.received(request, service.folder) as (path, asked):
                seconds = (await media_requests.look(service, path)).seconds
                found = [answer async for answer in media_requests.windows(service, path, seconds, asked)]
            if all("error" in answer for answer in found):
                raise unusable("file", found[0]["error"])
            return {"seconds": round(seconds, 3), "windows": found}
        if content_type(request) != "application/json":
            raise Problem(415, "Unsupported media type", "expected application/json or multipart/form-data")
        row, least = await run_in_threadpool(parse, await request.body(), bundle)
        return answer_of(bundle, row, await answered(service, row), least)

    @app.post("/v1/predict/stream", openapi_extra={"requestBody": {"content": file_content()}})
    async def stream(request: Request) -> StreamingResponse:
        """Every window of a media file as a server-sent event, as soon as it is known."""
        service: Service = app.state.service
        if content_type(request) != "multipart/form-data":
            raise Problem(415, "Unsupported media type", "expected multipart/form-data")
        stack = contextlib.AsyncExitStack()
        path, asked = await stack.enter_async_context(media_requests.received(request, service.folder))
        try:
            seconds = (await media_requests.look(service, path)).seconds
        except BaseException:
            await stack.aclose()
            raise

        async def events() -> AsyncIterator[str]:
            async with stack:
                async for event in media_requests.events(service, path, seconds, asked):
                    yield event

        return StreamingResponse(events(), media_type="text/event-stream")


def content_type(request: Request) -> str:
    """Of the body, without parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def check_token(request: Request, token: str) -> None:
    """Problem 401 where a token is needed and another one, or none, is sent; compared in constant time."""
    if not token or request.url.path in OPEN:
        return
    given = request.headers.get("authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise Problem(401, "Unauthorized", "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})


def parse(data: bytes, bundle: Bundle) -> tuple[dict[str, np.ndarray], float]:
    """A batch of one row, and the least confidence; Problem 422 names the field."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unusable("body", f"not JSON: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("inputs"), dict):
        raise unusable("inputs", "expected an object")
    least = given.get("min_confidence", 0.0)
    if not is_probability(least):
        raise unusable("min_confidence", "expected a probability")
    for name in given:
        if name not in ("inputs", "min_confidence"):
            raise unusable(name[:100], "no such field")
    try:
        return read_clip(given["inputs"], bundle.metadata["modalities"], bundle.inputs), float(least)
    except FieldError as error:
        raise unusable(error.field[:100], error.detail) from error


def answer_of(bundle: Bundle, row: dict, outputs: dict, least: float) -> dict:
    """The JSON of an answer: the fields of `predictor.Prediction` that a clip without a file has."""
    sound = any(row[name].any() for name in ("audio_mask", "audio_features_mask") if name in row)
    faces = bool("face_mask" in row and row["face_mask"].any())
    one = {name: array[0] for name, array in outputs.items()}
    answer = surer(prediction(bundle.classes, one, audio_ok=sound, video_ok=faces), least).to_json()
    return {name: value for name, value in answer.items() if name not in ("path", "start", "end")}


def about(bundle: Bundle) -> dict:
    """What `/v1/model` tells: no path of this machine."""
    told = ("classes", "modalities", "window", "settings", "corpus", "protocol", "training_speakers")
    more = ("temperature", "intended_use", "limits", "created", "versions")
    found = {name: bundle.metadata[name] for name in (*told, *more) if name in bundle.metadata}
    shapes = {name: {"shape": list(s), "dtype": str(d)} for name, (s, d) in bundle.inputs.items()}
    return found | {"name": bundle.metadata.get("config", {}).get("name", ""), "inputs": shapes}
