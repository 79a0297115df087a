"""Decision fusion: the mean of the posteriors of two classifiers, one for each stream.

Command: emofuse train --config=late --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:late
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("late")
