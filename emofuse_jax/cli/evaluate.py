"""Score a trained model on a part of its fold, and write its report.

    emofuse evaluate --workdir=DIR --split=test

Writes results.json (scores, and the probabilities of every clip), report.html with figures/, and cards of the
model and of the data to DIR/evaluation/<split>, and prints the scores: both streams, and each alone from the
same parameters.
"""

import os
from collections.abc import Sequence

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Directory written by emofuse train.")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Part of the fold to score.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")
DATA = flags.DEFINE_string("data", "", "Directory of the records, if they moved since the training.")


def main(argv: Sequence[str]) -> None:
    """Scores, writes and prints."""
    if argv[1:] or not WORKDIR.value:
        raise ValueError("usage: emofuse evaluate --workdir=DIR [--split=test]; see emofuse evaluate --help")
    from emofuse_jax.api import evaluation
    from emofuse_jax.reporting import run_report, terminal
    from emofuse_jax.training.metric_writer import read_epoch_rows

    results, examples = evaluation.evaluate_workdir(
        WORKDIR.value, split=SPLIT.value, checkpoint_kind=CHECKPOINT.value, data_path=DATA.value
    )
    marks = evaluation.result_marks(results)
    directory = evaluation.write_results(WORKDIR.value, results, CHECKPOINT.value)
    report_path = os.path.join(directory, "report.html")
    run_report.write_report(
        report_path,
        results=results,
        history=read_epoch_rows(WORKDIR.value),
        examples=examples,
        title=f"{results['config']} on {results['corpus']}",
        marks=marks,
    )
    terminal.print_scores(results["modalities"])
    for mark in marks:
        print(mark)
    print(f"report: {report_path}")
