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
      ValueError: if no validation clips are held out, but early stopping (`config.train.patience` is not 0)
        or the fusion (it has a function `calibrate`) needs them; if the temperature is not a finite number
        above 0; or if an installed package provides the fusion, but it can't be imported or is not a valid
        class.
      KeyError: if there is no fusion of the name `config.model.fusion.name`.
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

    With `hold_out`, this is `clips` itself. Without it, it is a new dict, in which `train` has the training
    and the validation clips in ascending order, and `validation` is empty.
    """
    if hold_out:
        return clips
    training_clips = np.sort(np.concatenate([clips["train"], clips["validation"]]))
    return clips | {"train": training_clips, "validation": training_clips[:0]}
