"""A cross-validation as its own process: run_crossval.py WORKDIR CONFIG_JSON SEEDS [id count address]."""

import json
import sys

import ml_collections


def main() -> None:
    workdir, config_json, seeds, *process_flags = sys.argv[1:]
    from emofuse_jax.parallel import distributed

    if process_flags:
        distributed.initialize(process_flags[2], int(process_flags[1]), int(process_flags[0]))
    from emofuse_jax.training.crossval.crossval import crossval

    crossval(ml_collections.ConfigDict(json.loads(config_json)), workdir, seeds=int(seeds))
    print("done", flush=True)


if __name__ == "__main__":
    main()
