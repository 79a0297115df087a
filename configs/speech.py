"""Voice alone, from scratch: log-mel energies, a small residual network, attentive statistics, mixup.

Receipt: emofuse crossval --config=speech --config.data.path=DIR --workdir=DIR
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """The experiment."""
    config = base.get_config("audio_only", audio="mel_cnn")
    config.name = "speech"
    config.data.recipe = "speech"
    config.data.audio_steps = 300
    config.model.audio.update({"attention": "statistics", "attention_width": 128, "temperature": 1.0})
    config.model.fusion.head_dropout = 0.3
    config.augment.update(
        {
            "time_masks": 2,
            "time_width": 30,
            "frequency_masks": 2,
            "frequency_width": 8,
            "mixup": 0.3,
        }
    )
    config.loss.smoothing = 0.1
    config.optimizer.update({"learning_rate": 2e-3, "warmup": 0.2, "final_rate": 0.0, "weight_decay": 0.05})
    config.train.epochs = 60
    return config
