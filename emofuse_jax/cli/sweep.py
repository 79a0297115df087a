"""Searches for better values of config fields by validation score; run it again to resume.

    emofuse sweep --config=features --config.data.path=DIR --workdir=DIR --count=32 \\
        --space=optimizer.learning_rate=log:1e-4:1e-2 --space=model.fusion.factors=4,8,16
    emofuse sweep --config=speech --config.data.path=DIR --workdir=DIR --trials=FILE.json --folds=0,1

A range is low:high, log:low:high, or a list of values with commas. Values are drawn from a Sobol sequence, or
at random with --method=random. --trials reads a list of trials instead, for example for an ablation: [{},
{"augment.mixup": 0.0}]. Trials that differ only in numbers of the training step are trained together in one
program. Writes sweep.json with the trials, best first, and logs them for TensorBoard (hparams). Test clips
are not used.
"""

import os
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from emofuse_jax.cli import distributed_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Name of a shipped config, or path of a config file."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory to write the runs and sweep.json to.")
SPACE = flags.DEFINE_multi_string("space", [], "Range of a field, FIELD=RANGE")
TRIALS = flags.DEFINE_string("trials", "", "JSON file with a list of trials, in place of --space.")
COUNT = flags.DEFINE_integer("count", 16, "Number of trials to draw.", lower_bound=1)
METHOD = flags.DEFINE_enum("method", "sobol", ["sobol", "random"], "Method to draw trials.")
SEARCH_SEED = flags.DEFINE_integer("search_seed", 0, "Random seed of the drawn trials.")
FOLDS = flags.DEFINE_list("folds", ["0"], "Numbers of the folds to train and validate.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds per fold, from config.seed on.", lower_bound=1)
flags.adopt_module_key_flags(distributed_flags)


def main(argv: Sequence[str]) -> None:
    """Draws or reads the trials, trains them, writes the scores to sweep.json in --workdir, and prints them.

    sweep.json has `config`, `protocol`, `corpus`, `folds`, `seeds` and `trials`, the best one first:
    `number`, `fields` (changed config fields), `validation_ua` (mean recall of the best epoch, a fraction;
    mean over the runs), `sd` (its deviation), `last_ua` (of the last epochs) and `runs`. `argv` has the name
    of the program and the words that are no flags; none are allowed.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: a flag, a range or the trials file is invalid, a trial has an invalid field, no clips are
        held out, the other processes of the run cannot be reached, a file of the records is damaged,
        --workdir contains another sweep or is used by another process, a model does not fit into the memory
        of a device, or the loss is NaN or infinite.
      OSError: the records, a fold or the checkpoint in config.init do not exist, or a file cannot be read or
        written.
      RuntimeError: JAX already uses the devices of this process.
      TypeError, AttributeError: the metadata of the saved state are damaged, or --config lacks a field.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    if CONFIG.value is None or WORKDIR.value is None or bool(SPACE.value) == bool(TRIALS.value):
        raise ValueError(
            "--config, --workdir, and either --space or --trials, but not both, are required; see emofuse"
            " sweep --help"
        )
    from emofuse_jax.parallel import distributed
    from emofuse_jax.training.crossval import search_space

    trials = (
        search_space.read_trials(TRIALS.value)
        if TRIALS.value
        else search_space.draw_trials(SPACE.value, COUNT.value, method=METHOD.value, seed=SEARCH_SEED.value)
    )
    distributed_flags.initialize_distributed()
    distributed.use_one_device_per_core()
    from emofuse_jax.reporting import terminal
    from emofuse_jax.training.crossval.sweep import sweep
    from emofuse_jax.training.metric_writer import write_hyperparameters
    from emofuse_jax.utils.files import write_json

    folds = [int(fold) for fold in FOLDS.value]
    results = sweep(CONFIG.value, WORKDIR.value, trials, folds=folds, seeds=SEEDS.value)
    if distributed.is_first_process():
        write_json(os.path.join(WORKDIR.value, "sweep.json"), results)
        for trial in results["trials"]:
            scores = {name: trial[name] for name in ("validation_ua", "last_ua")}
            write_hyperparameters(WORKDIR.value, f"{trial['number']:03d}", trial["fields"], scores)
        terminal.print_trials(results)
