"""What the routes of a server share, and how they get an answer from the model."""

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
    """What a caller may ask for."""

    max_body_bytes: int = 64 << 20
    """Of a request's body."""
    predict_timeout_seconds: float = 10.0
    """Until a clip that waits for the model is given up."""
    upload_timeout_seconds: float = 60.0
    """Until a body must be there."""
    decode_timeout_seconds: float = 60.0
    """For one window of a file."""
    max_media_seconds: float = 600.0
    """Of a file."""
    max_frame_pixels: int = 4096 * 2304
    """Of a frame."""
    max_frame_rate: float = 130.0
    max_waiting_clips: int = 256
    """Clips that may wait for the model."""
    max_waiting_files: int = 16
    """Files that may wait for a decoder."""
    num_decoders: int = 1
    max_sessions: int = 16
    """Live ones at once."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    """Batch sizes."""


DEFAULT_LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class Service:
    """One bundle being served."""

    bundle: Bundle
    limits: Limits
    batcher: Batcher
    decoders: DecoderPool
    executor: concurrent.futures.Executor
    """In which callers wait for decoders."""
    upload_dir: str
    """For files that are sent, each as long as it is read."""
    ready: threading.Event
    session_slots: asyncio.Semaphore
    """One for each live session that may begin."""
    metrics: ServerMetrics


async def run_model(service: Service, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs for a row; Problem 503 where there is no room, or no answer in time."""
    if not service.ready.is_set():
        raise server_busy("the model is being compiled", retry_after_seconds=5)
    try:
        future = asyncio.wrap_future(service.batcher.submit(row))
        return await asyncio.wait_for(future, service.limits.predict_timeout_seconds)
    except (BusyError, ClosedError) as error:
        raise server_busy(str(error)) from error
    except TimeoutError as error:
        raise server_busy(f"no answer within {service.limits.predict_timeout_seconds:g} s") from error
