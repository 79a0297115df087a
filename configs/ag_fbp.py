"""AG-FBP: weighs the two streams for each clip, then multiplies them by factorised bilinear pooling.

Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).

Command: emofuse train --config=ag_fbp --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:ag_fbp
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    config = ef.settings.base("ag_fbp")
    config.model.audio.attn_axes = "1d_concat"
    config.model.video.attention = "self"
    config.augment.frames = 3  # random frames in training; evaluation uses all frames
    return config
