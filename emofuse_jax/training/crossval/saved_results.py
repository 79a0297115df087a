"""Reads and validates the files of a cross-validation or a sweep: `crossval.json` and `result.json`."""

from typing import NotRequired, TypedDict, cast

from emofuse_jax.scoring.result_checks import check_run
from emofuse_jax.scoring.result_types import ReplicaResult
from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.crossval.search_space import Trial
from emofuse_jax.types import ConfigFields
from emofuse_jax.utils.files import read_json_object


class CrossvalPlan(TypedDict):
    """Contents of crossval.json: what a cross-validation or a sweep trains."""

    config: ConfigFields
    """Every field of the config."""
    runs: list[list[int]]
    """Fold, seed and, in a sweep, trial of each replica."""
    trials: NotRequired[list[Trial]]
    """Trials of a sweep."""
    replicas: NotRequired[int]
    """Number of replicas per group, once it is chosen."""


def read_saved_plan(path: str) -> CrossvalPlan:
    """Reads the plan of a workdir (`crossval.json`).

    Returns:
      The plan, a dict: `config` (all fields), `runs` (a list `[fold, seed]` or, in a sweep, `[fold, seed,
      trial]` for each replica; the entries are not checked), in a sweep `trials` (a dict of config fields
      each), and `replicas` (number of replicas per group) once it is chosen.

    Raises:
      ValueError: if the file is not a JSON object, if `config` or `runs` is missing, if `replicas` is not an
        integer of at least 0, or if `config` is not valid for an experiment; names the file and the field.
      OSError: if the file cannot be read.
    """
    plan = read_json_object(path, config=dict, runs=list)
    group_size = plan.get("replicas", 0)
    if type(group_size) is not int or group_size < 0:
        raise ValueError(
            f"{path}: field replicas: {str(group_size)[:60]}, expected the number of replicas per group (an"
            " integer); choose another --workdir"
        )
    try:
        saved_config(plan)
    except ValueError as error:
        raise ValueError(
            f"{path}: the config of the saved run is invalid: {error}; choose another --workdir"
        ) from error
    return cast(CrossvalPlan, plan)


def read_replica_result(path: str, num_classes: int) -> ReplicaResult:
    """Reads the `result.json` of a replica.

    Args:
      path: path of the file.
      num_classes: number of classes that the probabilities must have.

    Returns:
      A dict: `fold`, `seed`, `validation` (`ua`, None if no clips are held out), `test` (`ua`, `wa` and
      `wf1`, fractions), `temperature`, and lists with one entry per test clip: `clips` (clip_ids),
      `speakers`, `labels` (-1 without a label) and `probabilities` (one per class). `best_step` and `epochs`
      are present in files of emofuse, but not checked.

    Raises:
      ValueError: if the file is not a JSON object, or a field is missing or invalid; names the file and the
        field.
      OSError: if the file cannot be read.
    """
    return check_run(
        read_json_object(path),
        f"{path}: field ",
        num_classes,
        "remove this file to train its replica again",
    )
