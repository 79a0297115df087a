"""MFB: factorised bilinear pooling with the signed square root.

Reference: MFB (Yu et al., 2017, arXiv 1708.01471).

Command: emofuse train --config=mfb --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:mfb
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("mfb")
