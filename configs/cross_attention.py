"""Cross-modal attention over six parts of a clip, with the emotional metric loss.

Batches are class-balanced: four clips of each of eight classes. Ablations:
  --config.loss.objectives.emotional_metric=0: cross-entropy alone
  --config.model.margins.kind=triplet: all margins are equal at first
  --config.loss.objectives.{emotional_metric=0,adaptive_triplet=0.3}: triplets of M2FNet
  --config.loss.objectives.{cross_entropy=0,polarity=1}: cross-entropy of VAANet
Deeper video networks are defined in models/layers/resnet3d.py; --config.init.video=FILE.safetensors starts
from their public weights. Reference: Mocanu et al., 2023, Image and Vision Computing 133.

Command: emofuse train --config=cross_attention --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:cross_attention
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the paper."""
    config = ef.settings.base("cross_attention", audio="resnet", video="snippets")
    config.data.recipe, config.data.balanced = "cross_attention", True
    config.augment.frequency_width = 30  # of 256 bins
    config.model.margins.kind = "hierarchical"
    config.loss.objectives.emotional_metric = 0.3
    return config
