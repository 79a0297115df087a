"""A training run as its own process: run_train.py WORKDIR CONFIG_JSON [process_id num_processes address]."""

import json
import sys

import jax
import ml_collections


def main() -> None:
    workdir, config_json, *process_flags = sys.argv[1:]
    from emofuse_jax.parallel import distributed

    if process_flags:
        distributed.initialize(process_flags[2], int(process_flags[1]), int(process_flags[0]))
    from emofuse_jax.parallel.preemption import RESTART_EXIT_CODE, Preempted
    from emofuse_jax.training.experiment import open_experiment
    from emofuse_jax.training.train import train

    try:
        train(open_experiment(ml_collections.ConfigDict(json.loads(config_json))), workdir)
    except Preempted:
        sys.exit(RESTART_EXIT_CODE)
    print("done", jax.device_count(), flush=True)


if __name__ == "__main__":
    main()
