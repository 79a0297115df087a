"""Holds the validation clips out of training, or adds them to it (`config.data.hold_out`)."""

import math

import ml_collections
import numpy as np
from jaxtyping import Int

from emofuse_jax.models.registry import get_calibrator

VALIDATION_TRAINED_ON_MESSAGE = "config.data.hold_out=False: the validation clips were used for training"


def check_hold_out(config: ml_collections.ConfigDict) -> None:
    """Checks `config.data.hold_out` and `config.train.temperature`.

    The temperature of the config is used if there are no validation clips to fit it to.

    Raises:
      ValueError: if early stopping (`config.train.patience`) or the fusion needs validation clips but none
        are held out, or if the temperature is not a finite number above 0.
    """
    if not 0 < config.train.temperature < math.inf:
        raise ValueError(
            f"config.train.temperature={config.train.temperature}: expected a number above 0, not infinite"
        )
    requirements = {
        f"config.train.patience={config.train.patience}": config.train.patience,
        f"fusion {config.model.fusion.name!r}": get_calibrator(config.model.fusion.name),
    }
    for name, is_required in requirements.items():
        if is_required and not config.data.hold_out:
            raise ValueError(f"config.data.hold_out=False: {name} needs validation clips; set it to True")


def apply_hold_out(
    clips: dict[str, Int[np.ndarray, " n"]], *, hold_out: bool
) -> dict[str, Int[np.ndarray, " n"]]:
    """Returns the record indices of the clips of each split (`train`, `validation`, `test`) for a run.

    With `hold_out`, `clips` is returned unchanged. Without it, the validation clips are moved to `train`,
    which is sorted, and `validation` is empty.
    """
    if hold_out:
        return clips
    training_clips = np.sort(np.concatenate([clips["train"], clips["validation"]]))
    return clips | {"train": training_clips, "validation": training_clips[:0]}
