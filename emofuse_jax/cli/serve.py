"""Serves a bundle over HTTP.

    emofuse serve --bundle=runs/demo/bundle --port=8000

A page is at /: a clip or the webcam, and its answers over time. POST /v1/predict takes a media file
(multipart, field `file`, and `min_confidence`, `person`, `details`) and answers for each of its windows;
/v1/predict/stream sends each as an event as soon as it is known. Or it takes one clip as JSON: {"inputs":
{"audio": .., "faces": ..}, "min_confidence": 0.5}, arrays as nested lists or as {"shape": [..], "data":
base64 of little-endian bytes}; GET /v1/model tells their shapes. WS /v1/live takes sound and pictures as
they come. Callers share batches of fixed sizes, compiled before /readyz says yes; when too many wait the
answer is 503 with Retry-After. Files are decoded in processes of their own, and removed. /metrics is for
Prometheus, /openapi.json describes the routes. SIGTERM: what has begun is answered, then the server ends.
Listens to this machine alone unless --host says otherwise; EMOFUSE_TOKEN asks callers for a bearer token.
Nothing that is sent is kept.
"""

import os
from collections.abc import Sequence

from absl import flags

BUNDLE = flags.DEFINE_string("bundle", None, "Bundle directory, written by emofuse export.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen to.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen to; 0: any free one.", lower_bound=0)
MAX_WAITING_CLIPS = flags.DEFINE_integer("waiting", 256, "Clips that may wait.", lower_bound=1)
REQUEST_TIMEOUT_SECONDS = flags.DEFINE_float(
    "seconds", 10.0, "Until a request that waits is given up.", lower_bound=0.0
)
UPLOAD_TIMEOUT_SECONDS = flags.DEFINE_float(
    "upload_seconds", 60.0, "Until a body must be there.", lower_bound=0.0
)
BATCH_SIZES = flags.DEFINE_list("buckets", ["1", "2", "4", "8", "16", "32"], "Batch sizes, rising.")
DECODER_PROCESSES = flags.DEFINE_integer(
    "decoders", None, "Processes that decode; by default the cores.", lower_bound=1
)
MAX_MEDIA_SECONDS = flags.DEFINE_float("media_seconds", 600.0, "Longest file.", lower_bound=0.0)
MAX_BODY_MEGABYTES = flags.DEFINE_integer("megabytes", 64, "Largest body of a request.", lower_bound=1)
ENGINE = flags.DEFINE_enum("engine", "auto", ["auto", "jax", "onnx"], "What computes the answers.")
AUDIO_ENCODER = flags.DEFINE_string(
    "audio_encoder", "", "ONNX file that the bundle names but does not carry."
)
FACE_ENCODER = flags.DEFINE_string("face_encoder", "", "ONNX file that the bundle names but does not carry.")
FACE_DETECTOR = flags.DEFINE_string(
    "face_detector", "", "ONNX file that the bundle names but does not carry."
)


def main(argv: Sequence[str]) -> None:
    """Serves until it is told to stop."""
    if argv[1:] or BUNDLE.value is None:
        raise ValueError("--bundle=DIR is needed; see emofuse serve --help")
    from data_prep.optional_dependencies import require_media, require_server

    require_media()
    require_server()
    import uvicorn

    from emofuse_jax.serving import load
    from emofuse_jax.serving.http.app import make_app
    from emofuse_jax.serving.http.service import Limits
    from emofuse_jax.serving.media.prepare_window import check_encoders
    from emofuse_jax.utils.system import available_cores

    encoder_files = {
        "audio_encoder": AUDIO_ENCODER.value,
        "face_encoder": FACE_ENCODER.value,
        "face_detector": FACE_DETECTOR.value,
    }
    bundle = load(BUNDLE.value, **encoder_files, engine=ENGINE.value)
    check_encoders(bundle)
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
