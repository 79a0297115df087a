"""MFH: two cascaded MFB blocks (arXiv 1708.03619).

Receipt: emofuse train --config=mfh --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:mfh.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("mfh")
