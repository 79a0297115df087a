"""What a cross-validation or a search wrote, read back and checked: `crossval.json`, `result.json`."""

import numpy as np

from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.utils.files import read_json_object

RESULT_FIELDS = {"fold": int, "seed": int, "validation": dict, "test": dict}
RESULT_FIELDS |= dict.fromkeys(("clips", "speakers", "labels", "probabilities"), list)
SCORE_NAMES = ("ua", "wa", "wf1")


def read_saved_plan(path: str) -> dict:
    """The plan that a workdir was begun with: `config`, `runs`, and `replicas` once their number is chosen.

    Raises:
      ValueError: no such plan; names the file and the field.
    """
    plan = read_json_object(path, config=dict, runs=list)
    group_size = plan.get("replicas", 0)
    if type(group_size) is not int or group_size < 0:
        raise ValueError(
            f"{path}: field replicas: {str(group_size)[:60]}, expected how many run side by side"
        )
    try:
        saved_config(plan)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return plan


def read_replica_result(path: str, num_classes: int) -> dict:
    """The result of a run on clips of so many classes.

    Raises:
      ValueError: not what `make_replica_result` gives; names the file and the field.
    """
    result = read_json_object(path, **RESULT_FIELDS)
    clip_count = len(result["clips"])
    for field in ("clips", "speakers"):
        if len(result[field]) != clip_count or not all(isinstance(entry, str) for entry in result[field]):
            raise ValueError(f"{path}: field {field}: expected {clip_count} names")
    labels = _validate_numbers(path, "labels", result["labels"], (clip_count,))
    if not np.isin(labels, np.arange(-1, num_classes)).all():
        raise ValueError(f"{path}: field labels: expected -1 to {num_classes - 1}")
    _validate_numbers(path, "probabilities", result["probabilities"], (clip_count, num_classes))
    _validate_numbers(path, "temperature", result.get("temperature"), ())
    _validate_numbers(path, "test", [result["test"].get(name) for name in SCORE_NAMES], (len(SCORE_NAMES),))
    return result


def _validate_numbers(path: str, field: str, values: object, shape: tuple[int, ...]) -> np.ndarray:
    """Finite ones in this shape; ValueError where they are not."""
    try:
        array = np.asarray(values)
    except (OverflowError, ValueError):  # rows of different lengths
        array = np.asarray(None)
    if array.shape != shape or array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise ValueError(f"{path}: field {field}: expected finite numbers, {list(shape)}")
    return array
