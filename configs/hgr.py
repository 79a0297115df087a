"""Common information: segment networks, and soft-HGR over sound, faces and labels (Appl. Sci. 10(20), 7239).

The factor of the objective `correlation` is lambda times the width: lambda = 0.1 / d. The ablation without it
is --config.loss.objectives.correlation=0. Masked stripes and pixels are scaled to 94 bins and 64x64 faces.

Receipt: emofuse train --config=hgr --config.data.path=DIR --workdir=DIR; time and score unmeasured at this
size (no paired corpus at hand). The small form is configs/demo.py:hgr.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes."""
    config = ef.settings.base("hgr", audio="segments")
    config.data.recipe = "hgr"
    config.augment.update(shift=3, frequency_width=12)
    config.loss.objectives.update(cross_entropy=0.0, levels=1.0, correlation=0.1)
    return config
