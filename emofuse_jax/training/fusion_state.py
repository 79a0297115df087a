"""Sets the part of the model state that a fusion computes from the validation clips at the end of each
epoch."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from emofuse_jax.models.registry import Calibrator
from emofuse_jax.types import TrainState


def replace_fusion_state(state: TrainState, fusion_state: PyTree) -> TrainState:
    """Returns the training state with other arrays in the fusion's part of the model state.

    Every process must pass the same arrays (`compute_fusion_state`); they keep their sharding.

    Raises:
      KeyError: if the fusion has no part of the model state.
    """
    sharded_fusion_state = jax.tree.map(
        lambda new, old: jax.device_put(np.asarray(new), old.sharding),
        fusion_state,
        state.model_state["fusion"],
    )
    return dataclasses.replace(state, model_state=state.model_state | {"fusion": sharded_fusion_state})


def compute_fusion_state(
    old_fusion_state: PyTree,
    calibrate: Calibrator,
    levels: Float[np.ndarray, "n m c"] | None,
    labels: Int[np.ndarray, " n"],
) -> PyTree:
    """Returns the fusion's part of the model state, as `calibrate` computes it from the validation clips.

    Args:
      old_fusion_state: current state of the fusion.
      calibrate: hook of the fusion (models/registry.py).
      levels: class probabilities [n m c] of n clips and m levels of the fusion; a level is a stream or a part
        of the clip that has a separate classifier.
      labels: true class of each clip; -1 without a label.

    Raises:
      ValueError: if `levels` is None, because the fusion returns no `level_logits`, or if `calibrate` returns
        arrays with other names, shapes or dtypes than before.
    """
    if levels is None:
        raise ValueError("fusion: calibrate needs level_logits and level_mask in Outputs.aux")
    new_fusion_state = calibrate(old_fusion_state, levels, labels)
    if _shapes(new_fusion_state) != _shapes(old_fusion_state):
        raise ValueError(
            f"fusion: calibrate returned {_shapes(new_fusion_state)}, expected {_shapes(old_fusion_state)}"
        )
    return new_fusion_state


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
