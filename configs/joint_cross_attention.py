"""Joint cross-attention, together with attention pooling of each modality alone.

References: Praveen et al., 2022, arXiv 2203.14779 and 2209.09068.

Command: emofuse train --config=joint_cross_attention --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:joint_cross_attention
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("joint_cross_attention")
