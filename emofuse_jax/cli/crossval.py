"""Trains and tests every fold of a protocol with several seeds, in one program; run it again to resume.

    emofuse crossval --config=am_fbp --config.data.path=DIR --workdir=DIR --seeds=5
    emofuse crossval --config=features --config.data.path=DIR --workdir=DIR --protocol=ravdess_6fold

The dataset is loaded onto each device once. Folds and seeds are distributed over all devices, and each device
trains as many at the same time as fit into its memory (config.crossval.mode=auto|vmap|loop|single).

Parameters are chosen by the validation score, and the test split of a fold is scored once. With
--config.data.hold_out=False the validation clips are used for training too and the last epoch is used.

Writes results.json, report.html, row.md (a Markdown table row for a paper) and runs/fold_<i>_seed_<j>/, which
emofuse evaluate and emofuse export accept as --workdir. `{fold}` and `{seed}` in config.init.* are replaced
by those of the run.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from emofuse_jax.cli import distributed_flags
from emofuse_jax.cli.main import command_line

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Name of a shipped config, or path of a config file."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory to write the runs and results.json to.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds per fold, from config.seed on.", lower_bound=1)
PROTOCOL = flags.DEFINE_string("protocol", "", "Protocol; overrides config.data.protocol.")
EXAMPLES = flags.DEFINE_integer("examples", 6, "Number of example clips in the report.", lower_bound=0)
FOLDS = flags.DEFINE_list("folds", [], "Numbers of the folds to run; default: all folds of the protocol.")
flags.adopt_module_key_flags(distributed_flags)


def main(argv: Sequence[str]) -> None:
    """Runs the cross-validation, writes the results and the report to --workdir, and prints the scores.

    The files are results.json, row.md, robustness.json, MODEL_CARD.md, DATA_CARD.md, and report.html with
    `figures/`, which replace existing ones, and `runs/fold_<i>_seed_<j>/`, which the same cross-validation
    continues. `argv` has the name of the program and the words that are no flags; none are allowed.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: a flag or config field is missing or invalid, the other processes of the run cannot be
        reached, a file of the records is damaged, a fold has no test clips, fewer training clips than a
        batch, or shares a speaker between training and test, --workdir contains another cross-validation or
        is used by another process, a model does not fit into the memory of a device, or the loss is NaN or
        infinite.
      OSError: the records, a fold or the checkpoint in config.init do not exist, or a file cannot be read or
        written.
      RuntimeError: JAX already uses the devices of this process.
      TypeError, AttributeError, KeyError: the metadata of the saved state are damaged, a note in prep.json is
        not a text, its audio settings lack a field, or --config lacks a field.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    if CONFIG.value is None or WORKDIR.value is None:
        raise ValueError("--config and --workdir are required; see emofuse crossval --help")
    from emofuse_jax.parallel import distributed

    distributed_flags.initialize_distributed()
    distributed.use_one_device_per_core()
    from emofuse_jax.api.crossval_evaluation import write_crossval_outputs
    from emofuse_jax.api.training import crossval
    from emofuse_jax.reporting import terminal
    from emofuse_jax.scoring.result_marks import corpus_marks

    folds = [int(fold) for fold in FOLDS.value] or None
    if PROTOCOL.value:
        CONFIG.value.data.protocol = PROTOCOL.value
    results = crossval(CONFIG.value, WORKDIR.value, seeds=SEEDS.value, folds=folds)
    write_crossval_outputs(
        CONFIG.value, WORKDIR.value, results, command_line("crossval"), example_count=EXAMPLES.value
    )
    if not distributed.is_first_process():
        return
    terminal.print_runs(results)
    for mark in corpus_marks(results["corpus"], results["leaks"]):
        print(mark)
    print(f"results: {WORKDIR.value}: results.json, report.html, row.md (table row for a paper)")
