"""Numbers of a fusion that are set from the validation clips at an epoch's end, not trained."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from emofuse_jax.scoring.predict import Predictions
from emofuse_jax.types import TrainState


def calibrated(state: TrainState, hook: Callable, validation: Predictions) -> TrainState:
    """The state with the fusion's own part set by `hook` from the answers for the validation clips.

    Every process has all answers and computes the same numbers, laid out as those before. Raises ValueError
    as `fitted` does.
    """
    before = state.model_state["fusion"]
    after = fitted(jax.tree.map(np.asarray, before), hook, validation.levels, validation.labels)
    placed = jax.tree.map(lambda new, old: jax.device_put(np.asarray(new), old.sharding), after, before)
    return dataclasses.replace(state, model_state=state.model_state | {"fusion": placed})


def fitted(
    before: PyTree, hook: Callable, levels: Float[np.ndarray, "n m c"] | None, labels: Int[np.ndarray, " n"]
) -> PyTree:
    """The fusion's part of the model state as `hook` sets it from the levels' posteriors.

    Raises ValueError where the fusion gives no `level_logits`, or the hook gives arrays of other names,
    shapes or dtypes.
    """
    if levels is None:
        raise ValueError("fusion: calibrate needs level_logits and level_mask in aux")
    after = hook(before, levels, labels)
    if _shapes(after) != _shapes(before):
        raise ValueError(f"fusion: calibrate gave {_shapes(after)}, expected {_shapes(before)}")
    return after


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
