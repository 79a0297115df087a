"""Numbers of a fusion that are set from the validation clips at an epoch's end, not trained."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from emofuse_jax.scoring.predict import Predictions
from emofuse_jax.types import TrainState


def update_fusion_state(state: TrainState, calibrate: Callable, predictions: Predictions) -> TrainState:
    """The state with the fusion's own part set by `calibrate` from the answers for the validation clips.

    Every process has all answers and computes the same numbers, laid out as those before. Raises ValueError
    as `compute_fusion_state` does.
    """
    old_fusion_state = state.model_state["fusion"]
    new_fusion_state = compute_fusion_state(
        jax.tree.map(np.asarray, old_fusion_state), calibrate, predictions.levels, predictions.labels
    )
    sharded_fusion_state = jax.tree.map(
        lambda new, old: jax.device_put(np.asarray(new), old.sharding), new_fusion_state, old_fusion_state
    )
    return dataclasses.replace(state, model_state=state.model_state | {"fusion": sharded_fusion_state})


def compute_fusion_state(
    old_fusion_state: PyTree,
    calibrate: Callable,
    levels: Float[np.ndarray, "n m c"] | None,
    labels: Int[np.ndarray, " n"],
) -> PyTree:
    """The fusion's part of the model state as `calibrate` sets it from the levels' posteriors.

    Raises ValueError where the fusion gives no `level_logits`, or the hook gives arrays of other names,
    shapes or dtypes.
    """
    if levels is None:
        raise ValueError("fusion: calibrate needs level_logits and level_mask in aux")
    new_fusion_state = calibrate(old_fusion_state, levels, labels)
    if _shapes(new_fusion_state) != _shapes(old_fusion_state):
        raise ValueError(
            f"fusion: calibrate gave {_shapes(new_fusion_state)}, expected {_shapes(old_fusion_state)}"
        )
    return new_fusion_state


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
