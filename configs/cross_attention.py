"""Cross-modal attention over six parts of a clip, with the emotional metric loss (Mocanu et al., 2023).

Class-balanced batches: four clips of each of eight classes. Ablations:
--config.loss.objectives.emotional_metric=0 (cross-entropy alone), --config.model.margins.kind=triplet
(margins equal at first), --config.loss.objectives.{emotional_metric=0,adaptive_triplet=0.3} (M2FNet's
triplets) and --config.loss.objectives.{cross_entropy=0,polarity=1} (VAANet's cross-entropy). Deeper video
networks are in models/layers/resnet3d.py; their public weights start it with
--config.init.video=FILE.safetensors.

Receipt: emofuse train --config=cross_attention --config.data.path=DIR --workdir=DIR; time and score
unmeasured at this size (no paired corpus at hand). The small form is configs/demo.py:cross_attention.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the paper's sizes."""
    config = ef.settings.base("cross_attention", audio="resnet", video="snippets")
    config.data.recipe, config.data.balanced = "cross_attention", True
    config.augment.frequency_width = 30  # of 256 bins
    config.model.margins.kind = "hierarchical"
    config.loss.objectives.emotional_metric = 0.3
    return config
