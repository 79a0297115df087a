"""Tests whether two cross-validation results differ significantly.

    emofuse compare runs/a/results.json runs/b/results.json [--measure=ua]

Both files are written by emofuse crossval on the same protocol. The test is a paired permutation test over
speakers: all predictions of a speaker are swapped between the two results, in all combinations for few
speakers and in 10,000 random ones otherwise. p is the fraction of swaps with a difference at least as large
as the observed one. Prints the difference with its interval over speakers, p, the effect size, and whether A
is better, worse or not significantly different.
"""

import os
from collections.abc import Sequence
from typing import cast

from absl import flags

MEASURE = flags.DEFINE_enum(
    "measure",
    "ua",
    ["ua", "wa", "wf1", "mf1"],
    "Score to compare: unweighted or weighted accuracy, weighted or macro F1.",
)
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the comparison to.")


def main(argv: Sequence[str]) -> None:
    """Compares two results.json files and prints the comparison; with --output, also writes it as JSON.

    An existing file --output is replaced. `argv` has the name of the program and the paths of the two files.

    Raises:
      ValueError: there are not two arguments, a file is damaged or not a result of a cross-validation, the
        results have other test clips, classes or protocols, or no clip has a label.
      OSError: a file cannot be read or written.
    """
    if len(argv) != 3:
        raise ValueError(
            "expected two files; usage: emofuse compare A/results.json B/results.json; see emofuse compare"
            " --help"
        )
    from emofuse_jax.scoring.pooled_scores import read_crossval_results
    from emofuse_jax.scoring.result_marks import corpus_marks
    from emofuse_jax.scoring.result_types import Metric
    from emofuse_jax.scoring.significance import compare, describe_comparison
    from emofuse_jax.utils.files import write_json

    measure = cast(Metric, MEASURE.value)
    result_a, result_b = (read_crossval_results(path) for path in argv[1:])
    comparison = compare(result_a, result_b, measure=measure)
    rows = (("A", argv[1], comparison["a"], result_a), ("B", argv[2], comparison["b"], result_b))
    for letter, path, score, result in rows:
        print(f"{letter}: {100 * score:.1f} {measure.upper()}  {path}")
        for mark in corpus_marks(result["corpus"], result["leaks"]):
            print(f"   {mark}")
    print(describe_comparison(comparison))
    if OUTPUT.value:
        write_json(OUTPUT.value, {"files": [os.path.abspath(path) for path in argv[1:]], **comparison})
