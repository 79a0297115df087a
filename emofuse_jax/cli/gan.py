"""Generates pooled vectors of rare classes and trains the fusion of a trained network again with them.

    emofuse gan --config=gan --encoder=runs/both --workdir=runs/both_gan
    emofuse evaluate --workdir=runs/both_gan --split=test

--encoder is the workdir of a run whose fusion takes two pooled vectors (concat, late, g_fbp, ag_fbp, lmf,
...). Generated vectors are used for training only; validation and test clips are real.
--config.generate=False trains the fusion without generated vectors.
"""

import json
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "gan, or path of a config file with the same fields."
)
ENCODER = flags.DEFINE_string("encoder", None, "Workdir of the run whose fusion is trained again.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory to write the new checkpoint and metrics.jsonl to.")


def main(argv: Sequence[str]) -> None:
    """Trains the GAN and the fusion, writes a checkpoint to --workdir, and prints a JSON summary.

    Also writes metrics.jsonl. `argv` has the name of the program and the words that are no flags; none are
    allowed. The summary is one line with `workdir`, `real` and `generated` (numbers of pairs of vectors),
    `losses` (if the GAN generated any: a dict of its mean losses `generator` and `discriminator`), `epoch`
    (the best one; 0: the fusion of the run was not improved) and its `validation_ua` (mean recall of the
    classes, a fraction).

    Raises:
      FileNotFoundError: --encoder has no checkpoint, or its records are gone.
      ValueError: a flag is missing, the checkpoint or the records are damaged, the records differ from those
        of the training, the fusion of the run does not take one pooled vector of each of two modalities or
        has statistics, the run has no validation clips, no clip of a split has a label and both modalities,
        or --workdir contains a run or is used by another process.
      OSError: a file cannot be read or written.
      AttributeError: --config lacks a field of configs/gan.py.
      jax.errors.JaxRuntimeError: a device fails or runs out of memory.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    encoder, workdir = ENCODER.value, WORKDIR.value
    if CONFIG.value is None or encoder is None or workdir is None:
        raise ValueError("--config, --encoder and --workdir are required; see emofuse gan --help")
    from emofuse_jax.api.evaluation import load_trained_experiment
    from emofuse_jax.training.refit_fusion import refit

    summary = refit(*load_trained_experiment(encoder, "best", ""), CONFIG.value, workdir)
    print(json.dumps({"workdir": workdir, **summary}))
