"""Train and test every fold of a protocol with several seeds, in one program; run again, it goes on.

    emofuse crossval --config=am_fbp --config.data.path=DIR --workdir=DIR --seeds=5
    emofuse crossval --config=features --config.data.path=DIR --workdir=DIR --protocol=ravdess_6fold

The corpus lies on the devices once; folds and seeds are spread over all devices, and on each run side by side
(config.crossval.mode=auto|vmap|loop) as many as its memory holds. Parameters are chosen by validation, the
test part of a fold is scored once; with --config.data.hold_out=False validation clips are trained on too and
the last epoch is kept. Writes results.json, report.html, row.md (a row for a paper, in Markdown),
and runs/fold_<i>_seed_<j>/, which emofuse evaluate and export take as a workdir. `{fold}` and `{seed}` in
config.init.* are those of the run.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from emofuse_jax.cli import distributed_flags
from emofuse_jax.cli.main import command_line

CONFIG = config_flags.DEFINE_config_file("config", None, "Name of a shipped config, or a config file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs and of results.json.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds a fold: config.seed and those that follow.", lower_bound=1)
PROTOCOL = flags.DEFINE_string("protocol", "", "Which protocol, in place of config.data.protocol.")
EXAMPLES = flags.DEFINE_integer("examples", 6, "Clips in the report's gallery; 0: none.", lower_bound=0)
FOLDS = flags.DEFINE_list("folds", [], "Numbers of the folds; by default all of the protocol.")
flags.adopt_module_key_flags(distributed_flags)


def main(argv: Sequence[str]) -> int | None:
    """Runs, writes and prints."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if CONFIG.value is None or WORKDIR.value is None:
        raise ValueError("--config and --workdir are needed; see emofuse crossval --help")
    from emofuse_jax.parallel import distributed

    distributed_flags.initialize_distributed()
    distributed.use_one_device_per_core()
    from emofuse_jax.api.crossval_evaluation import write_crossval_outputs
    from emofuse_jax.api.training import crossval
    from emofuse_jax.reporting import terminal
    from emofuse_jax.scoring.result_labels import corpus_marks

    folds = [int(fold) for fold in FOLDS.value] or None
    if PROTOCOL.value:
        CONFIG.value.data.protocol = PROTOCOL.value
    results = crossval(CONFIG.value, WORKDIR.value, seeds=SEEDS.value, folds=folds)
    with distributed.exclusive_workdir(WORKDIR.value):
        write_crossval_outputs(
            CONFIG.value, WORKDIR.value, results, command_line("crossval"), example_count=EXAMPLES.value
        )
    if not distributed.is_first_process():
        return
    terminal.print_runs(results)
    for mark in corpus_marks(results["corpus"], results["leaks"]):
        print(mark)
    print(f"results: {WORKDIR.value}: results.json, report.html, and as a row for a paper row.md")
