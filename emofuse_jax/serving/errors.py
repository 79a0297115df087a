"""Errors that callers of a loaded bundle should handle."""


class BusyError(RuntimeError):
    """Raised if the queue is full; the caller should try again later."""


class ClosedError(RuntimeError):
    """Raised if a request is submitted after the queue was closed."""
