"""EMOdal: common features, correlated by soft-HGR, and private features that are unrelated to them.

The factors of both objectives are design choices. `correlation` has the factor of configs/hgr.py. With a
factor of 0.1 for `orthogonality`, its penalty increased while a small network was learning.

Command: emofuse train --config=emodal --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:emodal
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    config = ef.settings.base("emodal")
    config.loss.objectives.update(correlation=0.1, orthogonality=1.0)
    return config
