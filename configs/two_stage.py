"""Deep Fusion in two stages: trains each stream alone, then both with the fusion at a tenth of the rate.

Reference: Deep Fusion (Zhang et al., 2019, arXiv 1901.04889).

Command: three runs, one after the other:
  emofuse train --config=audio_only --config.data.path=DIR --workdir=runs/voice
  emofuse train --config=video_only --config.data.path=DIR --workdir=runs/face
  emofuse train --config=two_stage --config.data.path=DIR --workdir=runs/both
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:two_stage
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config, with the sizes of the papers; `init` names the two runs of the first stage."""
    config = ef.settings.load_shipped("g_fbp")
    config.name = "two_stage"
    config.init.update(audio="runs/voice", video="runs/face")
    config.optimizer.learning_rate *= 0.1
    return config
