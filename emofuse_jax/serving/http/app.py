"""HTTP application of a bundle: routes, authorization, and start and stop of the service.

Clips of several callers share a batch, and requests beyond the queue limits get status 503. Every error is a
problem document (RFC 9457) that names the field. Uploaded data is deleted after use.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping

import numpy as np
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import ClientDisconnect

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.http import media_requests
from emofuse_jax.serving.http.batching import Batcher
from emofuse_jax.serving.http.body_limit import BodyLimitMiddleware
from emofuse_jax.serving.http.json_arrays import FieldError, read_clip
from emofuse_jax.serving.http.live_session import run_session
from emofuse_jax.serving.http.openapi import describe_request_bodies, describe_upload
from emofuse_jax.serving.http.page import PAGE_ROUTES, add_page
from emofuse_jax.serving.http.problems import Problem, invalid_field, server_busy, status_response
from emofuse_jax.serving.http.prometheus import ServerMetrics
from emofuse_jax.serving.http.service import DEFAULT_LIMITS, Limits, Service, run_model
from emofuse_jax.serving.http.uploads import uploads_folder
from emofuse_jax.serving.media.decoder_pool import DecoderPool, run_decoder_job
from emofuse_jax.serving.media.prepare_window import prep_requirements
from emofuse_jax.serving.predictions import apply_min_confidence, is_probability, make_prediction

CLIENT_CLOSED_REQUEST = 499
"""Status that proxies use for a request whose caller disconnected; it appears only in the metrics."""
PUBLIC_PATHS = ("/healthz", "/readyz", *PAGE_ROUTES)
"""Paths that need no token: load balancers have none, and the page prompts for it after loading."""


def make_app(bundle: Bundle, *, token: str = "", limits: Limits = DEFAULT_LIMITS) -> FastAPI:
    """Returns the ASGI application that serves one bundle.

    Its routes are /v1/predict, /v1/predict/stream, /v1/live (WebSocket), /v1/model, /healthz, /readyz,
    /metrics, and / for the web page. Errors of requests become responses with a problem document (JSON with
    `title`, `status` and `detail`, and `field` if a field is invalid). When the application starts, it raises
    ValueError if the preparation settings in bundle.json are invalid, the bundle was trained on arrays, or
    this application was started before, and OSError if the directory for uploads or a decoder process cannot
    be created.

    Args:
      bundle: the loaded bundle.
      token: token that callers must send as `Authorization: Bearer ...`; "" disables the check.
      limits: limits for callers (the class Limits has the defaults): `max_body_bytes`, `max_media_seconds` of
        a file, `max_frame_pixels`, `max_frame_rate` (per second), `max_sessions`, `max_waiting_clips` and
        `max_waiting_files`; seconds until a request fails: `upload_timeout_seconds`, `decode_timeout_seconds`
        (one window) and `predict_timeout_seconds` (one clip); and `num_decoders` (processes) and
        `batch_sizes` (ascending).

    Raises:
      jinja2.TemplateNotFound: the installation lacks page.html.
    """
    server_metrics = ServerMetrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with start_service(bundle, limits, server_metrics) as app.state.service:
            yield

    app = FastAPI(
        title="emofuse",
        summary=f"Emotion recognition, trained on {bundle.metadata['corpus']}",
        lifespan=lifespan,
        docs_url=None,  # those pages of FastAPI load scripts from the network
        redoc_url=None,
    )
    app.add_exception_handler(Problem, lambda request, problem: problem.response())
    app.add_exception_handler(
        HTTPException, lambda request, error: status_response(error.status_code, error.headers)
    )
    app.add_exception_handler(
        ClientDisconnect, lambda request, error: Response(status_code=CLIENT_CLOSED_REQUEST)
    )
    app.add_exception_handler(Exception, lambda request, error: status_response(500))
    app.add_middleware(
        BodyLimitMiddleware, max_bytes=limits.max_body_bytes, timeout_seconds=limits.upload_timeout_seconds
    )

    @app.middleware("http")
    async def authorize_and_count(request: Request, call_next: RequestResponseEndpoint) -> Response:
        with server_metrics.track_request(request.url.path) as record_status:
            try:
                check_token(request, token)
                response = await call_next(request)
            except Problem as problem:
                response = problem.response()
            record_status(response.status_code)
        return response

    add_status_routes(app, bundle, server_metrics)
    add_predict_routes(app, bundle)
    add_page(app, bundle, token=bool(token))

    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await run_session(socket, app.state.service, token)

    return app


@contextlib.contextmanager
def start_service(bundle: Bundle, limits: Limits, server_metrics: ServerMetrics) -> Iterator[Service]:
    """Starts the batcher and the decoder processes, and yields the Service that the routes use.

    The Service has `bundle`, `limits`, `batcher` (runs the model), `decoders` (a DecoderPool), `executor`
    (threads that wait for decoders), `upload_dir` (path), `ready` (threading.Event), `session_slots`
    (asyncio.Semaphore, one slot for each possible live session) and `metrics` (the `server_metrics`). The
    model compiles in the background; `ready` is set when that is done. If it fails, the error is printed, and
    `ready` is never set, so that predictions get status 503. On exit, waiting clips are still predicted,
    decoder processes are killed, and uploads are deleted.

    Args:
      bundle: the loaded bundle.
      limits: limits for callers.
      server_metrics: metrics of the server.

    Raises:
      ValueError: the preparation settings in bundle.json are invalid, the bundle was trained on arrays, or
        `server_metrics` belong to another service already.
      OSError: the directory for uploads or a decoder process cannot be created.
    """
    batcher = Batcher(
        bundle.run,
        bundle.inputs,
        batch_sizes=limits.batch_sizes,
        max_waiting_rows=limits.max_waiting_clips,
        on_batch=server_metrics.record_batch,
    )
    server_metrics.watch_waiting_clips(batcher.count_waiting_rows)
    server_metrics.watch_join_limit(lambda: batcher.max_joined_rows)
    ready = threading.Event()

    decoders = DecoderPool(
        functools.partial(run_decoder_job, prep_requirements(bundle)),
        workers=limits.num_decoders,
        timeout_seconds=limits.decode_timeout_seconds,
        max_waiting=limits.max_waiting_files,
    )

    def warm_up() -> None:
        batcher.start()
        decoders.warm_up()
        ready.set()

    warm_up_thread = threading.Thread(target=warm_up, name="warming")
    executor = concurrent.futures.ThreadPoolExecutor(limits.num_decoders + limits.max_waiting_files + 1)
    warm_up_thread.start()
    try:
        with uploads_folder() as upload_dir:
            session_slots = asyncio.Semaphore(limits.max_sessions)
            yield Service(
                bundle, limits, batcher, decoders, executor, upload_dir, ready, session_slots, server_metrics
            )
    finally:
        ready.clear()
        decoders.close()
        warm_up_thread.join()
        executor.shutdown(wait=False, cancel_futures=True)
        batcher.close()


def add_status_routes(app: FastAPI, bundle: Bundle, server_metrics: ServerMetrics) -> None:
    """Adds the GET routes /healthz, /readyz, /metrics and /v1/model to `app`.

    /healthz returns {"status": "ok"}. /readyz returns {"status": "ready"} if `app.state.service` is ready,
    otherwise status 503. /metrics returns the `server_metrics` in the text format of Prometheus, /v1/model
    the classes, inputs and other properties of `bundle` as JSON.
    """

    @app.get("/healthz")
    async def healthz() -> dict[str, object]:
        """Returns {"status": "ok"} as long as the server runs."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, object]:
        """Returns {"status": "ready"} if the model and the face detector are compiled, otherwise 503."""
        if not app.state.service.ready.is_set():
            raise server_busy(
                "the model is still compiling, or the server is stopping; try again later",
                retry_after_seconds=5,
            )
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Returns the metrics in the text format of Prometheus."""
        return Response(*server_metrics.render())

    @app.get("/v1/model")
    async def model() -> dict[str, object]:
        """Returns the description of the model: classes, inputs, window, training corpus, limits."""
        return describe_model(bundle)


def add_predict_routes(app: FastAPI, bundle: Bundle) -> None:
    """Adds the POST routes /v1/predict and /v1/predict/stream to `app`; they use `app.state.service`.

    /v1/predict takes one clip as JSON, {"inputs": arrays by name, "min_confidence": number}, and returns its
    prediction as JSON; or it takes a form with the media file `file` and returns {"seconds", "windows"}: the
    duration of the file and the list of the predictions of all windows. /v1/predict/stream takes the same
    form and sends each prediction as a server-sent event. Errors are problem documents of status 400
    (malformed form), 401, 408, 413, 415, 422, 503, or 500 for any other error.
    """

    @app.post("/v1/predict", openapi_extra=describe_request_bodies(bundle))
    async def predict(request: Request) -> dict[str, object]:
        """Returns the prediction for one clip sent as arrays, or for every window of a media file.

        The prediction of a clip has the fields label, confidence, probabilities, voice_weight, face_weight,
        audio_ok and video_ok. For a file, the response is {"seconds", "windows"}, with a list of predictions
        that also have start and end, or an error. An error of the request has status 400, 401, 408, 413, 415,
        422 or 503.
        """
        service: Service = app.state.service
        if content_type(request) == "multipart/form-data":
            async with media_requests.receive_upload(request, service.upload_dir) as (path, options):
                duration_seconds = (await media_requests.probe_upload(service, path)).duration_seconds
                predictions = [
                    prediction_fields
                    async for prediction_fields in media_requests.stream_predictions(
                        service, path, duration_seconds, options
                    )
                ]
            if all("error" in prediction_fields for prediction_fields in predictions):
                raise invalid_field(
                    "file", f"no window has a prediction: {predictions[0]['error']}; send another file"
                )
            return {"seconds": round(duration_seconds, 3), "windows": predictions}
        if content_type(request) != "application/json":
            raise unsupported_body(request, "application/json or multipart/form-data")
        row, min_confidence = await run_in_threadpool(parse_clip_request, await request.body(), bundle)
        return make_clip_response(bundle, row, await run_model(service, row), min_confidence)

    @app.post("/v1/predict/stream", openapi_extra={"requestBody": {"content": describe_upload()}})
    async def stream(request: Request) -> StreamingResponse:
        """Streams the prediction for each window of a media file as a server-sent event.

        An error before the first event has status 400, 401, 408, 413, 415, 422 or 503.
        """
        service: Service = app.state.service
        if content_type(request) != "multipart/form-data":
            raise unsupported_body(request, "multipart/form-data")
        stack = contextlib.AsyncExitStack()
        path, options = await stack.enter_async_context(
            media_requests.receive_upload(request, service.upload_dir)
        )
        try:
            duration_seconds = (await media_requests.probe_upload(service, path)).duration_seconds
        except BaseException:
            await stack.aclose()
            raise

        async def events() -> AsyncIterator[str]:
            async with stack:
                async for event in media_requests.stream_events(service, path, duration_seconds, options):
                    yield event

        return StreamingResponse(events(), media_type="text/event-stream")


def content_type(request: Request) -> str:
    """Returns the content type of a request in lower case, without parameters; "" if there is none."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def unsupported_body(request: Request, expected: str) -> Problem:
    """Returns the error with status 415 for a body of a wrong content type; the caller raises it.

    `expected` is a text that names the right ones, for the message.
    """
    detail = f"content type {content_type(request)[:100]!r}: expected {expected}"
    return Problem(415, "Unsupported media type", detail)


