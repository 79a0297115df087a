"""Variables of a network that are measured, not trained."""

from flax import nnx
from jaxtyping import Array


class MeasuredState(nnx.Variable[Array]):
    """Measured variable: part of the model state, not of the trained parameters."""
