"""State that the routes of a server share, and the call of the model."""

import asyncio
import concurrent.futures
import dataclasses
import threading

import numpy as np

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.errors import BusyError, ClosedError
from emofuse_jax.serving.http.batching import Batcher
from emofuse_jax.serving.http.problems import server_busy
from emofuse_jax.serving.http.prometheus import ServerMetrics
from emofuse_jax.serving.media.decoder_pool import DecoderPool
from emofuse_jax.serving.predict import BATCH_SIZES


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for the callers of a server."""

    max_body_bytes: int = 64 << 20
    """Maximum size of a request's body in bytes."""
    predict_timeout_seconds: float = 10.0
    """Seconds that a clip may wait for the model."""
    upload_timeout_seconds: float = 60.0
    """Seconds within which a request's body, or the next message of a session, must arrive."""
    decode_timeout_seconds: float = 60.0
    """Seconds that decoding one window of a file may take."""
    max_media_seconds: float = 600.0
    """Maximum duration of a media file in seconds."""
    max_frame_pixels: int = 4096 * 2304
    """Maximum number of pixels of a video frame."""
    max_frame_rate: float = 130.0
    """Maximum frame rate of a video in frames per second."""
    max_waiting_clips: int = 256
    """Maximum number of clips that wait for the model."""
    max_waiting_files: int = 16
    """Maximum number of files that wait for a decoder."""
    num_decoders: int = 1
    """Number of decoder processes."""
    max_sessions: int = 16
    """Maximum number of open live sessions."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    """Batch sizes in ascending order."""


DEFAULT_LIMITS = Limits()
"""Limits with all defaults."""


@dataclasses.dataclass(frozen=True)
class Service:
    """Running service of one bundle."""

    bundle: Bundle
    """The loaded bundle."""
    limits: Limits
    """Limits for callers."""
    batcher: Batcher
    """Runs the model."""
    decoders: DecoderPool
    """Decodes media files."""
    executor: concurrent.futures.Executor
    """Threads in which callers wait for decoders."""
    upload_dir: str
    """Directory for uploaded files, which are deleted after use."""
    ready: threading.Event
    """Set when the model is compiled; cleared when the server stops."""
    session_slots: asyncio.Semaphore
    """Semaphore with one slot for each possible live session."""
    metrics: ServerMetrics
    """Metrics of the server."""


async def run_model(service: Service, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of the model for one clip, as float32 arrays [1 ...] by name.

    `probabilities` and `logits` are [1 c] with c classes. If the model has them, there are also
    `modality_weights` [1 2] (voice, face), `audio_attention` [1 u] or [1 u g] over u positions in time and g
    in frequency, and `video_attention` [1 l] over l positions in time.

    Args:
      service: the running service.
      row: one array [1 ...] for each name in `service.bundle.inputs`, with the shape and dtype stated there,
        which is not checked.

    Raises:
      Problem: status 503 if the model is still compiling, the queue is full, the server is stopping, or there
        are no outputs within `service.limits.predict_timeout_seconds`.
      ValueError: the bundle cannot be run on this machine, or the arrays have no row or more rows than the
        largest batch.
    """
    if not service.ready.is_set():
        raise server_busy("the model is still compiling; try again later", retry_after_seconds=5)
    try:
        future = asyncio.wrap_future(service.batcher.submit(row))
        return await asyncio.wait_for(future, service.limits.predict_timeout_seconds)
    except (BusyError, ClosedError) as error:
        raise server_busy(str(error)) from error
    except TimeoutError as error:
        raise server_busy(
            f"no prediction within {service.limits.predict_timeout_seconds:g} s; try again later"
        ) from error
