"""Runs the complete pipeline on a synthetic corpus.

    emofuse demo --output=runs/demo

The steps are: clips, records, training of three networks, scores, report, bundle, and one prediction. The
corpus is generated (data_prep/corpora/demo.py), so the best possible scores are known; they are printed next
to the results. Run the same command again to resume after a stop.
"""

from collections.abc import Sequence

from absl import flags

OUTPUT = flags.DEFINE_string("output", "runs/demo", "Directory to write everything to.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed of training; the corpus does not depend on it.")
CLIPS_PER_SPEAKER = flags.DEFINE_integer(
    "clips_per_speaker", 60, "Number of clips of each of the 24 speakers."
)
EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Number of epochs of each network; default: that of the config."
)
WORKERS = flags.DEFINE_integer(
    "workers", None, "Number of processes that generate and prepare clips; default: number of cores."
)


def main(argv: Sequence[str]) -> None:
    """Runs the demo and writes all its files to --output.

    They are `clips/`, `records/`, one directory for each network (`voice`, `face`, `both`), report.html,
    `bundle/`, new_clip.mp4 and results.json; with another --seed than 0, all but the first two are in
    `seed_<n>/`. `argv` has the name of the program and the words that are no flags; none are allowed.

    Raises:
      Preempted: after SIGTERM during training, once the state is saved.
      ValueError: there is an argument that is no flag, the extra `prep` or `report` is not installed, a
        number is out of range, --output holds another demo or is used by another process, files in it are
        damaged, or the loss is NaN or infinite.
      OSError: a file cannot be read or written.
      ModuleNotFoundError: a package of the extra `prep` is missing.
      av.FFmpegError: FFmpeg can't encode H.264 or AAC.
      TypeError, AttributeError, KeyError: metadata of a saved checkpoint, or prep.json, are damaged.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    from data_prep.optional_dependencies import require_media
    from emofuse_jax.utils.optional import require_package

    require_media()
    require_package("matplotlib", "report", "the demo")
    from emofuse_jax.api import demo

    demo.run_demo(
        OUTPUT.value,
        seed=SEED.value,
        clips_per_speaker=CLIPS_PER_SPEAKER.value,
        epochs=EPOCHS.value,
        workers=WORKERS.value,
    )
