"""Both vectors side by side, then the classifier: the plain baseline.

Receipt: emofuse train --config=concat --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:concat.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("concat")
