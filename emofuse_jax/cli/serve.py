"""Serves the predictions of a bundle over HTTP.

    emofuse serve --bundle=runs/demo/bundle --port=8000

/ is a web page that shows the predictions for a clip or the webcam over time.
POST /v1/predict takes a media file (multipart form: `file`, and optionally `min_confidence`, `person`,
`details`) and returns a prediction for each window. Alternatively it takes one clip as JSON: {"inputs":
{"audio": .., "faces": ..}, "min_confidence": 0.5}, with arrays as nested lists or as {"shape": [..], "data":
base64 of little-endian bytes}.
POST /v1/predict/stream sends the prediction for each window as a server-sent event when it is available.
WS /v1/live takes audio and video frames in real time.
GET /v1/model returns the shapes of the inputs, /metrics is for Prometheus, /openapi.json describes the
routes.

Clips of several callers share batches of fixed sizes, which are compiled before /readyz returns 200. If too
many clips are waiting, the response is 503 with Retry-After. Files are decoded in separate processes and
deleted after prediction. After SIGTERM, running requests are completed before the server ends.

The server listens only on this machine unless --host is set. If the environment variable EMOFUSE_TOKEN is
set, callers must send it as a bearer token. Uploaded data is not stored.
"""

import os
from collections.abc import Sequence

from absl import flags

from emofuse_jax.cli import bundle_flags

BUNDLE = flags.DEFINE_string("bundle", None, "Bundle directory, written by emofuse export.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all interfaces.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen on; 0: any free port.", lower_bound=0)
MAX_WAITING_CLIPS = flags.DEFINE_integer("waiting", 256, "Maximum number of waiting clips.", lower_bound=1)
REQUEST_TIMEOUT_SECONDS = flags.DEFINE_float(
    "seconds", 10.0, "Maximum time that a clip waits for the model, in seconds.", lower_bound=0.0
)
UPLOAD_TIMEOUT_SECONDS = flags.DEFINE_float(
    "upload_seconds", 60.0, "Time limit for receiving a request body, in seconds.", lower_bound=0.0
)
BATCH_SIZES = flags.DEFINE_list(
    "buckets", ["1", "2", "4", "8", "16", "32"], "Batch sizes in ascending order."
)
DECODER_PROCESSES = flags.DEFINE_integer(
    "decoders", None, "Number of decoding processes; default: number of cores.", lower_bound=1
)
MAX_MEDIA_SECONDS = flags.DEFINE_float(
    "media_seconds", 600.0, "Maximum duration of a media file in seconds.", lower_bound=0.0
)
MAX_BODY_MEGABYTES = flags.DEFINE_integer(
    "megabytes", 64, "Maximum size of a request body in MiB.", lower_bound=1
)
flags.adopt_module_key_flags(bundle_flags)


def main(argv: Sequence[str]) -> None:
    """Serves predictions over HTTP, on --host and --port, until the process is stopped.

    The routes are / (a web page), /v1/predict, /v1/predict/stream, /v1/live (WebSocket), /v1/model, /healthz,
    /readyz, /metrics and /openapi.json. `argv` has the name of the program and the words that are no flags;
    none are allowed.

    Raises:
      ValueError: --bundle is missing, there is a word without a flag, a batch size is not a number, a
        required package is not installed, the bundle is damaged, the engine is not available, or an encoder
        file is missing or another one.
      OSError: bundle.json cannot be read.
      OverflowError: --port is above 65535.
      SystemExit: status 3: the port is in use, or the bundle cannot prepare media files.
    """
    if argv[1:] or BUNDLE.value is None:
        raise ValueError("expected --bundle=DIR and no words without a flag; see emofuse serve --help")
    from data_prep.optional_dependencies import require_media, require_server

    require_media()
    require_server()
    import uvicorn

    from emofuse_jax.serving.http.app import make_app
    from emofuse_jax.serving.http.service import Limits
    from emofuse_jax.utils.system import available_cores

    bundle = bundle_flags.load_bundle(BUNDLE.value)
    limits = Limits(
        max_body_bytes=MAX_BODY_MEGABYTES.value << 20,
        predict_timeout_seconds=REQUEST_TIMEOUT_SECONDS.value,
        upload_timeout_seconds=UPLOAD_TIMEOUT_SECONDS.value,
        max_waiting_clips=MAX_WAITING_CLIPS.value,
        max_media_seconds=MAX_MEDIA_SECONDS.value,
        num_decoders=DECODER_PROCESSES.value or available_cores(),
        batch_sizes=tuple(map(int, BATCH_SIZES.value)),
    )
    app = make_app(bundle, token=os.environ.get("EMOFUSE_TOKEN", ""), limits=limits)
    shutdown_timeout_seconds = int(REQUEST_TIMEOUT_SECONDS.value) + 5
    uvicorn.run(
        app,
        host=HOST.value,
        port=PORT.value,
        timeout_graceful_shutdown=shutdown_timeout_seconds,
        ws_max_size=1 << 21,
    )
