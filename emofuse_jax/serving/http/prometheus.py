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
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """The counters of one server."""

    def __init__(self):
        self._registry = CollectorRegistry()
        named = {"registry": self._registry}
        self._requests = Counter("emofuse_requests", "Requests answered.", ["route", "status"], **named)
        self._times = Histogram(
            "emofuse_request_seconds", "Until the answer.", ["route"], buckets=SECONDS, **named
        )
        self._rows = Counter("emofuse_clips", "Clips answered.", **named)
        self._batches = Histogram(
            "emofuse_batch_seconds", "Of one batch.", ["bucket"], buckets=SECONDS, **named
        )

        self._sessions = Gauge("emofuse_live_sessions", "Live sessions that are open.", **named)
        self._windows = Counter("emofuse_live_windows", "Windows of live sessions.", ["outcome"], **named)

    def session(self) -> contextlib.AbstractContextManager[None]:
        """Counts a live session while it lasts."""
        return self._sessions.track_inprogress()

    def window(self, outcome: str) -> None:
        """Counts a window of a live session: answered, refused, or late."""
        self._windows.labels(outcome).inc()

    def waits(self, depth: Callable[[], int]) -> None:
        """`depth` tells how many clips wait."""
        gauge = Gauge("emofuse_clips_waiting", "Clips that wait for a batch.", registry=self._registry)
        gauge.set_function(depth)

    def joins(self, most: Callable[[], int]) -> None:
        """`most` tells how many clips of several callers are joined."""
        gauge = Gauge(
            "emofuse_clips_joined_most", "Clips of several callers in a batch.", registry=self._registry
        )
        gauge.set_function(most)

    def batch(self, rows: int, bucket: int, seconds: float) -> None:
        """Counts a batch."""
        self._rows.inc(rows)
        self._batches.labels(bucket).observe(seconds)

    @contextlib.contextmanager
    def request(self, path: str) -> Iterator[Callable[[int], None]]:
        """Times a request; what it gives is told the status."""
        route, began = path if path in ROUTES else "other", time.monotonic()
        yield lambda status: self._requests.labels(route, status).inc()
        self._times.labels(route).observe(time.monotonic() - began)

    def text(self) -> tuple[bytes, int, None, str]:
        """Body, status, headers and media type of a response."""
        return generate_latest(self._registry), 200, None, CONTENT_TYPE_LATEST
