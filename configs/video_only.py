"""Video alone: a ResNet-18 for each frame, and attention over the frames.

Command: emofuse train --config=video_only --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:video_only
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("video_only")
