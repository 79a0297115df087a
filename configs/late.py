"""Decision fusion: the mean of the posteriors of two single-stream classifiers.

Receipt: emofuse train --config=late --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:late.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("late")
