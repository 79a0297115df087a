"""Multimodal bottleneck transformer on the positions of the encoders.

Reference: Nagrani et al., 2021, arXiv 2107.00135.

Command: emofuse train --config=bottleneck --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:bottleneck
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the encoders of this project."""
    config = ef.settings.base("bottleneck")
    config.model.audio.attn_axes = "1d_concat"  # one token per column: positions differ only in time
    return config
