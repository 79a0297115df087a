"""Limits the size and the duration of request bodies, wherever they are read."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emofuse_jax.serving.http.problems import Problem


class BodyLimitMiddleware:
    """ASGI middleware that rejects request bodies that are too large or too slow.

    A body with a too large content length gets status 413 at once. Otherwise the application gets Problem 413
    or 408 from the read that exceeds a limit.

    Args:
      app: the wrapped application.
      max_bytes: maximum size of a body in bytes.
      timeout_seconds: time limit for receiving a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_seconds: float) -> None:
        self.app, self.max_bytes, self.timeout_seconds = app, max_bytes, timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a connection to the application, whose errors pass through.

        Over HTTP, the application gets Problem 413 from the read after which the body has more than
        `max_bytes` bytes, and Problem 408 from a read that is not complete within `timeout_seconds` after the
        start of the request. If the content length is more than `max_bytes` or not a number, the response is
        status 413 at once, without the application.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        content_lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if content_lengths and (not content_lengths[0].isdigit() or int(content_lengths[0]) > self.max_bytes):
            await self._too_large_problem().response()(scope, receive, send)
            return
        await self.app(scope, self._limit_receive(receive), send)

    def _limit_receive(self, receive: Receive) -> Receive:
        """Returns a function that returns the next ASGI message of `receive` and limits the request's body.

        It raises Problem 413 if the body has more than `max_bytes` bytes, and Problem 408 if the body is not
        complete within `timeout_seconds` from now.
        """
        received_bytes, deadline, is_complete = 0, time.monotonic() + self.timeout_seconds, False

        async def receive_limited() -> Message:
            nonlocal received_bytes, is_complete
            if is_complete:  # the next message is a disconnect
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                raise Problem(
                    408,
                    "Request timeout",
                    f"the body was not complete within {self.timeout_seconds:g} s; send it faster, or"
                    " a smaller one",
                    field="body",
                ) from None
            received_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received_bytes > self.max_bytes:
                raise self._too_large_problem()
            return message

        return receive_limited

    def _too_large_problem(self) -> Problem:
        return Problem(
            413,
            "Content too large",
            f"the body is too large: expected at most {self.max_bytes} bytes",
            field="body",
        )
