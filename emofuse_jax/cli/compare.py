"""Say whether two results differ by more than chance.

    emofuse compare runs/a/results.json runs/b/results.json [--measure=ua]

Both are of emofuse crossval, on the same protocol. All answers of a speaker are swapped between the two, in
every way or in 10,000 drawn ones: p is the share of swaps that differ at least as much. Prints the difference
with its interval by speaker, p, the effect size, and a sentence: better, worse, or not told apart.
"""

import os
from collections.abc import Sequence

from absl import flags

MEASURE = flags.DEFINE_enum("measure", "ua", ["ua", "wa", "wf1", "mf1"], "What to compare.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the comparison to.")


def main(argv: Sequence[str]) -> None:
    """Reads, compares, prints."""
    if len(argv) != 3:
        raise ValueError("usage: emofuse compare A/results.json B/results.json; see emofuse compare --help")
    from emofuse_jax.scoring.pooled_scores import read_crossval_results
    from emofuse_jax.scoring.result_labels import corpus_marks
    from emofuse_jax.scoring.significance import compare, describe_comparison
    from emofuse_jax.utils.files import write_json

    results = [read_crossval_results(path) for path in argv[1:]]
    comparison = compare(*results, measure=MEASURE.value)
    for letter, path, result in zip("AB", argv[1:], results, strict=True):
        print(f"{letter}: {100 * comparison[letter.lower()]:.1f} {MEASURE.value.upper()}  {path}")
        for mark in corpus_marks(result["corpus"], result["leaks"]):
            print(f"   {mark}")
    print(describe_comparison(comparison))
    if OUTPUT.value:
        write_json(OUTPUT.value, {"files": [os.path.abspath(path) for path in argv[1:]], **comparison})
