"""The plan of a cross-validation or sweep: its config, replicas and trials, in `crossval.json`."""

import json
import os
from typing import Literal

from ml_collections import ConfigDict

from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.crossval.saved_results import CrossvalPlan, read_saved_plan
from emofuse_jax.training.crossval.search_space import Trial
from emofuse_jax.training.experiment import check_same_config
from emofuse_jax.training.replica_set import ReplicaId

PLAN_FIELD_NAMES: dict[Literal["runs", "trials"], str] = {"runs": "folds or seeds", "trials": "trials"}
"""Fields of a plan besides the config, as they are called in messages."""


def read_or_make_plan(
    workdir: str,
    config: ConfigDict,
    replica_ids: list[ReplicaId],
    trials: list[Trial] | None = None,
) -> CrossvalPlan:
    """Returns the plan of a cross-validation: the saved one if `workdir` has `crossval.json`, else a new one.

    Writes nothing.

    Args:
      workdir: workdir of the cross-validation.
      config: config of the experiment.
      replica_ids: fold, seed and, in a sweep, trial of all replicas; a saved plan must have the same ones.
      trials: trials of a sweep, each a dict of config values by dotted field name, or None; a saved plan must
        have the same ones.

    Returns:
      The plan, a dict: `config` (all fields), `runs` (a list `[fold, seed]` or, in a sweep, `[fold, seed,
      trial]` for each replica) and, in a sweep, `trials`. A saved plan can also have `replicas`, the number
      of replicas per group.

    Raises:
      ValueError: if `workdir` contains another cross-validation or sweep, or the saved plan is invalid.
      OSError: if the saved plan cannot be read.
    """
    path = os.path.join(workdir, "crossval.json")
    new_plan: CrossvalPlan = {
        "config": config.to_dict(),
        "runs": [list(replica_id) for replica_id in replica_ids],
    }
    if trials is not None:
        new_plan["trials"] = trials
    if not os.path.exists(path):
        return new_plan
    plan = read_saved_plan(path)
    check_same_config(workdir, saved_config(plan).to_dict(), json.loads(json.dumps(new_plan["config"])))
    for name in PLAN_FIELD_NAMES:
        if name in new_plan and plan.get(name) != new_plan[name]:
            raise ValueError(
                f"{workdir}: was started with other {PLAN_FIELD_NAMES[name]}; use the same folds, seeds and"
                " trials, or choose another --workdir"
            )
    return plan
