"""Train one model on one fold; run again with the same --workdir, it goes on where it stopped.

    emofuse train --config=am_fbp --config.data.path=DIR --workdir=DIR
    emofuse train --config=am_fbp --config.data.path=DIR --config.optimizer.learning_rate=1e-4 --workdir=DIR

A config is a shipped name (audio_only, video_only, concat, late, g_fbp, ag_fbp, am_fbp, demo:<fusion>) or a
file; every field of it can be set with --config.<field>=<value>; emofuse_jax/settings/experiment.py lists the
fields.
"""

import json
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from emofuse_jax.cli import distributed_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "Name of a shipped config, or a config file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of checkpoints, metrics.jsonl and tensorboard.")
flags.adopt_module_key_flags(distributed_flags)


def main(argv: Sequence[str]) -> int | None:
    """Trains, then prints where the best checkpoint is."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if CONFIG.value is None or WORKDIR.value is None:
        raise ValueError("--config and --workdir are needed; see emofuse train --help")
    from emofuse_jax.parallel import distributed

    distributed_flags.initialize_distributed()
    from emofuse_jax.api.training import train
    from emofuse_jax.training.experiment import open_experiment

    tracker = train(open_experiment(CONFIG.value), WORKDIR.value)
    if distributed.is_first_process():
        best = {"best_step": tracker.best_step, "validation_ua": tracker.best_ua}
        print(json.dumps({"workdir": WORKDIR.value, **best}))
