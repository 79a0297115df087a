"""Switches the shape checks of jaxtyping off, as they are for users."""

import contextlib
from collections.abc import Iterator

import jaxtyping


@contextlib.contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Checks no shapes inside the block; the batch size of an export is a symbol, which they can't take."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
