"""Deep Fusion in two stages: each stream alone, then both fused at a tenth of the rate (arXiv 1901.04889).

Receipt: time and score unmeasured at this size (no paired corpus at hand). The small form is
configs/demo.py:two_stage.
  emofuse train --config=audio_only --config.data.path=DIR --workdir=runs/voice
  emofuse train --config=video_only --config.data.path=DIR --workdir=runs/face
  emofuse train --config=two_stage --config.data.path=DIR --workdir=runs/both
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the papers' sizes; `init` names the two runs of the first stage."""
    config = ef.settings.load_shipped("g_fbp")
    config.name = "two_stage"
    config.init.update(audio="runs/voice", video="runs/face")
    config.optimizer.learning_rate *= 0.1
    return config
