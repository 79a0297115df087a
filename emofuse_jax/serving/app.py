"""The server: a bundle behind HTTP, many callers in one batch, honest when it is full.

Every error is a problem document (RFC 9457) that names the field. Nothing that is sent is kept.
"""

import asyncio
import base64
import contextlib
import dataclasses
import hmac
import http
import json
import threading
from collections.abc import AsyncIterator

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from emofuse_jax.serving.batching import Batcher, Busy, Closed
from emofuse_jax.serving.bundle import Bundle
from emofuse_jax.serving.measures import Measures
from emofuse_jax.serving.predictor import UNKNOWN
from emofuse_jax.serving.tensors import FieldError, read_clip, readable

OPEN = ("/healthz", "/readyz")
"""What needs no token: a load balancer has none."""
PROBLEM = "application/problem+json"
PREDICT = "/v1/predict"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a caller may ask for."""

    bytes: int = 64 << 20
    """Of a request's body."""
    seconds: float = 10.0
    """Until a request that still waits is given up."""
    waiting: int = 256
    """Clips that may wait."""
    buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Batch sizes."""


class Problem(Exception):
    """An answer that is an error: status, title, and what in particular."""

    def __init__(self, status: int, title: str, detail: str, *, field: str = "", headers: dict | None = None):
        super().__init__(detail)
        self.status, self.headers = status, headers or {}
        self.body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        if field:
            self.body["field"] = field

    def response(self) -> Response:
        """As JSON."""
        return JSONResponse(self.body, self.status, self.headers, media_type=PROBLEM)


def make_app(bundle: Bundle, *, token: str = "", limits: Limits = Limits()) -> FastAPI:
    """The application of one bundle.

    Args:
      bundle: a loaded one.
      token: what a caller must send as `Authorization: Bearer ...`; "": nothing.
      limits: for callers.
    """
    measures = Measures()
    batcher = Batcher(
        bundle.run, bundle.inputs, buckets=limits.buckets, waiting=limits.waiting, told=measures.batch
    )
    measures.waits(batcher.depth)
    ready = threading.Event()

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        def warm() -> None:
            batcher.start()
            ready.set()

        warming = asyncio.create_task(asyncio.to_thread(warm))
        yield
        ready.clear()
        await warming
        await asyncio.to_thread(batcher.close)

    named = {"title": "emofuse", "summary": f"Emotion recognition, trained on {bundle.metadata['corpus']}"}
    app = FastAPI(**named, lifespan=life, docs_url=None, redoc_url=None)  # whose pages come from the network
    app.add_exception_handler(Problem, lambda request, problem: problem.response())
    app.add_exception_handler(HTTPException, lambda request, error: plain(error.status_code, error.headers))
    app.add_exception_handler(Exception, lambda request, error: plain(500))

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

    @app.get("/healthz")
    async def healthz() -> dict:
        """200 as long as the server runs."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict:
        """200 when every batch size is compiled, 503 before, and while the server stops."""
        if not ready.is_set():
            raise Problem(503, "Not ready", "the model is being compiled, or the server stops")
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(*measures.text())

    @app.get("/v1/model")
    async def model() -> dict:
        """What the model is: classes, inputs, window, training corpus, limits."""
        return about(bundle)

    @app.post(PREDICT, openapi_extra=body_of(bundle))
    async def predict(request: Request) -> dict:
        """The emotion of one clip, given as arrays."""
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise Problem(415, "Unsupported media type", "expected application/json")
        row, least = await run_in_threadpool(parse, await body(request, limits.bytes), bundle)
        if not ready.is_set():
            raise Problem(503, "Not ready", "the model is being compiled", headers={"Retry-After": "5"})
        return answer_of(bundle, row, await answered(batcher, row, limits.seconds), least)

    return app


def plain(status: int, headers: dict | None = None) -> Response:
    """An error that has nothing to add to its status."""
    phrase = http.HTTPStatus(status).phrase
    return Problem(status, phrase, phrase, headers=headers).response()


def check_token(request: Request, token: str) -> None:
    """Problem 401 where a token is needed and another one, or none, is sent; compared in constant time."""
    if not token or request.url.path in OPEN:
        return
    given = request.headers.get("authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise Problem(401, "Unauthorized", "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})


