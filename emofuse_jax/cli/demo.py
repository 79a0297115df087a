"""The whole thread from nothing: clips, records, three networks, scores, report, bundle, one prediction.

    emofuse demo --output=runs/demo

The corpus is made here (data_prep/corpora/demo.py), so the best possible scores are known and stand beside
the results. Stopped at any moment, the same command goes on.
"""

from collections.abc import Sequence

from absl import flags

OUTPUT = flags.DEFINE_string("output", "runs/demo", "Directory of everything that is made.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the trainings; the corpus stays the same.")
CLIPS_PER_SPEAKER = flags.DEFINE_integer("clips_per_speaker", 60, "Clips of each of the 24 speakers.")
EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs of each network, instead of the config's.")
WORKERS = flags.DEFINE_integer("workers", None, "Processes that make and prepare clips; default: one a core.")


def main(argv: Sequence[str]) -> None:
    """Runs the thread."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    from data_prep.optional_dependencies import require_media

    require_media()
    from emofuse_jax.api import demo

    demo.run_demo(
        OUTPUT.value,
        seed=SEED.value,
        clips_per_speaker=CLIPS_PER_SPEAKER.value,
        epochs=EPOCHS.value,
        workers=WORKERS.value,
    )
