"""Decision fusion: each stream's posteriors weighed by its per-class F scores on the validation clips.

Receipt: emofuse train --config=f_score --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:f_score.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    config = ef.settings.base("f_score")
    config.loss.objectives.update(cross_entropy=0.0, levels=1.0)  # each stream learns on its own
    return config
