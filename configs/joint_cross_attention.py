"""Joint cross-attention beside each modality's own (arXiv 2203.14779, 2209.09068).

Receipt: emofuse train --config=joint_cross_attention --config.data.path=DIR --workdir=DIR; time and score
unmeasured at this size (no paired corpus at hand). The small form is configs/demo.py:joint_cross_attention.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("joint_cross_attention")
