"""Search for better settings of a config: validation only, no test clip is looked at; run again, it goes on.

    emofuse sweep --config=features --config.data.path=DIR --workdir=DIR --count=32 \
        --space=optimizer.learning_rate=log:1e-4:1e-2 --space=model.fusion.factors=4,8,16
    emofuse sweep --config=speech --config.data.path=DIR --workdir=DIR --trials=FILE.json --folds=0,1

A range is low:high, log:low:high, or values with commas; it is drawn by a Sobol sequence, or --method=random.
--trials takes a list of settings instead, such as an ablation: [{}, {"augment.mixup": 0.0}]. Trials that
differ only in numbers of the training step train side by side in one program. Writes sweep.json, the trials
best first, and shows them in TensorBoard (hparams).
"""

import os
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from emofuse_jax.cli import distributed_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "Name of a shipped config, or a config file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the search and of sweep.json.")
SPACE = flags.DEFINE_multi_string("space", [], "Range of a field; may stand several times.")
TRIALS = flags.DEFINE_string("trials", "", "JSON file with a list of settings, in place of --space.")
COUNT = flags.DEFINE_integer("count", 16, "How many settings to draw.", lower_bound=1)
METHOD = flags.DEFINE_enum("method", "sobol", ["sobol", "random"], "How they are drawn.")
SEARCH_SEED = flags.DEFINE_integer("search_seed", 0, "Seed of the draw.")
FOLDS = flags.DEFINE_list("folds", ["0"], "Numbers of the folds whose validation parts count.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds a fold: config.seed and those that follow.", lower_bound=1)
flags.adopt_module_key_flags(distributed_flags)


def main(argv: Sequence[str]) -> None:
    """Draws or reads the trials, trains them, writes and prints."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if CONFIG.value is None or WORKDIR.value is None or bool(SPACE.value) == bool(TRIALS.value):
        raise ValueError("--config, --workdir, and --space or --trials are needed; see emofuse sweep --help")
    from emofuse_jax.parallel import distributed
    from emofuse_jax.training.crossval import search_space

    draw_options = {"method": METHOD.value, "seed": SEARCH_SEED.value}
    trials_file, space = TRIALS.value, SPACE.value
    trials = (
        search_space.read_trials(trials_file)
        if trials_file
        else search_space.draw_trials(space, COUNT.value, **draw_options)
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
