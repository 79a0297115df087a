"""Bodies of requests: cut off where they are too large or too slow, wherever they are read."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emofuse_jax.serving.http.problems import Problem


class Bounded:
    """ASGI middleware: Problem 413 or 408, raised from what reads a body.

    Args:
      app: what it wraps.
      most: bytes.
      seconds: until a body must be there.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float):
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if lengths and (not lengths[0].isdigit() or int(lengths[0]) > self.most):
            await self._too_large().response()(scope, receive, send)
            return
        await self.app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        found, until, whole = 0, time.monotonic() + self.seconds, False

        async def bounded() -> Message:
            nonlocal found, whole
            if whole:  # what comes now is that the caller left
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0.0))
            except TimeoutError:
                raise Problem(
                    408, "Request timeout", f"the body was not there after {self.seconds:g} s", field="body"
                ) from None
            found += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if found > self.most:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> Problem:
        return Problem(413, "Content too large", f"at most {self.most} bytes", field="body")
