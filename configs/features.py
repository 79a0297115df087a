"""A shipped experiment on features of frozen encoders: configs/features.py:<experiment>, by default am_fbp.

For records of `emofuse prepare --recipe=features`; for features beside tensors, give --config.data.recipe the
recipe of the records.

Receipt: emofuse train --config=features --config.data.path=DIR --workdir=DIR; time and score unmeasured (no
paired corpus and no encoder at hand). The small variant is configs/demo.py:features.
"""

import ml_collections

import emofuse_jax as ef


def get_config(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns the experiment of that name with both encoders replaced (settings/feature_variant.py)."""
    return ef.settings.with_features(experiment)
