"""LMF: low-rank fusion of the two pooled vectors (arXiv 1806.00064).

Receipt: emofuse train --config=lmf --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:lmf.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("lmf")
