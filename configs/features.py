"""An experiment on features of frozen encoders: configs/features.py:<experiment>, by default am_fbp.

It is for records of `emofuse prepare --recipe=features`. For records with features next to spectrograms and
faces, set --config.data.recipe to the recipe of the records.

Command: emofuse train --config=features --config.data.path=DIR --workdir=DIR
Time and score: unmeasured (no audio-visual corpus and no frozen encoder was available).
Small variant: configs/demo.py:features
"""

import ml_collections

import emofuse_jax as ef


def get_config(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns a shipped experiment with both encoders replaced (settings/feature_variant.py).

    Raises:
      LookupError: if no shipped experiment has that name.
    """
    return ef.settings.with_features(experiment)
