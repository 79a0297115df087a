"""Trains one model on one fold; run it again with the same --workdir to resume.

    emofuse train --config=am_fbp --config.data.path=DIR --workdir=DIR
    emofuse train --config=am_fbp --config.data.path=DIR --config.optimizer.learning_rate=1e-4 --workdir=DIR

A config is the name of a shipped config (audio_only, video_only, concat, late, g_fbp, ag_fbp, am_fbp,
demo:<fusion>, ...) or a file. Every field can be set with --config.<field>=<value>;
emofuse_jax/settings/experiment.py lists the fields.
"""

import json
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from emofuse_jax.cli import distributed_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Name of a shipped config, or path of a config file."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory to write checkpoints, metrics.jsonl and tensorboard to."
)
flags.adopt_module_key_flags(distributed_flags)


def main(argv: Sequence[str]) -> None:
    """Trains the model, writes checkpoints and metrics to --workdir, and prints the best checkpoint as JSON.

    The JSON object has `workdir`, `best_step` (a training step) and `validation_ua` (mean recall of the
    classes, a fraction; null if no clips are held out). `argv` has the name of the program and the words that
    are no flags; none are allowed.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: a flag or config field is missing or invalid, the other processes of the run cannot be
        reached, a file of the records is damaged, the fold has fewer training clips than a batch, --workdir
        holds another run or is in use, a device runs out of memory, or the loss is NaN or infinite.
      OSError: the records, the fold or the checkpoint in config.init do not exist, or a file cannot be read
        or written.
      TypeError, AttributeError: the metadata of the checkpoint in --workdir are damaged, a note in prep.json
        is not a text, or --config lacks a field.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    if CONFIG.value is None or WORKDIR.value is None:
        raise ValueError("--config and --workdir are required; see emofuse train --help")
    from emofuse_jax.parallel import distributed

    distributed_flags.initialize_distributed()
    from emofuse_jax.api.training import train
    from emofuse_jax.training.experiment import open_experiment

    tracker = train(open_experiment(CONFIG.value), WORKDIR.value)
    if distributed.is_first_process():
        best = {"best_step": tracker.best_step, "validation_ua": tracker.best_ua}
        print(json.dumps({"workdir": WORKDIR.value, **best}))
