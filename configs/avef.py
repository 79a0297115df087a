"""A 2-D CNN on the mel spectrogram, a 3-D CNN on the faces, and a deep network on both (Ma et al., 2019).

One snippet of all faces and four seconds of sound in one part: each modality gives one vector.

Receipt: emofuse train --config=avef --config.data.path=DIR --workdir=DIR; time and score unmeasured at this
size (no paired corpus at hand). The small form is configs/demo.py:avef.
"""

import ml_collections

import emofuse_jax as ef


def get_config() -> ml_collections.ConfigDict:
    """The experiment at the sizes of the networks' papers."""
    config = ef.settings.base("avef", audio="resnet", video="snippets")
    config.data.recipe = "hgr"
    config.augment.update(shift=3, frequency_width=12)  # for 94 bins and 64x64 faces
    config.model.audio.parts = config.model.video.snippets = 1
    return config
