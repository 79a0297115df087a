"""Generate pooled vectors of rare classes, and fit a trained network's fusion again with them.

    emofuse gan --config=gan --encoder=runs/both --workdir=runs/both_gan
    emofuse evaluate --workdir=runs/both_gan --split=test

--encoder is a run of a fusion of two pooled vectors (concat, late, g_fbp, ag_fbp, lmf, ...). What is
generated enters the training alone; validation and test stay real. --config.generate=False fits without it.
"""

import json
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "configs/gan.py, or a file like it.")
ENCODER = flags.DEFINE_string("encoder", None, "Workdir of the run whose fusion is fitted again.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the new checkpoint and metrics.jsonl.")


def main(argv: Sequence[str]) -> None:
    """Trains the GAN, fits, and prints what was made and reached."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if None in (CONFIG.value, ENCODER.value, WORKDIR.value):
        raise ValueError("--config, --encoder and --workdir are needed; see emofuse gan --help")
    from emofuse_jax.api.evaluation import load_trained_experiment
    from emofuse_jax.training.refit_fusion import refit

    summary = refit(*load_trained_experiment(ENCODER.value, "best", ""), CONFIG.value, WORKDIR.value)
    print(json.dumps({"workdir": WORKDIR.value, **summary}))
