"""What a server tells Prometheus: requests, times, batches, and how many wait."""

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
TIME_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ServerMetrics:
    """The counters of one server."""

    def __init__(self):
        self._registry = CollectorRegistry()
        registry_option = {"registry": self._registry}
        self._request_counter = Counter(
            "emofuse_requests", "Requests answered.", ["route", "status"], **registry_option
        )
        self._request_times = Histogram(
            "emofuse_request_seconds",
            "Until the answer.",
            ["route"],
            buckets=TIME_BUCKETS_SECONDS,
            **registry_option,
        )
        self._clip_counter = Counter("emofuse_clips", "Clips answered.", **registry_option)
        self._batch_times = Histogram(
            "emofuse_batch_seconds",
            "Of one batch.",
            ["bucket"],
            buckets=TIME_BUCKETS_SECONDS,
            **registry_option,
        )

        self._session_gauge = Gauge(
            "emofuse_live_sessions", "Live sessions that are open.", **registry_option
        )
        self._window_counter = Counter(
            "emofuse_live_windows", "Windows of live sessions.", ["outcome"], **registry_option
        )

    def track_session(self) -> contextlib.AbstractContextManager[None]:
        """Counts a live session while it lasts."""
        return self._session_gauge.track_inprogress()

    def count_window(self, outcome: str) -> None:
        """Counts a window of a live session: answered, refused, or late."""
        self._window_counter.labels(outcome).inc()

    def watch_waiting_clips(self, get_depth: Callable[[], int]) -> None:
        """`get_depth` tells how many clips wait."""
        gauge = Gauge("emofuse_clips_waiting", "Clips that wait for a batch.", registry=self._registry)
        gauge.set_function(get_depth)

    def watch_join_limit(self, get_limit: Callable[[], int]) -> None:
        """`get_limit` tells how many clips of several callers are joined."""
        gauge = Gauge(
            "emofuse_clips_joined_most", "Clips of several callers in a batch.", registry=self._registry
        )
        gauge.set_function(get_limit)

    def record_batch(self, num_rows: int, batch_size: int, seconds: float) -> None:
        """Counts a batch."""
        self._clip_counter.inc(num_rows)
        self._batch_times.labels(batch_size).observe(seconds)

    @contextlib.contextmanager
    def track_request(self, path: str) -> Iterator[Callable[[int], None]]:
        """Times a request; what it gives is told the status."""
        route, start_time = path if path in ROUTES else "other", time.monotonic()
        yield lambda status: self._request_counter.labels(route, status).inc()
        self._request_times.labels(route).observe(time.monotonic() - start_time)

    def render(self) -> tuple[bytes, int, None, str]:
        """Body, status, headers and media type of a response."""
        return generate_latest(self._registry), 200, None, CONTENT_TYPE_LATEST
