"""Adaptive multi-level FBP: a global trunk and equal parts in time (arXiv 2111.08910).

Receipt: emofuse train --config=am_fbp --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:am_fbp.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    config = ef.settings.base("am_fbp")
    config.model.audio.attn_axes = "1d_concat"
    config.model.video.attention = "self"
    config.augment.frames = 3  # max(3, parts) random frames in training, all in evaluation
    return config
