"""Deep Fusion: factorised bilinear pooling of the two pooled vectors.

Reference: Deep Fusion (Zhang et al., 2019, arXiv 1901.04889).

Command: emofuse train --config=g_fbp --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:g_fbp
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("g_fbp")
