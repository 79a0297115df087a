"""Scores a trained model on a split of its fold and writes a report.

    emofuse evaluate --workdir=DIR --split=test

Writes results.json (scores, and the probabilities of every clip), report.html with figures/, a model card and
a data card to DIR/evaluation/<split>. Prints the scores with both modalities and with each modality alone,
all from the same parameters.
"""

import os
from collections.abc import Sequence

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a training run.")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Split of the fold to score.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Checkpoint to score.")
DATA = flags.DEFINE_string("data", "", "Directory of the records, if they were moved after training.")


def main(argv: Sequence[str]) -> None:
    """Scores the model, writes results.json, cards and the report to the workdir, and prints the scores.

    The files are written to `evaluation/<split>` in it; existing ones are replaced.

    Args:
      argv: name of the program and the words that are left after absl has parsed the flags; no words are
        allowed.

    Raises:
      FileNotFoundError: there is no checkpoint, or the records are gone.
      ValueError: there is a word without a flag, --workdir is missing, the split is empty or has no labelled
        clips, the checkpoint, metrics.jsonl or the records are damaged, the records differ from those of the
        training, or the model was trained on a test speaker.
      OSError: a file cannot be read or written.
      TypeError: a note in prep.json is not a text.
    """
    if argv[1:] or not WORKDIR.value:
        raise ValueError(
            "expected --workdir and no words without a flag; usage: emofuse evaluate --workdir=DIR"
            " [--split=test]; see emofuse evaluate --help"
        )
    from emofuse_jax.api import evaluation
    from emofuse_jax.api.run import REPORT_FILE, write_evaluation
    from emofuse_jax.reporting import terminal
    from emofuse_jax.utils.optional import is_installed

    results, examples = evaluation.evaluate_workdir(
        WORKDIR.value, split=SPLIT.value, checkpoint_kind=CHECKPOINT.value, data_path=DATA.value
    )
    directory = write_evaluation(WORKDIR.value, results, examples, CHECKPOINT.value)
    terminal.print_scores(results["modalities"])
    for mark in evaluation.result_marks(results):
        print(mark)
    report = os.path.join(directory, REPORT_FILE)
    print(f"report: {report}" if is_installed("matplotlib") else f"results: {directory}")
