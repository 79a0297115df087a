"""A multimodal bottleneck transformer over the encoders' positions (arXiv 2107.00135).

Receipt: emofuse train --config=bottleneck --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:bottleneck.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the sizes of this project's encoders."""
    config = ef.settings.base("bottleneck")
    config.model.audio.attn_axes = "1d_concat"  # a token a column: time alone tells positions apart
    return config
