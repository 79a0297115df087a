"""Common and specific features: shared heads pulled together by soft-HGR, private ones pushed away (EMOdal).

Both factors are design choices: `correlation` is that of configs/hgr.py; with a tenth of the other the
penalty rose while a small network learned.

Receipt: emofuse train --config=emodal --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:emodal.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    config = ef.settings.base("emodal")
    config.loss.objectives.update(correlation=0.1, orthogonality=1.0)
    return config
