"""Validation clips are held out of training, or trained on too (`config.data.hold_out`)."""

import math

import ml_collections
import numpy as np
from jaxtyping import Int

from emofuse_jax.models.registry import get_calibrator

VALIDATION_TRAINED_ON_MESSAGE = "config.data.hold_out=False: the validation clips were trained on"


def check_hold_out(config: ml_collections.ConfigDict) -> None:
    """ValueError where `config`, of a known fusion, needs clips that it does not hold out.

    Also where `config.train.temperature`, which then stands for what they would tell, can't be one.
    """
    if not 0 < config.train.temperature < math.inf:
        raise ValueError(f"config.train.temperature={config.train.temperature}: expected a number above 0")
    requirements = {
        f"config.train.patience={config.train.patience}": config.train.patience,
        f"fusion {config.model.fusion.name!r}": get_calibrator(config.model.fusion.name),
    }
    for name, is_required in requirements.items():
        if is_required and not config.data.hold_out:
            raise ValueError(f"config.data.hold_out=False: {name} needs validation clips")


def apply_hold_out(
    clips: dict[str, Int[np.ndarray, " n"]], *, hold_out: bool
) -> dict[str, Int[np.ndarray, " n"]]:
    """The clips of each part of a fold; without clips held out, those of validation are of `train`."""
    if hold_out:
        return clips
    training_clips = np.sort(np.concatenate([clips["train"], clips["validation"]]))
    return clips | {"train": training_clips, "validation": training_clips[:0]}
