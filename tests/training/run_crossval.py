"""A cross-validation as its own process: run_crossval.py WORKDIR CONFIG_JSON SEEDS [id count address]."""

import json
import sys

import ml_collections


def main() -> None:
    workdir, text, seeds, *process = sys.argv[1:]
    from emofuse_jax.parallel import distributed

    if process:
        distributed.initialize(process[2], int(process[1]), int(process[0]))
    from emofuse_jax.training.crossval.crossval import crossval

    crossval(ml_collections.ConfigDict(json.loads(text)), workdir, seeds=int(seeds))
    print("done", flush=True)


if __name__ == "__main__":
    main()
