"""Both vectors side by side, then the classifier: the plain baseline.

Command: emofuse train --config=concat --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:concat
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    return ef.settings.base("concat")
