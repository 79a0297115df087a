"""Numbers of a network that are measured, not trained."""

from flax import nnx


class MeasuredState(nnx.Variable):
    """A measured number: part of the model state, not of the parameters."""
