"""Deep Fusion: factorized bilinear pooling of the two pooled vectors (arXiv 1901.04889).

Receipt: emofuse train --config=g_fbp --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:g_fbp.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("g_fbp")
