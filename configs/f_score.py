"""Decision fusion: weighs the posteriors of each stream by its F score for each class on validation clips.

Command: emofuse train --config=f_score --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:f_score
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    config = ef.settings.base("f_score")
    config.loss.objectives.update(cross_entropy=0.0, levels=1.0)  # trains each stream separately
    return config
