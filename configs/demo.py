"""The small form of an experiment, for the demo corpus on two cores: configs/demo.py:<fusion>.

Receipt: make demo. Scores and times: README.md, "The demo".
"""

import importlib

import ml_collections


def get_config(fusion: str = "am_fbp") -> ml_collections.ConfigDict:
    """A shipped experiment with narrow encoders, fewer frames and a short schedule."""
    config = importlib.import_module(f"configs.{fusion}").get_config()
    config.name = f"demo_{fusion}"
    config.data.audio_steps = 350  # the longest clip is 3.5 s
    config.augment.frames = 4
    config.model.audio.update(widths=(16, 32, 48, 48, 48), norms=("batch",) * 5, attention_width=64)
    config.model.video.update(
        width=16, blocks=(1, 1, 1, 1), downsample=2, embedding=64, attention_width=64
    )
    config.optimizer.learning_rate = 2e-3
    config.train.epochs = 25
    return config
