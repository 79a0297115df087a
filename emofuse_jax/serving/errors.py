"""Errors that callers of a loaded bundle handle."""


class BusyError(RuntimeError):
    """The queue is full: try again later."""


class ClosedError(RuntimeError):
    """Nothing more is taken."""
