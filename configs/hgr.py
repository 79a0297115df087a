"""Common Information: networks for segments, and soft-HGR between audio, video and labels.

The factor of the objective `correlation` is lambda times the width d: lambda = 0.1 / d. The ablation without
it is --config.loss.objectives.correlation=0. The sizes of frequency masks and shifts are scaled to 94 bins
and faces of 64x64 pixels. Reference: Common Information (Ma et al., 2020, Appl. Sci. 10(20), 7239).

Command: emofuse train --config=hgr --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:hgr
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers."""
    config = ef.settings.base("hgr", audio="segments")
    config.data.recipe = "hgr"
    config.augment.update(shift=3, frequency_width=12)
    config.loss.objectives.update(cross_entropy=0.0, levels=1.0, correlation=0.1)
    return config
