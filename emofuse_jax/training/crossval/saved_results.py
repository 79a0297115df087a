"""What a cross-validation or a search wrote, read back and checked: `crossval.json`, `result.json`."""

import numpy as np

from emofuse_jax.training.checkpoint.compat import saved_config
from emofuse_jax.utils.files import read_object

FIELDS = {"fold": int, "seed": int, "validation": dict, "test": dict}
FIELDS |= dict.fromkeys(("clips", "speakers", "labels", "probabilities"), list)
SCORES = ("ua", "wa", "wf1")


def read_begun(path: str) -> dict:
    """The plan that a workdir was begun with: `config`, `runs`, and `replicas` once they are chosen.

    Raises:
      ValueError: no such plan; names the file and the field.
    """
    plan = read_object(path, config=dict, runs=list)
    replicas = plan.get("replicas", 0)
    if type(replicas) is not int or replicas < 0:
        raise ValueError(f"{path}: field replicas: {str(replicas)[:60]}, expected how many run side by side")
    try:
        saved_config(plan)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return plan


def read_result(path: str, classes: int) -> dict:
    """The result of a run on clips of so many classes.

    Raises:
      ValueError: not what `crossval.result` gives; names the file and the field.
    """
    found = {"temperature": 1.0, **read_object(path, **FIELDS)}  # the first versions had none
    count = len(found["clips"])
    for field in ("clips", "speakers"):
        if len(found[field]) != count or not all(isinstance(one, str) for one in found[field]):
            raise ValueError(f"{path}: field {field}: expected {count} names")
    labels = _numbers(path, "labels", found["labels"], (count,))
    if not np.isin(labels, np.arange(-1, classes)).all():
        raise ValueError(f"{path}: field labels: expected -1 to {classes - 1}")
    _numbers(path, "probabilities", found["probabilities"], (count, classes))
    _numbers(path, "temperature", found["temperature"], ())
    _numbers(path, "test", [found["test"].get(name) for name in SCORES], (len(SCORES),))
    return found


def _numbers(path: str, field: str, values: object, shape: tuple[int, ...]) -> np.ndarray:
    """Finite ones in this shape; ValueError where they are not."""
    try:
        array = np.asarray(values)
    except (OverflowError, ValueError):  # rows of different lengths
        array = np.asarray(None)
    if array.shape != shape or array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise ValueError(f"{path}: field {field}: expected finite numbers, {list(shape)}")
    return array
