"""AM-FBP: adaptive factorised bilinear pooling of the entire clip and of equal parts in time.

Reference: AM-FBP (Zhou et al., 2021, arXiv 2111.08910).

Command: emofuse train --config=am_fbp --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:am_fbp
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    config = ef.settings.base("am_fbp")
    config.model.audio.attn_axes = "1d_concat"
    config.model.video.attention = "self"
    config.augment.frames = 3  # random frames in training, at least fusion.parts; evaluation uses all
    return config
