"""LMF: low-rank fusion of the two pooled vectors.

Reference: Liu et al., 2018, arXiv 1806.00064.

Command: emofuse train --config=lmf --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:lmf
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("lmf")
