"""Common information with a tenth of the labels: the other clips train the correlation of the streams.

Half of each batch is labelled. The supervised run to compare it with, on the same labelled clips, is
--config.data.keep_unlabelled=False, with epochs that show them as often.

Receipt: emofuse train --config=hgr_semi --config.data.path=DIR --workdir=DIR; time and score unmeasured at
this size (no paired corpus at hand). The small form is configs/demo.py:hgr_semi.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """configs/hgr.py with hidden labels."""
    config = ef.settings.load_shipped("hgr")
    config.name = "hgr_semi"
    config.data.labelled_fraction, config.data.labelled_share = 0.1, 0.5
    config.model.fusion.ema = 0.9  # a batch holds too few labelled segments for covariances of its own
    return config