async def body(request: Request, most: int) -> bytes:
    """The body; Problem 413 as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "")
    found = bytearray()
    if not declared.isdigit() or int(declared) <= most:
        async for part in request.stream():
            found += part
            if len(found) > most:
                break
        else:
            return bytes(found)
    raise Problem(413, "Content too large", f"at most {most} bytes", field="body")


def parse(data: bytes, bundle: Bundle) -> tuple[dict[str, np.ndarray], float]:
    """A batch of one row, and the least confidence; Problem 422 names the field."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "Unusable request", f"not JSON: {error}", field="body") from error
    if not isinstance(given, dict) or not isinstance(given.get("inputs"), dict):
        raise Problem(422, "Unusable request", "expected an object", field="inputs")
    least = given.get("min_confidence", 0.0)
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise Problem(422, "Unusable request", "expected a probability", field="min_confidence")
    for name in given:
        if name not in ("inputs", "min_confidence"):
            raise Problem(422, "Unusable request", "no such field", field=name[:100])
    try:
        return read_clip(given["inputs"], bundle.metadata["modalities"], bundle.inputs), float(least)
    except FieldError as error:
        raise Problem(422, "Unusable request", error.detail, field=error.field[:100]) from error


async def answered(batcher: Batcher, row: dict[str, np.ndarray], seconds: float) -> dict[str, np.ndarray]:
    """The outputs for a row; Problem 503 where there is no room, or no answer in time."""
    try:
        future = asyncio.wrap_future(batcher.submit(row))
        return await asyncio.wait_for(future, seconds)
    except (Busy, Closed) as error:
        raise Problem(503, "Busy", str(error), headers={"Retry-After": "1"}) from error
    except TimeoutError as error:
        raise Problem(503, "Busy", f"no answer within {seconds:g} s", headers={"Retry-After": "1"}) from error


def answer_of(bundle: Bundle, row: dict, outputs: dict, least: float) -> dict:
    """The JSON of an answer: the fields of `predictor.Prediction` that a clip without a file has."""
    probabilities = outputs["probabilities"][0]
    best = int(np.argmax(probabilities))
    weights = outputs.get("modality_weights")
    voice, face = (None, None) if weights is None else map(float, weights[0])
    confidence = float(probabilities[best])
    return {
        "label": bundle.classes[best] if confidence >= least else UNKNOWN,
        "confidence": confidence,
        "probabilities": {k: float(p) for k, p in zip(bundle.classes, probabilities, strict=True)},
        "voice_weight": voice,
        "face_weight": face,
        "audio_ok": any(row[name].any() for name in ("audio_mask", "audio_features_mask") if name in row),
        "video_ok": bool("face_mask" in row and row["face_mask"].any()),
    }


def about(bundle: Bundle) -> dict:
    """What `/v1/model` tells: no path of this machine."""
    told = ("classes", "modalities", "window", "settings", "corpus", "protocol", "training_speakers")
    more = ("temperature", "intended_use", "limits", "created", "versions")
    found = {name: bundle.metadata[name] for name in (*told, *more) if name in bundle.metadata}
    shapes = {name: {"shape": list(s), "dtype": str(d)} for name, (s, d) in bundle.inputs.items()}
    return found | {"name": bundle.metadata.get("config", {}).get("name", ""), "inputs": shapes}


def body_of(bundle: Bundle) -> dict:
    """The request body of `/v1/predict` for the OpenAPI document."""
    array = {
        "oneOf": [
            {"type": "array", "items": {}},
            {
                "type": "object",
                "required": ["shape", "data"],
                "properties": {
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "string", "contentEncoding": "base64"},
                },
            },
        ]
    }
    used = bundle.metadata["modalities"]
    names = readable(used, bundle.inputs) + (["face_mask"] if "face" in used else [])
    inputs = {
        name: array | {"description": f"up to {list(bundle.inputs[name][0])}, {bundle.inputs[name][1]}"}
        for name in names
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {"type": "object", "additionalProperties": False, "properties": inputs},
            "min_confidence": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        },
    }
    (_, *rest), dtype = bundle.inputs[names[0]]
    data = base64.b64encode(np.zeros((1, *rest), dtype).tobytes()).decode()
    example = {"inputs": {names[0]: {"shape": [1, *rest], "data": data}}, "min_confidence": 0.5}
    content = {"schema": schema, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