def check_token(request: Request, token: str) -> None:
    """Raises Problem 401 if the path needs a token and the request has none or a wrong one.

    No path needs one if `token` is empty; /healthz, /readyz and the files of the page (PUBLIC_PATHS) never
    do. The comparison takes constant time.
    """
    if not token or request.url.path in PUBLIC_PATHS:
        return
    authorization = request.headers.get("authorization", "").encode()
    if not hmac.compare_digest(authorization, f"Bearer {token}".encode()):
        raise Problem(
            401,
            "Unauthorized",
            "missing or wrong token; send the header Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )


def parse_clip_request(body: bytes, bundle: Bundle) -> tuple[dict[str, np.ndarray], float]:
    """Returns the input arrays of one clip by name (a batch of one row), and the minimum confidence.

    The arrays are [1 ...] with masks, one for each name in `bundle.inputs`. The minimum confidence is 0 if it
    is missing.

    Args:
      body: JSON body of the request, {"inputs": arrays by name, "min_confidence": number from 0 to 1}. An
        array is a nested list, or {"shape", "data"} with the base64 of its little-endian values. The names
        are `audio`, `audio_features`, `faces` or `face_features`, if the model reads them, and `face_mask`.
      bundle: the loaded bundle.

    Raises:
      Problem: status 422 if the body is not JSON or a field is missing, unknown or invalid; names the field.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_field("body", f"not JSON: {error}; send an object with the field inputs") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("inputs"), dict):
        raise invalid_field("inputs", "expected an object of arrays by name")
    min_confidence = fields.get("min_confidence", 0.0)
    if not is_probability(min_confidence):
        raise invalid_field("min_confidence", "expected a number from 0 to 1")
    for name in fields:
        if name not in ("inputs", "min_confidence"):
            raise invalid_field(name[:100], "unknown field; expected inputs or min_confidence")
    try:
        return read_clip(fields["inputs"], bundle.metadata["modalities"], bundle.inputs), float(
            min_confidence
        )
    except FieldError as error:
        raise invalid_field(error.field[:100], error.detail) from error


def make_clip_response(
    bundle: Bundle,
    row: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    min_confidence: float,
) -> dict[str, object]:
    """Returns the JSON of a prediction for a clip sent as arrays.

    The keys are `label` (the most probable class), `confidence` (its probability), `probabilities` (by class
    name), `voice_weight` and `face_weight` (None if the model has none), `audio_ok` (the clip has audio) and
    `video_ok` (the clip has a valid face).

    Args:
      bundle: the loaded bundle.
      row: input arrays of the clip (a batch of one row).
      outputs: outputs of the bundle for this batch, arrays [1 ...] by name.
      min_confidence: a prediction with a lower confidence gets the label `unknown`.

    Raises:
      ValueError: the number of probabilities is not that of the classes, or there are not two modality
        weights.
    """
    has_audio = any(row[name].any() for name in ("audio_mask", "audio_features_mask") if name in row)
    has_faces = bool("face_mask" in row and row["face_mask"].any())
    clip_outputs = {name: array[0] for name, array in outputs.items()}
    fields = apply_min_confidence(
        make_prediction(bundle.classes, clip_outputs, audio_ok=has_audio, video_ok=has_faces), min_confidence
    ).to_json()
    return {name: value for name, value in fields.items() if name not in ("path", "start", "end")}


def describe_model(bundle: Bundle) -> dict[str, object]:
    """Returns the JSON of `/v1/model`, without any path of the server.

    The keys are `name` (of the config, may be empty), `inputs` ({"shape" without the batch axis, "dtype"} by
    name), and these fields of bundle.json: `classes`, `modalities`, `window`, `settings`, `corpus`,
    `protocol`, `training_speakers`, `temperature`, `intended_use`, `limits` (text on limitations), `created`
    and `versions`; a field that bundle.json lacks is missing.
    """
    field_names = ("classes", "modalities", "window", "settings", "corpus", "protocol", "training_speakers")
    optional_field_names = ("temperature", "intended_use", "limits", "created", "versions")
    metadata: Mapping[str, object] = bundle.metadata
    fields = {name: metadata[name] for name in (*field_names, *optional_field_names) if name in metadata}
    shapes = {name: {"shape": list(s), "dtype": str(d)} for name, (s, d) in bundle.inputs.items()}
    return fields | {"name": bundle.metadata.get("config", {}).get("name", ""), "inputs": shapes}
