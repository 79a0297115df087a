"""Voice alone: the attention FCN of Deep Fusion (arXiv 1901.04889) on the log spectrogram.

Receipt: emofuse train --config=audio_only --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:audio_only.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    return ef.settings.base("audio_only")
