"""Voice alone, from scratch, where an hour of speech is all there is: log-mel energies, a small residual
network, attentive statistics (arXiv 1803.10963), and much augmentation, since speakers are few.

`--config=speech:ecapa` has a small ECAPA-TDNN in place of the network.

Receipt: emofuse crossval --config=speech --config.data.path=DIR --workdir=DIR --seeds=3; pooled test UA of
ravdess20_5fold .600, 95 % interval .549 to .651 (results/ravdess20_5fold); 7 to 9 minutes a fold and seed on
two cores. speech:ecapa is unmeasured.
"""

import ml_collections

from configs import base


def get_config(encoder: str = "mel_cnn") -> ml_collections.ConfigDict:
    """The experiment, with another encoder of sound if asked: `speech:ecapa`."""
    config = base.get_config("audio_only", audio=encoder)
    config.name = "speech" if encoder == "mel_cnn" else f"speech_{encoder}"
    config.data.update(recipe="speech", audio_steps=300, batch_size=16)
    config.model.audio.update(attention="statistics", attention_width=128, temperature=1.0)
    if encoder == "mel_cnn":
        config.model.audio.widths = (24, 48, 96, 160)
    config.augment.update(
        crop=160,
        speed=0.1,
        pitch=0.1,
        equalizer=0.5,
        gain=0.5,
        mixup=0.3,
        time_masks=2,
        time_width=20,
        frequency_masks=2,
        frequency_width=8,
    )
    config.loss.smoothing = 0.1
    config.optimizer.update(learning_rate=1e-3, warmup=0.1, final_rate=0.0, ema=0.998)
    config.train.epochs = 120
    return config
