"""AVEF: a 2-D CNN on the mel spectrogram, a 3-D CNN on the faces, and a deep network on both vectors.

All faces are one snippet, and four seconds of audio are one part, so each modality gives one vector.
Reference: Ma et al., 2019, Audio-visual emotion fusion (AVEF), Information Fusion 46.

Command: emofuse train --config=avef --config.data.path=DIR --workdir=DIR
Time and score at this size: unmeasured (no audio-visual corpus was available).
Small variant: configs/demo.py:avef
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the experiment, with the sizes of the papers of the networks."""
    config = ef.settings.base("avef", audio="resnet", video="snippets")
    config.data.recipe = "hgr"
    config.augment.update(shift=3, frequency_width=12)  # for 94 bins and faces of 64x64 pixels
    config.model.audio.parts = config.model.video.snippets = 1
    return config
