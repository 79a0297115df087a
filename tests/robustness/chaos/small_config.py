"""A config file for the command line: features of frozen encoders, a training of seconds (tests/peers)."""

import ml_collections

from emofuse_jax import settings


def get_config() -> ml_collections.ConfigDict:
    """Nine folds' worth of steps in a few seconds, each of them logged."""
    config = settings.with_features("am_fbp")
    config.data.update(audio_steps=16, batch_size=8)
    config.model.audio.embedding = config.model.video.embedding = 16
    config.model.fusion.update(width=16, factors=2)
    config.train.update(epochs=4, eval_batch_size=8, log_every=1)
    config.optimizer.learning_rate = 3e-3
    config.crossval.update(mode="loop", save_seconds=0.0)  # it can stop at each step, and saves each epoch
    return config
