"""Sets the part of the model state that a fusion computes from the validation clips at the end of each
epoch."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from emofuse_jax.models.registry import Calibrator
from emofuse_jax.types import Params, TrainState


def replace_fusion_state(state: TrainState, fusion_state: PyTree) -> TrainState:
    """Returns the training state with other arrays in the fusion's part of the model state.

    Every process must pass the same arrays (`compute_fusion_state`); they keep their sharding.

    Raises:
      ValueError: if the model state has no part of the fusion, or `fusion_state` has another structure.
    """
    sharded_fusion_state = jax.tree.map(
        lambda new, old: jax.device_put(np.asarray(new), old.sharding),
        fusion_state,
        get_fusion_state(state.model_state),
    )
    return dataclasses.replace(state, model_state=state.model_state | {"fusion": sharded_fusion_state})


def get_fusion_state(model_state: Params) -> PyTree:
    """Returns the fusion's part of the model state, a tree of arrays.

    Raises ValueError if the model state has no part of the fusion.
    """
    if "fusion" not in model_state:
        raise ValueError(
            "fusion: calibrate needs a state, but the fusion has no measured arrays; declare them as"
            " flax.nnx.Variable in its __init__"
        )
    return model_state["fusion"]


def compute_fusion_state(
    old_fusion_state: PyTree,
    calibrate: Calibrator,
    levels: Float[np.ndarray, "n m c"] | None,
    labels: Int[np.ndarray, " n"],
) -> PyTree:
    """Returns the fusion's part of the model state, as `calibrate` computes it from the validation clips.

    The result is a tree of arrays with the names, shapes and dtypes of `old_fusion_state`.

    Args:
      old_fusion_state: current state of the fusion, a tree of arrays.
      calibrate: function `(state, level_probabilities, labels) -> state` of the fusion.
      levels: class probabilities [n m c] of n clips and m levels of the fusion, 0 if a clip lacks the level;
        a level is a stream or a part of the clip that has a separate classifier.
      labels: true class of each clip; -1 without a label.

    Raises:
      ValueError: if `levels` is None, because the fusion returns no `level_logits`, or if `calibrate` returns
        arrays with other names, shapes or dtypes than before. Errors of `calibrate` pass through.
      AttributeError: if `calibrate` returns values that are not arrays.
    """
    if levels is None:
        raise ValueError(
            "fusion: calibrate needs level_logits and level_mask, but Outputs.aux has no level_logits; return"
            " both in FusionOutput.aux"
        )
    new_fusion_state = calibrate(old_fusion_state, levels, labels)
    if _shapes(new_fusion_state) != _shapes(old_fusion_state):
        raise ValueError(
            f"fusion: calibrate returned shapes and dtypes {_shapes(new_fusion_state)}, expected those of the"
            f" state that it got, {_shapes(old_fusion_state)}; return arrays like these"
        )
    return new_fusion_state


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
