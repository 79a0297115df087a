"""Common Information with a tenth of the labels: the other clips train the correlation of the streams.

Half of each batch is labelled. For the supervised run to compare with, on the same labelled clips, use
--config.data.keep_unlabelled=False and more epochs, so that it uses the labelled clips equally often.
Reference: Common Information (Ma et al., 2020, Appl. Sci. 10(20), 7239).

Command: emofuse train --config=hgr_semi --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:hgr_semi
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of configs/hgr.py with hidden labels."""
    config = ef.settings.load_shipped("hgr")
    config.name = "hgr_semi"
    config.data.labelled_fraction, config.data.labelled_share = 0.1, 0.5
    config.model.fusion.ema = 0.9  # a batch has too few labelled segments for its covariances
    return config
