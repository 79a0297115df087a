"""Errors that callers of a loaded bundle handle."""


class Busy(RuntimeError):
    """The queue is full: try again later."""


class Closed(RuntimeError):
    """Nothing more is taken."""
