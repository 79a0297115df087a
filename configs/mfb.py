"""MFB: factorised bilinear pooling with the signed square root (arXiv 1708.01471).

Receipt: emofuse train --config=mfb --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:mfb.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("mfb")
