"""Prometheus metrics of a server: requests, times, batches and queue length."""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

ROUTES = ("/", "/v1/predict", "/v1/predict/stream", "/v1/model", "/healthz", "/readyz", "/metrics")
"""Paths that are counted separately; all others are counted as `other`."""
TIME_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the histogram bins, in seconds."""


class ServerMetrics:
    """Metrics of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._request_counter = Counter(
            "emofuse_requests", "Requests with a response.", ["route", "status"], registry=registry
        )
        self._request_times = Histogram(
            "emofuse_request_seconds",
            "Seconds from a request to its response.",
            ["route"],
            buckets=TIME_BUCKETS_SECONDS,
            registry=registry,
        )
        self._clip_counter = Counter("emofuse_clips", "Predicted clips.", registry=registry)
        self._batch_times = Histogram(
            "emofuse_batch_seconds",
            "Seconds of one batch.",
            ["bucket"],
            buckets=TIME_BUCKETS_SECONDS,
            registry=registry,
        )

        self._session_gauge = Gauge("emofuse_live_sessions", "Open live sessions.", registry=registry)
        self._window_counter = Counter(
            "emofuse_live_windows", "Windows of live sessions, by outcome.", ["outcome"], registry=registry
        )

    def track_session(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context manager that counts a live session as open until its block ends."""
        return self._session_gauge.track_inprogress()

    def count_window(self, outcome: str) -> None:
        """Counts a window of a live session by its `outcome`.

        It is `answered` if the window got a prediction, `refused` if it got an error instead, and `late` if
        it was skipped because too many windows were waiting.
        """
        self._window_counter.labels(outcome).inc()

    def watch_waiting_clips(self, get_depth: Callable[[], int]) -> None:
        """Adds a gauge of the number of clips in the queue; each `render` calls `get_depth` for it.

        Raises ValueError if the gauge exists already.
        """
        gauge = Gauge("emofuse_clips_waiting", "Clips in the queue.", registry=self._registry)
        gauge.set_function(get_depth)

    def watch_join_limit(self, get_limit: Callable[[], int]) -> None:
        """Adds a gauge of the maximum number of clips in a joined batch; each `render` calls `get_limit`.

        Raises ValueError if the gauge exists already.
        """
        gauge = Gauge(
            "emofuse_clips_joined_most",
            "Maximum number of clips of several callers in a batch.",
            registry=self._registry,
        )
        gauge.set_function(get_limit)

    def record_batch(self, num_rows: int, batch_size: int, seconds: float) -> None:
        """Records a batch: counts its `num_rows` clips, and its `seconds` among batches of `batch_size`."""
        self._clip_counter.inc(num_rows)
        self._batch_times.labels(batch_size).observe(seconds)

    @contextlib.contextmanager
    def track_request(self, path: str) -> Iterator[Callable[[int], None]]:
        """Measures the time of one request, and yields a function that counts its status code.

        The request and its time are counted for `path` if that is one of ROUTES (`/` and the routes of HTTP
        requests), otherwise for `other`. If the block raises, no time is recorded, and the error passes
        through.
        """
        route, start_time = path if path in ROUTES else "other", time.monotonic()
        yield lambda status: self._request_counter.labels(route, status).inc()
        self._request_times.labels(route).observe(time.monotonic() - start_time)

    def render(self) -> tuple[bytes, int, None, str]:
        """Returns the response to /metrics: body, status 200, None for the headers, and media type."""
        return generate_latest(self._registry), 200, None, CONTENT_TYPE_LATEST
